"""GELU written out, exact or by the hyperbolic tangent.

Before: `%y = 0.5 * %x * (1 + erf(%x / sqrt(2)))`, or `0.5 * %x * (1 + tanh(sqrt(2 / pi) * (%x + 0.044715 * %x ** 3)))`.
After:  `%y = gelu(%x)`, or `gelu(%x, approximate="tanh")`.
"""

from __future__ import annotations

import math

from tdsl.compiler.ir import Graph, Node, Value
from tdsl.compiler.ops.op import OPS
from tdsl.compiler.passes.patterns.matching import Matcher, Product, close, number, ordered, product, replaced

CUBIC = 0.044715


def gelu(graph: Graph) -> Graph:
    """Replace each GELU that is written in arithmetic."""
    matcher = Matcher(graph)
    found: list[tuple[list[Node], list[Node]]] = []
    gone: set[Node] = set()
    for node in reversed(graph.nodes):
        match = _match(matcher, node) if node not in gone else None
        if match is not None:
            old, new = match
            gone.update(old)
            found.append((ordered(graph, old), [new]))
    return replaced(graph, found)


def _match(matcher: Matcher, node: Node) -> tuple[list[Node], Node] | None:
    if node.op.name not in ("mul", "div") or len(node.outputs) != 1:
        return None
    whole = product(matcher, node.output)
    if not close(whole.coefficient, 0.5) or len(whole.factors) != 2:
        return None
    for x, gate in (whole.factors, whole.factors[::-1]):
        found = _gate(matcher, x, gate)
        if found is not None:
            inner, approximate = found
            new = Node(OPS["gelu"], (x,), {"approximate": approximate}, node.outputs, node.span, origin=node.origin)
            return [*inner, *whole.nodes], new
    return None


def _gate(matcher: Matcher, x: Value, gate: Value) -> tuple[list[Node], str] | None:
    """`1 + erf(...)` or `1 + tanh(...)` of `x`: its nodes, and what `approximate` is."""
    added = matcher.inner(gate, "add")
    if added is None:
        return None
    one, function = added.inputs if number(added.inputs[0]) is not None else added.inputs[::-1]
    called = matcher.inner(function, "erf", "tanh")
    if not close(number(one), 1.0) or called is None or not isinstance(called.inputs[0], Value):
        return None
    if not matcher.is_inner(called.inputs[0]):
        return None
    argument = product(matcher, called.inputs[0])
    exact = called.op.name == "erf"
    within = _scaled(argument, x) if exact else _cubic(matcher, argument, x)
    return None if within is None else ([*within, called, added], "none" if exact else "tanh")


def _scaled(argument: Product, x: Value) -> list[Node] | None:
    """`x / sqrt(2)`."""
    same = argument.factors == (x,) and close(argument.coefficient, math.sqrt(0.5))
    return list(argument.nodes) if same else None


def _cubic(matcher: Matcher, argument: Product, x: Value) -> list[Node] | None:
    """`sqrt(2 / pi) * (x + 0.044715 * x ** 3)`."""
    if len(argument.factors) != 1 or not close(argument.coefficient, math.sqrt(2 / math.pi)):
        return None
    added = matcher.inner(argument.factors[0], "add")
    if added is None or x not in added.inputs:
        return None
    other = added.inputs[1] if added.inputs[0] is x else added.inputs[0]
    cubic = product(matcher, other, outermost=isinstance(other, Value) and matcher.is_inner(other))
    if cubic.factors != (x, x, x) or not close(cubic.coefficient, CUBIC):
        return None
    return [*cubic.nodes, added, *argument.nodes]
