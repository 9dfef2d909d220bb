"""Linear layers over one input as one product, whose weights lie side by side.

Before: `%a = linear(%x, gate.weight); %b = linear(%x, up.weight)`.
After:  `%both = linears(%x, gate.weight, up.weight); %a, %b = chunk(%both, 2, dim=-1)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tdsl.compiler.ir import Attr, Graph, Node, TensorType, Value
from tdsl.compiler.ops.infer import same
from tdsl.compiler.ops.op import OPS, Op
from tdsl.compiler.size import Size


def linears(graph: Graph) -> Graph:
    """Replace the layers that read one tensor, in a model; what a loss calls are whole models."""
    if graph.data:
        return graph
    for layers in list(_together(graph)):
        graph = _joined(graph, layers)
    return graph


def _together(graph: Graph) -> Iterator[list[Node]]:
    """Two or more layers over one input, each called once, with weights of their own, all with a bias or none."""
    params = {p.value for p in graph.params}
    uses: dict[Value, int] = {}
    for node in graph.walk():
        for value in node.values:
            uses[value] = uses.get(value, 0) + 1
    found: dict[tuple[Value, bool], list[Node]] = {}
    for node in graph.nodes:
        if node.op.name == "linear" and node.layer and isinstance(node.inputs[0], Value):
            own = [v for v in node.values[1:] if v in params and uses[v] == 1]
            if len(own) == len(node.values) - 1:
                found.setdefault((node.inputs[0], len(own) > 1), []).append(node)
    yield from (layers for layers in found.values() if len(layers) > 1)


def _joined(graph: Graph, layers: list[Node]) -> Graph:
    x = layers[0].values[0]
    weights, biases = [n.values[1] for n in layers], [v for n in layers for v in n.values[2:]]
    sizes = tuple(n.output.type.shape[-1] for n in layers)
    total = sum(sizes[1:], sizes[0])
    span = layers[0].span
    whole = Value(TensorType(layers[0].output.type.dtype, (*x.type.shape[:-1], total)))
    attrs: dict[str, Attr] = {"layers": tuple(n.layer for n in layers)}
    product = Node(OPS["linears"], (x, *weights, *biases), attrs, (whole,), span)
    renamed = {n.output: replace(n.output, name=_name(n)) for n in layers if not n.output.name}
    pieces = tuple(renamed.get(n.output, n.output) for n in layers)
    cut = Node(*_cut(whole, sizes), pieces, span)
    first = min(layers, key=graph.nodes.index)
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += [product, cut] if node is first else []
        nodes += [] if node in layers else [_reading(node, renamed)]
    outputs = tuple(renamed.get(v, v) for v in graph.outputs)
    tracked = {name: renamed.get(v, v) for name, v in graph.tracked.items()}
    return replace(graph, nodes=tuple(nodes), outputs=outputs, tracked=tracked)


def _name(node: Node) -> str:
    """What the result of a layer is called: as the layer is."""
    parts = [part for part in node.layer.split(".") if not part.isdecimal()]
    return parts[-1] if parts else ""


def _cut(whole: Value, sizes: tuple[Size, ...]) -> tuple[Op, tuple[Value], dict[str, Attr]]:
    if all(same(size, sizes[0]) for size in sizes):
        return OPS["chunk"], (whole,), {"chunks": len(sizes), "dim": -1}
    return OPS["split"], (whole,), {"split_size_or_sections": sizes, "dim": -1}


def _reading(node: Node, renamed: Mapping[Value, Value]) -> Node:
    if not any(v in renamed for v in node.values):
        return node
    return replace(node, inputs=tuple(renamed.get(o, o) if isinstance(o, Value) else o for o in node.inputs))
