"""Recognise tensors that are turned by the same rotary positions: one kernel turns both.

Before: `%q = rope(%x); %k = rope(%y)`.
After:  `%q, %k = group rope(%x, %y)`.
"""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.ir import Graph, Node, Structure, Value
from tdsl.compiler.ops.numbers import argument
from tdsl.compiler.passes.structure import reading, structured_node


def ropes(graph: Graph) -> Graph:
    """Replace pairs of ropes, such as those of queries and keys, by one group each."""
    i = 0
    while i < len(graph.nodes):
        j = _second(graph, i) if graph.nodes[i].op.name == "rope" else None
        graph, i = (graph, i + 1) if j is None else (_together(graph, i, j), i)
    return graph


def _together(graph: Graph, i: int, j: int) -> Graph:
    """The graph with two ropes as one group, which stands where the second stood."""
    first, second = graph.nodes[i], graph.nodes[j]
    node = _both(graph, first, second)
    nodes = (*graph.nodes[:i], *graph.nodes[i + 1 : j], node, *graph.nodes[j + 1 :])
    return reading(replace(graph, nodes=nodes), dict(zip((first.output, second.output), node.outputs)))


def _second(graph: Graph, index: int) -> int | None:
    """The next rope like one, if nothing before it waits for that one."""
    first = graph.nodes[index]
    for j, node in enumerate(graph.nodes[index + 1 :], index + 1):
        if first.output in node.values:
            return None
        if node.op.name == "rope" and _alike(first, node):
            return j
    return None


def _alike(first: Node, second: Node) -> bool:
    """Whether both turn [B, heads, T, D] with the same batch, positions and width by the same angles."""
    a, b = (node.output.type.shape for node in (first, second))
    told = all(argument(first.attrs[name]) is not None for name in ("base", "offset"))
    positions = len(a) == len(b) == 4 and (a[0], a[2], a[3]) == (b[0], b[2], b[3])
    return told and positions and dict(first.attrs) == dict(second.attrs) and first.values != second.values


def _both(graph: Graph, first: Node, second: Node) -> Node:
    told = {name: argument(first.attrs[name]) for name in ("base", "offset")}
    nodes = [replace(node, outputs=(_named(node),)) for node in (first, second)]
    names = [node.output.name for node in nodes]
    short = all(len(name) == 1 for name in names) and names[0] != names[1]
    roles = names if short else ["x", "x_2"]
    found = Structure("rope", dict(zip(roles, (first.values[0], second.values[0]))), told)
    name = f"rope_{''.join(names)}" if short else "rope_both"
    return structured_node(name, nodes, (nodes[0].output, nodes[1].output), found, graph)


def _named(node: Node) -> Value:
    """The result, called as what is turned where it has no name."""
    return Value(node.output.type, node.output.name or node.values[0].name)
