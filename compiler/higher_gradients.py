"""What the gradients that a program itself asks for keep: each leaves a graph, which that of the loss goes through.

A gradient of a value computes, for each operation before it, its derivative from what that has kept; all of that is
kept, too. So a graph is some times as large as what it is the gradient of, and that of a gradient larger again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tdsl.compiler.build.unit import (
    ListMember,
    Member,
    ModuleMember,
    RepeatMember,
    RunIR,
    SequentialMember,
    Unit,
)
from tdsl.compiler.inspect import Sizes, bound, number
from tdsl.compiler.ir import Graph, Value
from tdsl.compiler.reach import CALLS, member_at
from tdsl.compiler.size import Symbol

# Of a gradient of order n, the graph is at most FIRST * GROWTH**n times what the forward keeps. Measured were up to
# 3.1, 5.7 and 11.1 times (n = 1, 2, 3) for networks of tanh, gelu, silu, norms, softmax and convolutions.
FIRST, GROWTH = 1.7, 1.9
Members = Mapping[str, Member]


def kept(unit: Unit, run: RunIR, activations: int) -> int:
    """The bytes that all gradients of a run's loss keep, at most, where its forward keeps `activations`."""
    orders, _ = _Orders(unit).of(run.loss, dict(run.models), [0] * len(run.loss.inputs), {})
    return int(activations * sum(FIRST * GROWTH**order for order in orders))


class _Orders:
    """The orders of the gradients of graphs: that of a value's gradient is one more than the value's own."""

    def __init__(self, unit: Unit) -> None:
        self.classes = {each.class_name: each for each in unit.modules}

    def of(self, graph: Graph, members: Members, given: Sequence[int], sizes: Sizes) -> tuple[list[int], list[int]]:
        """The orders of the gradients that a graph takes, of inputs of orders `given`; those of its results."""
        order: dict[Value, int] = dict(zip(graph.inputs, given, strict=True))
        found: list[int] = []
        for node in graph.nodes:
            own = [order.get(value, 0) for value in node.values]
            top = max(own, default=0)
            if node.op.name == "grad":
                top += 1
                found.append(top)
            elif node.op.name in CALLS:
                inner = list(self._called(member_at(members, node.layer), own, sizes))
                found += inner
                top = max([top, *inner])
            for region in node.regions:
                inner, results = self.of(region, members, own, sizes)
                found += inner
                top = max([top, *results])
            order |= dict.fromkeys(node.outputs, top)
        return found, [order.get(value, 0) for value in graph.outputs]

    def _called(self, member: object, given: Sequence[int], sizes: Sizes) -> Iterator[int]:
        if isinstance(member, ModuleMember):
            ir = self.classes[member.class_name]
            inputs = [*given, *[0] * len(ir.graph.inputs)][: len(ir.graph.inputs)]
            yield from self.of(ir.graph, ir.members, inputs, bound(ir, member, sizes))[0]
        elif isinstance(member, RepeatMember):
            for i in range(number(member.count, sizes) or 1):
                yield from self._called(member.element, given, {**sizes, Symbol(member.variable, param=True): i})
        elif isinstance(member, (SequentialMember, ListMember)):
            for element in member.elements:
                yield from self._called(element, given, sizes)
