"""What the nodes of a graph read: which of them are needed, how long each value is, which sizes are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tdsl.compiler.emit.text import mentions
from tdsl.compiler.ir import Attr, Graph, Node, Scalar, Value
from tdsl.compiler.size import Size


def live(graph: Graph) -> list[Node]:
    """The nodes that the results need, and calls, which may change a module."""
    wanted = set(graph.results)
    found: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs) or node.layer or node.regions:
            found.append(node)
            wanted.update(node.values)
    return found[::-1]


def last_uses(
    graph: Graph, nodes: Sequence[Node], inputs: Mapping[Value, str], text_of: Callable[[Scalar], str]
) -> dict[Value, int]:
    """The index of the last node that reads each value, by itself or in the text of a scalar."""
    found: dict[Value, int] = {}
    for i, node in enumerate(nodes):
        found |= dict.fromkeys(node.values, i)
        texts = [text_of(s) for s in _scalars_of(node) if s.text]
        found |= {value: i for value, name in inputs.items() if any(mentions(text, name) for text in texts)}
    return found | dict.fromkeys(graph.results, len(nodes))


def _scalars_of(node: Node) -> Iterator[Scalar]:
    """The scalars of a node and of all that it runs."""
    for attr in (*node.inputs, *node.attrs.values()):
        yield from _scalars(attr)
    for region in node.regions:
        for inner in region.nodes:
            yield from _scalars_of(inner)


def _scalars(attr: Attr | Value) -> Iterator[Scalar]:
    """The scalars in an operand or attribute."""
    if isinstance(attr, Scalar):
        yield attr
    elif isinstance(attr, tuple):
        for item in attr:
            yield from _scalars(item)


def sizes_in(attr: Attr) -> Iterator[Size]:
    """The sizes in an operand or attribute that are written out."""
    if isinstance(attr, Scalar) and not attr.text and isinstance(attr.value, Size):
        yield attr.value
    elif isinstance(attr, Size):
        yield attr
    elif isinstance(attr, tuple):
        for item in attr:
            yield from sizes_in(item)
