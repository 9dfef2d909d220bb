"""What one fusion group becomes: an iteration space, canonical [rows, columns] graphs, and how tensors map to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tdsl.compiler.ir import Graph, Group, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.infer import ONE, known, same_shape
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.size import product


class Layout(Enum):
    """Where a tensor lies in the iteration space."""

    FULL = "full"  # an element for each row and column
    ROW = "row"  # one a row
    COL = "col"  # one a column
    SCALAR = "scalar"  # one in all
    PARTIAL = "partial"  # broadcast along some dimensions only: expanded to FULL before the launch

    def shape(self) -> Shape:
        rows = ROWS if self in (Layout.FULL, Layout.ROW, Layout.PARTIAL) else ONE
        cols = COLS if self in (Layout.FULL, Layout.COL, Layout.PARTIAL) else ONE
        return (rows, cols)


def layout_of(shape: Shape) -> Layout:
    """Layout of a canonical shape; what is computed from numbers alone has none."""
    if not shape:
        return Layout.SCALAR
    if shape[0] == ONE:
        return Layout.SCALAR if shape[1] == ONE else Layout.COL
    return Layout.ROW if shape[1] == ONE else Layout.FULL


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

    def classify(self, shape: Shape, at: Layout = Layout.FULL) -> Layout | None:
        """Layout of an operand of an op whose result has layout `at`; None where it does not broadcast to the space.

        A result of layout ROW may have dropped the columns: then operands align with the rows alone.
        """
        if at is Layout.ROW and len(shape) <= len(self.lead):
            padded = (ONE,) * (len(self.lead) - len(shape)) + shape
            if all(s == ONE for s in padded):
                return Layout.SCALAR
            return Layout.ROW if same_shape(padded, self.lead) else None
        if len(shape) > len(self.shape):
            return None
        padded = (ONE,) * (len(self.shape) - len(shape)) + shape
        return self._aligned(padded[: len(self.lead)], padded[len(self.lead) :])

    def _aligned(self, lead: Shape, trail: Shape) -> Layout:
        rows, no_rows = same_shape(lead, self.lead), all(s == ONE for s in lead)
        cols, no_cols = same_shape(trail, self.trail), all(s == ONE for s in trail)
        if rows and cols and not (no_rows and not self.flat and no_cols):
            return Layout.FULL
        if no_rows and no_cols:
            return Layout.SCALAR
        if rows and no_cols:
            return Layout.ROW
        return Layout.COL if no_rows and cols else Layout.PARTIAL


@dataclass(frozen=True, eq=False)
class Port:
    """A tensor of the source at the kernel's edge: its own type, and the canonical value it is inside."""

    name: str
    source: Value
    value: Value
    layout: Layout

    @property
    def type(self) -> TensorType:
        return self.source.type


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
    `draws` is how many random streams it uses.
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
