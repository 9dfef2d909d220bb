"""What `tdsl explain` tells, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum

from tdsl.dsl.diagnostics import Span


@dataclass(frozen=True)
class Cost:
    """Bytes moved forward and backward, those saved against each operation alone, FLOPs, bytes kept for the backward.

    Of what is kept, `copies` are those of parameters in a lower precision, which stay from step to step.
    Each tensor that a kernel or a call reads or writes counts once, whatever its caches make of it.
    """

    forward: int = 0
    backward: int = 0
    saved: int = 0
    flops: int = 0
    flops_backward: int = 0
    kept: int = 0
    copies: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __mul__(self, times: int) -> Cost:
        return Cost(*(getattr(self, f.name) * times for f in fields(Cost)))

    @property
    def moved(self) -> int:
        """Bytes moved in both directions."""
        return self.forward + self.backward


def total(costs: Sequence[Cost]) -> Cost:
    return sum(costs, Cost())


class PartKind(Enum):
    """What computes a part of a line."""

    KERNEL = "kernel"
    CALL = "call"
    MODULE = "module"
    VIEW = "view"


@dataclass(frozen=True)
class Registers:
    """What a thread of a kernel takes in each direction (None: none, or not known), and the bytes that it spills."""

    forward: int | None = None
    backward: int | None = None
    spilled: int = 0


@dataclass(frozen=True)
class Part:
    """A kernel, a library call, or a call of a module (then with all that is in it), and the lines that it is.

    `shapes` are those of a kernel's tensors.
    """

    name: str
    kind: PartKind
    spans: tuple[Span, ...]
    cost: Cost
    note: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()
    registers: Registers | None = None


@dataclass(frozen=True)
class Table:
    """One module at the sizes that it is called with, `calls` times in a step; `sizes` is how a reader is told them."""

    title: str
    module: str
    sizes: str
    calls: int
    parts: tuple[Part, ...]

    @property
    def cost(self) -> Cost:
        """Of one call."""
        return total([part.cost for part in self.parts])


@dataclass(frozen=True)
class Unfused:
    """Operations of a module that are not in one kernel with those beside them, and why."""

    module: str
    operations: str
    why: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Explanation:
    """A run, or modules alone. `cost` is that of a pass forward and backward, `passes` how many a step has.

    `recomputed` is the most that a module keeps which is computed again in the backward, while that goes on.
    `target` is the GPU that kernels were compiled for, where they were.
    """

    file: str
    run: str | None
    precision: str
    tables: tuple[Table, ...]
    unfused: tuple[Unfused, ...]
    cost: Cost
    passes: int
    assumed: tuple[str, ...]
    target: str = ""
    recomputed: int = 0
