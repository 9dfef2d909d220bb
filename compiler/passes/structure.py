"""Give operations their structured kernels.

Before: `%y = rope(%x)`.
After:  `%y = group rope(%x)`, its body the operation, its structure what the template is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdsl.compiler.ir import Graph, Group, Node, Operand, Structure, Value
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.ops.op import Bound
from tdsl.compiler.passes.fuse import GROUP, input_names
from tdsl.compiler.passes.fusible import scalars_of


def structure(graph: Graph) -> Graph:
    """Replace each operation that a template computes by a group of it alone."""
    with knowing(graph.known, graph.assumed):
        return replace(graph, nodes=tuple(_structured(node, graph) for node in graph.nodes))


def _structured(node: Node, graph: Graph) -> Node:
    if node.group is not None or node.op.structure is None or not _computable(node):
        return node
    found = node.op.structure(Bound(node.op, node.inputs, node.attrs, node.span))
    return node if found is None else structured_node(node.op.name, [node], node.outputs, found, graph)


def _computable(node: Node) -> bool:
    """Kernels compute in float32 at most."""
    return all(v.type.dtype != "f64" for v in (*node.values, *node.outputs))


def structured_node(
    name: str, nodes: Sequence[Node], outputs: tuple[Value, ...], found: Structure, graph: Graph
) -> Node:
    """The group node that stands for `nodes`, of whose results `outputs` are needed."""
    made = {v for n in nodes for v in n.outputs}
    inputs = tuple(dict.fromkeys(v for n in nodes for v in n.values if v not in made))
    scalars = tuple(dict.fromkeys(s for n in nodes for s in scalars_of(n) if s.text))
    body = Graph(name, inputs, (), tuple(nodes), outputs, known=graph.known, assumed=graph.assumed)
    operands: tuple[Operand, ...] = (*inputs, *scalars)
    group = Group(name, body, scalars, names=input_names(graph, inputs), structure=found)
    return Node(GROUP, operands, {}, outputs, nodes[0].span, group=group)
