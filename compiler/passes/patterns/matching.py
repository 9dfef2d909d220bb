"""What patterns are written in: who makes a value, what it is a product of, and a graph with some nodes replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tdsl.compiler.ir import Graph, Node, Operand, Scalar, Value


class Matcher:
    """A graph to look for patterns in."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers = graph.producers()
        self.users = graph.users()
        self.results = set(graph.results)

    def maker(self, value: Operand, *ops: str) -> Node | None:
        """The node that makes a value, where it is of one of these ops."""
        node = self.makers.get(value) if isinstance(value, Value) else None
        return node if node is not None and node.op.name in ops else None

    def inner(self, value: Operand, *ops: str) -> Node | None:
        """As `maker`, where nothing else reads the value: a pattern may do away with it."""
        node = self.maker(value, *ops)
        return node if node is not None and isinstance(value, Value) and self.is_inner(value) else None

    def is_inner(self, value: Value) -> bool:
        """Whether one node alone reads a value."""
        return self.reader(value) is not None

    def reader(self, value: Value) -> Node | None:
        """The one node that reads a value, where it is no result."""
        users = self.users.get(value, [])
        return users[0] if len(users) == 1 and value not in self.results else None


def number(operand: Operand) -> float | None:
    """The literal number that an operand is."""
    if isinstance(operand, Value) or operand.text or isinstance(operand.value, bool):
        return None
    return float(operand.value) if isinstance(operand.value, (int, float)) else None


def close(found: float | None, wanted: float) -> bool:
    """Whether a literal is a constant, to the digits that a program would write of it."""
    return found is not None and abs(found - wanted) <= 1e-6 * abs(wanted)


@dataclass(frozen=True)
class Product:
    """`coefficient` times `factors`, made by `nodes`."""

    coefficient: float
    factors: tuple[Value, ...]
    nodes: tuple[Node, ...] = ()

    def __mul__(self, other: Product) -> Product:
        return Product(
            self.coefficient * other.coefficient, (*self.factors, *other.factors), (*self.nodes, *other.nodes)
        )


def product(matcher: Matcher, operand: Operand, *, outermost: bool = True) -> Product:
    """What an operand is a product of; a product within it only where nothing else reads that."""
    literal = number(operand)
    if literal is not None:
        return Product(literal, ())
    if isinstance(operand, Scalar):
        return Product(float("nan"), ())
    node = matcher.maker(operand, "mul", "div", "neg", "pow")
    if node is None or not (outermost or matcher.is_inner(operand)):
        return Product(1.0, (operand,))
    found = _of(matcher, node)
    return Product(1.0, (operand,)) if found is None else found * Product(1.0, (), (node,))


def _of(matcher: Matcher, node: Node) -> Product | None:
    left = node.inputs[0]
    if node.op.name == "neg":
        return Product(-1.0, ()) * product(matcher, left, outermost=False)
    right = node.inputs[1]
    if node.op.name == "mul":
        return product(matcher, left, outermost=False) * product(matcher, right, outermost=False)
    by = number(right)
    if by is None or by == 0:
        return None
    if node.op.name == "div":
        return product(matcher, left, outermost=False) * Product(1.0 / by, ())
    whole = int(by) if by == int(by) and 1 <= by <= 4 else 0
    return Product(1.0, (left,) * whole) if whole and isinstance(left, Value) else None


def replaced(graph: Graph, found: Sequence[tuple[Sequence[Node], Sequence[Node]]]) -> Graph:
    """The graph with new nodes in the place of the last of those that they stand for; the others go."""
    instead = {old[-1]: new for old, new in found}
    gone = {node for old, _ in found for node in old}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += instead.get(node, ()) if node in gone else (node,)
    return replace(graph, nodes=tuple(nodes)) if found else graph


def ordered(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Nodes in the order of the graph."""
    wanted = set(nodes)
    return [node for node in graph.nodes if node in wanted]
