"""What one fusion group becomes: an iteration space, canonical [rows, columns] graphs, and how tensors map to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from tdsl.compiler.ir import Graph, Group, Node, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.infer import ONE, known, same
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.size import Size, product


class Layout(Enum):
    """Where a tensor lies in the iteration space."""

    FULL = "full"  # an element for each row and column
    ROW = "row"  # one a row
    COL = "col"  # one a column
    SCALAR = "scalar"  # one in all

    def shape(self) -> Shape:
        rows = ROWS if self in (Layout.FULL, Layout.ROW) else ONE
        cols = COLS if self in (Layout.FULL, Layout.COL) else ONE
        return (rows, cols)


def layout_of(shape: Shape) -> Layout:
    """Layout of a canonical shape; what is computed from numbers alone has none."""
    if not shape:
        return Layout.SCALAR
    if shape[0] == ONE:
        return Layout.SCALAR if shape[1] == ONE else Layout.COL
    return Layout.ROW if shape[1] == ONE else Layout.FULL


@dataclass(frozen=True)
class Run:
    """Dimensions of the space that stand side by side: from `first` up to `last`, counted from the left."""

    first: int
    last: int


@dataclass(frozen=True)
class Place:
    """Where a tensor that broadcasts to the space lies in it.

    `runs` are the dimensions that it has, where those are not all of its layout's: `[B, 1, D]` in rows `B, T` and
    columns `D` has an element for each row and column, but the same ones for every `T`. `dropped` where it has no
    dimensions for the columns.
    """

    layout: Layout
    runs: tuple[Run, ...] = ()
    dropped: bool = False


@dataclass(frozen=True)
class Space:
    """Rows are the dimensions `lead`, columns the dimensions `trail`. A flat space has no rows to speak of."""

    lead: Shape
    trail: Shape

    @property
    def shape(self) -> Shape:
        return (*self.lead, *self.trail)

    @property
    def flat(self) -> bool:
        return not self.lead

    @property
    def columns(self) -> int | None:
        """The number of columns, where it is known at compile time."""
        return known(product(self.trail))

    def place(self, shape: Shape, at: Layout = Layout.FULL) -> Place | None:
        """Where an operand of an op lies whose result has layout `at`; None where it does not broadcast to the space.

        A result of layout ROW may have dropped the columns: then operands align with the rows alone.
        """
        if at is Layout.ROW and len(shape) <= len(self.lead):
            found = self.place((*shape, *(ONE for _ in self.trail)))
            return None if found is None else replace(found, dropped=True)
        if len(shape) > len(self.shape):
            return None
        padded = (ONE,) * (len(self.shape) - len(shape)) + shape
        return self._aligned(padded)

    def _aligned(self, shape: Shape) -> Place | None:
        """Of a shape with as many dimensions as the space."""
        if not all(_is_one(have) or same(have, want) for have, want in zip(shape, self.shape)):
            return None
        kept = [not _is_one(have) or _is_one(want) for have, want in zip(shape, self.shape)]
        count = len(self.lead)
        rows, cols = kept[:count], kept[count:]
        has_rows = any(not _is_one(s) for s in shape[:count])
        has_cols = any(not _is_one(s) for s in shape[count:])
        if all(kept) and (has_rows or has_cols or self.flat):
            return Place(Layout.FULL)
        if self.flat:
            return Place(Layout.FULL, self._runs(kept)) if has_cols else Place(Layout.SCALAR)
        layout = {(True, True): Layout.FULL, (True, False): Layout.ROW, (False, True): Layout.COL}.get(
            (has_rows, has_cols), Layout.SCALAR
        )
        whole = (all(rows) or not has_rows) and (all(cols) or not has_cols)
        kept = [k and (has_rows if i < count else has_cols) for i, k in enumerate(kept)]
        return Place(layout, () if whole else self._runs(kept))

    def _runs(self, kept: Sequence[bool]) -> tuple[Run, ...]:
        """The dimensions that are kept, side by side, those of rows apart from those of columns."""
        found: list[Run] = []
        for i, keep in enumerate(kept):
            if not keep:
                continue
            if found and found[-1].last == i and i != len(self.lead):
                found[-1] = Run(found[-1].first, i + 1)
            else:
                found.append(Run(i, i + 1))
        return tuple(found)


def _is_one(size: Size) -> bool:
    return size == ONE or known(size) == 1


@dataclass(frozen=True, eq=False)
class Window:
    """A piece of a tensor, which the group itself cuts: result number `index` of `view`."""

    view: Node
    index: int

    @property
    def cut(self) -> Value:
        """The tensor that is cut."""
        return self.view.values[0]


@dataclass(frozen=True, eq=False)
class Port:
    """A tensor of the source at the kernel's edge: its own type, and the canonical value it is inside.

    `runs` and `dropped` are those of its place in the space. A result that is a sum over more than a row is divided by
    `count` where it is a mean. With a `window`, `source` is a piece of `given`.
    """

    name: str
    source: Value
    value: Value
    layout: Layout
    runs: tuple[Run, ...] = ()
    dropped: bool = False
    count: Scalar | None = None
    window: Window | None = None
    given: Value | None = None

    @property
    def type(self) -> TensorType:
        """That of the tensor in memory."""
        return TensorType(self.argument.type.dtype, self.source.type.shape)

    @property
    def argument(self) -> Value:
        """What the group is given: the tensor, or what it is a piece of."""
        return self.given if self.given is not None else self.source


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of an input port: `value` of the backward graph, at `layout` there."""

    port: Port
    value: Value
    layout: Layout


@dataclass(frozen=True, eq=False)
class Kernel:
    """A group, lowered.

    `forward` makes the outputs' canonical values from the inputs', then those of `saved` that are no outputs: one
    number a row each, kept for the backward. `backward` makes the gradients from the inputs that it reads, `saved` and
    `grads`, the gradients of the outputs.
    `zeros` are the inputs that reach an output through steps alone, as `floor`: their gradient is zero, and exists.
    `draws` is how many random streams it uses, `gradient_of` what of the forward a value of the backward is the
    gradient of.
    """

    group: Group
    space: Space
    inputs: tuple[Port, ...]
    scalars: tuple[Scalar, ...]
    outputs: tuple[Port, ...]
    forward: Graph
    draws: int = 0
    saved: tuple[Value, ...] = ()
    grads: tuple[Port, ...] = ()
    backward: Graph | None = None
    gradients: tuple[Gradient, ...] = ()
    zeros: tuple[Port, ...] = ()
    gradient_of: Mapping[Value, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def saved_rows(self) -> tuple[Value, ...]:
        """What the forward stores for the backward alone."""
        outputs = {p.value for p in self.outputs}
        return tuple(v for v in self.saved if v not in outputs)

    @property
    def saved_inputs(self) -> tuple[Port, ...]:
        """The inputs that the backward reads."""
        assert self.backward is not None
        used = {v for node in self.backward.nodes for v in node.values} | set(self.backward.outputs)
        return tuple(p for p in self.inputs if p.value in used)
