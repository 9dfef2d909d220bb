"""Common subexpressions and dead code.

Before: `%a = exp(%x); %b = exp(%x); %c = log(%x); return %a + %b`.
After:  `%a = exp(%x); return %a + %a`.
"""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.ir import Graph, Node, Operand, Scalar, Value
from tdsl.compiler.ops.op import Kind

# A node that draws numbers, or that runs a module, is not the same as another that reads the same.
_ONCE = ("call_module", "call_list")


def share(graph: Graph) -> Graph:
    """Compute equal things once."""
    same: dict[Value, Value] = {}
    seen: dict[object, tuple[Value, ...]] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(_swapped(o, same) for o in node.inputs)
        key = (node.op.name, inputs, tuple(node.attrs.items()), node.layer)
        if key in seen and _pure(node):
            same.update(zip(node.outputs, seen[key]))
            continue
        seen[key] = node.outputs
        nodes.append(replace(node, inputs=inputs) if inputs != node.inputs else node)
    return replace(
        graph,
        nodes=tuple(nodes),
        outputs=tuple(same.get(v, v) for v in graph.outputs),
        tracked={n: same.get(v, v) for n, v in graph.tracked.items()},
    )


def _swapped(operand: Operand, same: dict[Value, Value]) -> Operand:
    return operand if isinstance(operand, Scalar) else same.get(operand, operand)


def _pure(node: Node) -> bool:
    return node.op.kind is not Kind.RANDOM and not node.op.effects and node.op.name not in _ONCE and not node.regions


def prune(graph: Graph) -> Graph:
    """Drop what no result needs."""
    need = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in need for v in node.outputs) or _checks(node, graph):
            node = _narrowed(node, need) if node.regions else node
            kept.append(node)
            need.update(node.values)
    params = tuple(p for p in graph.params if p.value in need)
    return replace(graph, nodes=tuple(reversed(kept)), params=params)


def _checks(node: Node, graph: Graph) -> bool:
    """Whether a region checks what is assumed in it."""
    return any(set(r.assumed) - set(graph.assumed) or any(_checks(n, r) for n in r.nodes) for r in node.regions)


def _narrowed(node: Node, need: set[Value]) -> Node:
    """A node with regions that yields, and takes, no more than is needed."""
    wanted = [i for i, v in enumerate(node.outputs) if v in need]
    regions = [prune(replace(r, outputs=tuple(r.outputs[i] for i in wanted))) for r in node.regions]
    read = [{v for n in r.nodes for v in n.values} | set(r.outputs) for r in regions]
    taken = [i for i in range(len(node.inputs)) if any(r.inputs[i] in used for r, used in zip(regions, read))]
    return replace(
        node,
        inputs=tuple(node.inputs[i] for i in taken),
        outputs=tuple(node.outputs[i] for i in wanted),
        regions=tuple(replace(r, inputs=tuple(r.inputs[i] for i in taken)) for r in regions),
    )
