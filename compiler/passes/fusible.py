"""What a kernel can compute of a node: its iteration space, where its result lies in it, or why it can't."""

from __future__ import annotations

from enum import Enum

from tdsl.compiler.ir import Node, Scalar, Shape, Value
from tdsl.compiler.kernel import Layout, Space
from tdsl.compiler.ops.infer import ONE, axes, same_shape
from tdsl.compiler.ops.op import Bound, Kind

# More operations than this in one kernel cost registers and compile time, and save little.
MOST_OPERATIONS = 48
MOST_TENSORS = 16

FUSIBLE = (Kind.POINTWISE, Kind.REDUCTION, Kind.ROW, Kind.RANDOM)


class Why(Enum):
    """Why two operations, one of which reads what the other makes, are not in one group."""

    LIBRARY = "left to PyTorch"
    VIEW = "a view: kernels read tensors as they lie in memory"
    FORM = "left to PyTorch with these arguments"
    SEVERAL = "yields several tensors"
    LEADING = "reduces other dimensions than the first or the last ones"
    SUMS = "runs over more than a row, which kernels do for sums and means alone"
    STAGE = "is finished by a second step, when the kernel is done"
    INTEGERS = "reduces integers"
    SINGLE = "computes a single number"
    DOUBLE = "computes in f64, kernels in f32"
    COLUMNS = "another iteration space: they reduce different numbers of dimensions"
    SPACE = "another iteration space: their shapes are not rows by columns of one"
    OPERATIONS = f"a kernel has at most {MOST_OPERATIONS} operations"
    TENSORS = f"a kernel reads at most {MOST_TENSORS} tensors"
    DETOUR = "one also waits for the other through something outside: the kernel would wait for itself"
    NO_FLOATS = "reads no floating-point tensor, whose dtype a kernel is launched by"


class Reach(Enum):
    """What a reduction runs over."""

    TRAIL = "trail"  # the last dimensions: a number a row
    LEAD = "lead"  # all dimensions but the last ones: a number a column
    ALL = "all"  # every dimension


def unfusible(node: Node) -> Why | None:
    """Why no kernel of ours computes a node, None where one can."""
    if node.op.kind is Kind.VIEW:
        return Why.VIEW
    if node.op.kind not in FUSIBLE or not node.op.fusible:
        return Why.LIBRARY
    if len(node.outputs) != 1:
        return Why.SEVERAL
    if node.op.unfused is not None and node.op.unfused(bound(node)):
        return Why.FORM
    why = _unreduced(node) if reduces(node) else None
    if why is not None:
        return why
    if all(s == ONE for s in iterated(node)):
        return Why.SINGLE
    return Why.DOUBLE if "f64" in (v.type.dtype for v in (*node.values, *node.outputs)) else None


def _unreduced(node: Node) -> Why | None:
    """Why a reduction is none that a kernel does."""
    if not node.values or not node.values[0].type.is_float:
        return Why.INTEGERS
    reach = reach_of(node)
    if reach is None:
        return Why.LEADING
    return Why.SUMS if reach is not Reach.TRAIL and not node.op.total else None


def bound(node: Node) -> Bound:
    return Bound(node.op, node.inputs, node.attrs, node.span)


def reduces(node: Node) -> bool:
    return node.op.kind in (Kind.REDUCTION, Kind.ROW)


def iterated(node: Node) -> Shape:
    """The shape that a fusible node iterates over."""
    return node.values[0].type.shape if reduces(node) and node.values else node.output.type.shape


def _over(node: Node) -> tuple[int, ...]:
    """The dimensions that a node reduces, or normalises over."""
    rank = len(node.values[0].type.shape)
    shape = node.attrs.get("normalized_shape")
    if shape is not None:
        count = len(shape) if isinstance(shape, tuple) else 1
        return tuple(range(rank - count, rank))
    return axes(node.attrs.get("dim"), bound(node))


def reach_of(node: Node) -> Reach | None:
    """What a reduction runs over; None for dimensions in the middle."""
    rank, over = len(node.values[0].type.shape), _over(node)
    if not over or not rank:
        return None
    if len(over) == rank:
        return Reach.ALL
    if over == tuple(range(rank - len(over), rank)):
        return Reach.TRAIL
    return Reach.LEAD if over == tuple(range(len(over))) else None


def trailing(node: Node) -> int | None:
    """How many trailing dimensions a fusible node needs as columns; None for any."""
    if not reduces(node):
        return None
    rank, over = len(node.values[0].type.shape), _over(node)
    return {Reach.TRAIL: len(over), Reach.LEAD: rank - len(over)}.get(reach_of(node))  # type: ignore[arg-type]


def result_layout(node: Node, space: Space) -> Layout | None:
    """Where the result of a fusible node lies in a space; None where it does not."""
    shape = node.output.type.shape
    if node.op.kind is Kind.REDUCTION:
        return _reduced_layout(node, space)
    if same_shape(shape, space.shape):
        return Layout.FULL
    if space.flat or node.op.kind is Kind.RANDOM:
        return None
    if _is_row(shape, space):
        return Layout.ROW
    return Layout.COL if node.op.kind is Kind.POINTWISE and is_column(shape, space) else None


def is_column(shape: Shape, space: Space) -> bool:
    """Whether it is a number a column, whatever the row."""
    place = space.place(shape)
    return place is not None and place.layout is Layout.COL and not place.runs


def _is_row(shape: Shape, space: Space) -> bool:
    kept = (*space.lead, *((ONE,) * len(space.trail)))
    return not space.flat and (same_shape(shape, kept) or same_shape(shape, space.lead))


def _reduced_layout(node: Node, space: Space) -> Layout | None:
    over, reach = node.values[0].type.shape, reach_of(node)
    if reach is Reach.ALL:
        return Layout.SCALAR if same_shape(over, space.shape) or _is_row(over, space) else None
    if not same_shape(over, space.shape):
        return None
    return Layout.ROW if reach is Reach.TRAIL else Layout.COL


def operands_fit(node: Node, space: Space, at: Layout, layouts: dict[Value, Layout]) -> bool:
    """Whether each operand broadcasts to the space, those made inside with the layout they were made with."""
    shape = node.output.type.shape
    dropped = len(shape) < len(space.shape)
    # As many rows as columns: only what comes of a sum over the columns is a number a row.
    either = at is Layout.ROW and dropped and not reduces(node) and is_column(shape, space)
    if either and not any(layouts.get(value) is Layout.ROW for value in node.values):
        return False
    for value in node.values:
        if reduces(node):
            is_row = reach_of(node) is Reach.ALL and _is_row(value.type.shape, space)
            aligned = Layout.ROW if is_row and not same_shape(value.type.shape, space.shape) else Layout.FULL
        else:
            aligned = at if dropped else Layout.FULL
        place = space.place(value.type.shape, aligned)
        if place is None or layouts.get(value, place.layout) is not place.layout:
            return False
        if at in (Layout.ROW, Layout.COL) and not reduces(node) and place.layout not in (at, Layout.SCALAR):
            return False
    return True


def is_staged(node: Node) -> bool:
    """Whether a result is only there when the kernel is done."""
    return node.op.kind is Kind.REDUCTION and reach_of(node) is not Reach.TRAIL


def scalars_of(node: Node) -> list[Scalar]:
    """The numbers among a node's operands and attributes."""
    found = [o for o in node.inputs if isinstance(o, Scalar)]
    return found + [a for a in node.attrs.values() if isinstance(a, Scalar)]
