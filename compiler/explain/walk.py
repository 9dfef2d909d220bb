"""Walk a program as a training step runs it: every module at each of the sizes that it is called with, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tdsl.compiler.build.types import REST
from tdsl.compiler.build.unit import (
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Submodule,
    Unit,
)
from tdsl.compiler.explain.model import Cost, Part, Table
from tdsl.compiler.explain.sizes import ASSUMED, Numbers, Sizes
from tdsl.compiler.inspect import bound
from tdsl.compiler.ir import Graph
from tdsl.compiler.size import Symbol

# A class, its sizes, the dimensions that stand for `...`, which inputs carry a gradient, and which of the modules in it
# are computed again in the backward.
Key = tuple[str, tuple[tuple[Symbol, int], ...], Numbers, tuple[bool, ...], frozenset[str]]


@dataclass(frozen=True)
class Found:
    """What one call of a module comes to, for its caller.

    `keeps` says of each input whether the backward reads it, `kept` of each output whether it is counted already among
    what is kept, `carries` of each output whether it carries a gradient.
    """

    title: str
    module: str
    sizes: str
    parts: tuple[Part, ...]
    shapes: tuple[Numbers, ...]
    keeps: tuple[bool, ...]
    kept: tuple[bool, ...]
    carries: tuple[bool, ...]
    calls: dict[Key, int]

    @property
    def cost(self) -> Cost:
        return sum((part.cost for part in self.parts), Cost())


@dataclass
class Walk:
    """What is found on the way. `width` is the bytes of `float` within models.

    `recomputed` is the most that a module keeps while its backward goes on, of those that compute again for it.
    """

    unit: Unit
    width: int
    found: dict[Key, Found] = field(default_factory=dict)
    assumed: dict[str, None] = field(default_factory=dict)
    recomputed: int = 0

    def ir(self, name: str) -> ModuleIR:
        return next(ir for ir in self.unit.modules if ir.class_name == name)

    def complete(self, graph: Graph, sizes: Sizes) -> Sizes:
        """With what else the sizes of inputs and parameters are: as known at most, else assumed."""
        values = (*graph.inputs, *(p.value for p in graph.params))
        symbols = {s for v in values for size in v.type.shape for s in size.symbols()} - {REST}
        numbers = dict(sizes.numbers)
        for symbol in sorted(symbols - set(numbers), key=str):
            numbers[symbol] = graph.known.get(symbol, ASSUMED)
            if symbol not in graph.known:
                self.assumed.setdefault(f"{symbol} = {ASSUMED}")
        return Sizes(numbers, sizes.lead)

    def told(self, ir: ModuleIR, sizes: Sizes) -> str:
        """The sizes of a call as a reader is told them."""
        order = [Symbol(param.name, param=True) for param in ir.params]
        run = sorted((s for s in sizes.numbers if not s.param), key=str)
        found = [f"{s}={sizes.numbers[s]}" for s in (*order, *run) if s in sizes.numbers]
        return ", ".join(found + (["...=" + "x".join(map(str, sizes.lead))] if sizes.lead else []))

    # Members

    def member(self, ir: ModuleIR, path: str, sizes: Sizes) -> tuple[Submodule | None, Sizes]:
        """What a path leads to, and the sizes in whose terms its arguments are."""
        member: Member | None = None
        for part in path.split("."):
            if member is None:
                member = ir.members.get(part)
            elif isinstance(member, ModuleMember):
                ir = self.ir(member.class_name)
                sizes = Sizes(bound(ir, member, sizes.numbers), sizes.lead)
                member = ir.members.get(part)
            elif isinstance(member, (SequentialMember, ListMember)):
                member = member.elements[int(part)]
            elif isinstance(member, RepeatMember):
                sizes = sizes.having(member.variable, int(part))
                member = member.element
            if isinstance(member, SharedMember):
                member, sizes = self.member(ir, member.path, sizes)
        return (member if isinstance(member, Submodule) else None), sizes

    # Results

    def below(self, calls: Mapping[Key, int]) -> Iterator[Table]:
        """A table for each module that is called, and for those that they call, callers first."""
        times = Counter(calls)
        for key in reversed(self._order(calls)):
            found = self.found[key]
            for inner, count in found.calls.items():
                times[inner] += count * times[key]
            yield Table(found.title, found.module, found.sizes, times[key], found.parts)

    def _order(self, calls: Iterable[Key]) -> list[Key]:
        """What is called, each after all that it calls itself."""
        seen: dict[Key, None] = {}

        def visit(key: Key) -> None:
            if key not in seen:
                for inner in reversed(self.found[key].calls):
                    visit(inner)
                seen[key] = None

        for key in reversed(list(calls)):
            visit(key)
        return list(seen)
