"""What a value is to the rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from tdsl.compiler.ir import Attr, Node, Value
from tdsl.compiler.size import Symbol
from tdsl.dsl.diagnostics import Span


@dataclass(frozen=True)
class RowCount:
    """Every row counts once."""


@dataclass(frozen=True)
class Labels:
    """Every label counts that is not `ignored`, by the weight of its class where there is one."""

    target: Value
    weight: Value | None
    ignored: Attr
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Ratio:
    """What a sum is divided by; `whole` where it is itself a sum over rows."""

    divisor: Value
    whole: bool
    span: Span | None = field(default=None, compare=False)


Count = RowCount | Labels | Ratio
ROW_COUNT = RowCount()


@dataclass(frozen=True)
class Free:
    """It does not depend on the batch."""


@dataclass(frozen=True)
class Rows:
    """Along `dim` it has a row, or as many for each, of every row of the batch, made from that row alone."""

    dim: int


@dataclass(frozen=True)
class Mean:
    """It is a mean, or a sum of means, each over what one of `counts` counts."""

    counts: frozenset[Count]


@dataclass(frozen=True)
class Sum:
    """It is a sum over rows."""


@dataclass(frozen=True)
class Mixed:
    """It is none of these, because of what is at `span`."""

    span: Span | None


State = Free | Rows | Mean | Sum | Mixed
FREE = Free()


@dataclass(frozen=True)
class Place:
    """A node, the states of its inputs, and the symbols that the number of rows has in its graph."""

    node: Node
    given: tuple[State, ...]
    symbols: frozenset[Symbol]
