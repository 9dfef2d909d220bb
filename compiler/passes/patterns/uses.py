"""Who makes and who reads the values of a graph: what patterns look along."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl.compiler.ir import Graph, Node, Operand, Value


class Uses:
    """The makers and the readers of a graph's values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers = graph.producers()
        self.readers = graph.users()
        self.results = set(graph.results)
        self.order = {node: i for i, node in enumerate(graph.nodes)}

    def maker(self, operand: Operand, *names: str) -> Node | None:
        """The node that makes a value, where it is an operation of one of these names."""
        node = self.makers.get(operand) if isinstance(operand, Value) else None
        return node if node is not None and node.op.name in names else None

    def only_reader(self, value: Value) -> Node | None:
        """The one node that reads a value, which is no result."""
        found = self.readers.get(value, [])
        return found[0] if len(found) == 1 and value not in self.results else None

    def own_maker(self, operand: Operand, *names: str) -> Node | None:
        """As `maker`, where nothing else reads the value."""
        node = self.maker(operand, *names)
        return node if isinstance(operand, Value) and self.only_reader(operand) is not None else None

    def sorted(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """In the graph's order, each once."""
        return tuple(sorted(set(nodes), key=self.order.__getitem__))

    def is_read_within(self, node: Node, nodes: Sequence[Node]) -> bool:
        """Whether only `nodes` read what a node makes."""
        readers = [r for v in node.outputs for r in self.readers.get(v, [])]
        return not self.results.intersection(node.outputs) and all(r in nodes for r in readers)
