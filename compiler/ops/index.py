"""Indexing: integers, slices, new axes and integer tensors; and what reads or writes at places that a tensor names.

An item of an index is an integer, `none`, `...` as the string "...", a slice as ("slice", start, stop, step), a list of
integers as ("list", ...), or an operand as ("tensor", its number).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdsl.compiler.ir import Attr, Scalar, Shape, TensorType
from tdsl.compiler.ops.bounds import at_least, at_most
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import ONE, REST, axis, broadcast, known, same
from tdsl.compiler.ops.op import Bound, Cut, Kind, Op, Types, internal, movement, register, signature
from tdsl.compiler.ops.parts import check_index, with_size
from tdsl.compiler.ops.rows import N_COLS
from tdsl.compiler.ops.shape import typed, view
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

ZERO = Size.of(0)
# Where tensors stand among the items: the shape that they have together, and which dimensions they replace.
Placed = list[Size | None]


def _index(b: Bound) -> Types:
    items = b.attrs["items"]
    assert isinstance(items, tuple)
    types = [b.type(k) for k in range(1, len(b.inputs))]
    shape = list(b.type(0).shape)
    if items.count("...") > 1:
        fail("E204", "`...` stands once in an index", b.span, str(b.type(0)))
    consumed = [_consumes(item) for item in items]
    if sum(consumed) > len(shape):
        fail("E204", f"{sum(consumed)} indices of a tensor with {len(shape)} dimensions", b.span, str(b.type(0)))
    found: Placed = []
    together: list[TensorType] = []
    _check_counted(b, items, consumed)
    for i, item in enumerate(items):
        if item is None:
            found.append(ONE)
        elif item == "...":
            rest = len(shape) - sum(consumed[i + 1 :])
            found, shape = [*found, *shape[:rest]], shape[rest:]
        elif isinstance(item, tuple) and item[0] == "slice":
            found.append(_sliced(b, shape.pop(0), *item[1:]))
        elif isinstance(item, tuple):
            found += _by_tensor(b, item, types, shape.pop(0), together)
        else:
            check_index(b, Size.of(item), shape.pop(0))  # type: ignore[arg-type]
    return typed(b, _placed([*found, *shape], broadcast(together, "an index", b.span)))


def _check_counted(b: Bound, items: Sequence[Attr], consumed: Sequence[bool]) -> None:
    """Dimensions in the place of a type's `...` can't be told from one another."""
    shape = b.type(0).shape
    dots = items.index("...") if "..." in items else len(items)
    before, after = sum(consumed[:dots]), sum(consumed[dots + 1 :])
    if REST in shape and not before <= shape.index(REST) < len(shape) - after:
        told = f"{b.type(0)}: `...` stands for any number of dimensions"
        fail("E208", "an index of a dimension that is not known", b.span, told, help="index the last: `x[..., 0]`")


def _consumes(item: Attr) -> bool:
    return item is not None and item != "..."


def _placed(found: Placed, together: Shape) -> Shape:
    """The dimensions of the index tensors: in the place of the first where all stand side by side, else in front."""
    at = [i for i, size in enumerate(found) if size is None]
    rest = [size for size in found if size is not None]
    if not at:
        return tuple(rest)
    first = at[0] if at[-1] - at[0] == len(at) - 1 else 0
    return (*rest[:first], *together, *rest[first:])


def _by_tensor(
    b: Bound, item: tuple[Attr, ...], types: Sequence[TensorType], size: Size, together: list[TensorType]
) -> Placed:
    """An index that is a tensor or a list; a tensor without dimensions takes one away, as an integer does."""
    if item[0] == "list":
        for index in item[1:]:
            check_index(b, Size.of(index), size)  # type: ignore[arg-type]
        together.append(TensorType("i64", (Size.of(len(item) - 1),)))
        return [None]
    assert isinstance(item[1], int)
    type = types[item[1]]
    if type.dtype not in ("i64", "i32"):
        fail("E205", "a tensor as an index holds integers", b.span, str(type), help="convert with `.int()`")
    if not type.shape:
        return []
    together.append(type)
    return [None]


# Slices --------------------------------------------------------------------------------------------------------------


def _sliced(b: Bound, size: Size, start: Any, stop: Any, step: Any) -> Size:
    """The size of `start : stop : step`, its bounds clamped as Python's; E208 where they may need it."""
    step = known(Size.of(1 if step is None else step))
    if step is None:
        fail("E208", "the step of a slice is a constant", b.span)
    if step < 1:
        help = "turn the dimension around with `flip`" if step else None
        fail("E204", "the step of a slice is positive", b.span, str(step), help=help)
    low = ZERO if start is None else _clamped(b, Size.of(start), size)
    high = size if stop is None else _clamped(b, Size.of(stop), size)
    length = high - low
    if at_most(length, 0):
        return ZERO
    if not at_least(length, 0):
        _unproved(b, low, high)
    return length if step == 1 else (length + (step - 1)) // step


def _clamped(b: Bound, bound: Size, size: Size) -> Size:
    """A bound counted from the front, between 0 and `size`."""
    number = known(bound)
    if number is not None and number < 0:
        if at_most(size, -number):
            return ZERO
        if not at_most(-number, size):
            _unproved(b, Size.of(-number), size)
        return size + bound
    if at_least(bound, size):
        return size
    if not at_least(bound, 0):
        _unproved(b, ZERO, bound)
    if not at_most(bound, size):
        _unproved(b, bound, size)
    return bound


def _unproved(b: Bound, low: Size, high: Size) -> None:
    fail(
        "E208",
        f"can't prove that {low} is at most {high}, which this slice needs",
        b.span,
        str(b.type(0)),
        help=f"state it: `assume {low} <= {high}`",
    )


def _text(texts: list[str], attrs: dict[str, Any]) -> str:
    return f"{texts[0]}[{', '.join(_item_text(item, texts[1:]) for item in attrs['items'])}]"


def _item_text(item: Any, tensors: Sequence[str]) -> str:
    if item is None or item == "...":
        return "None" if item is None else "..."
    if not isinstance(item, tuple):
        return _number_text(item)
    if item[0] == "tensor":
        return tensors[item[1]]
    parts = ["" if v is None else _number_text(v) for v in item[1:]]
    return f"[{', '.join(parts)}]" if item[0] == "list" else _slice_text(parts if parts[2] else parts[:2])


def _number_text(value: Any) -> str:
    return value.text or str(value.value) if isinstance(value, Scalar) else str(value)


def _slice_text(parts: list[str]) -> str:
    """With spaces around the colons where a bound is more than a name or a number, as formatters have it."""
    if all(not part or part.isidentifier() or part.lstrip("-").isdigit() for part in parts):
        return ":".join(parts)
    return " : ".join(parts).strip()


def _sliced_at(b: Bound) -> Cut | None:
    """Of an index that is one slice, or one number, all other dimensions being whole."""
    items = b.attrs["items"]
    assert isinstance(items, tuple)
    parts = [(i, item) for i, item in enumerate(items) if item not in ("...", ("slice", None, None, None))]
    if len(parts) != 1 or len(b.type(0).shape) < len(items) - items.count("..."):
        return None
    ((at, item),) = parts
    place = at if "..." not in items[:at] else len(b.type(0).shape) - (len(items) - at)
    is_slice = isinstance(item, tuple) and item[0] == "slice" and item[3] in (None, 1)
    bounds = item[1:3] if is_slice and isinstance(item, tuple) else (item,)
    return Cut(place, False) if all((n is None and is_slice) or isinstance(n, int) for n in bounds) else None


view("index", "input: tensor, items: any", _index, _text, cut=_sliced_at)
# The first of the tensors is indexed, the others stand among the items.
movement("index_by", "tensors: tensors, items: any", _index, _text, looks_up=0, keeps=Keeps.PLACES)
internal("index", "index_by")

# Reading and writing at places ---------------------------------------------------------------------------------------


def _place(b: Bound, index: TensorType) -> int:
    """The dimension, with the index checked: integers, with as many dimensions as the input, none of them longer."""
    x = b.type(0)
    dim = axis(b.attrs["dim"], len(x.shape), b)
    if _is_empty(index):
        return dim
    if index.dtype not in ("i64", "i32"):
        fail("E205", f"the index of `{b.op.name}` holds integers", b.span, str(index), help="convert with `.int()`")
    if len(index.shape or (ONE,)) != len(x.shape or (ONE,)):
        label = f"{x} and {index}"
        fail("E203", f"the index of `{b.op.name}` has as many dimensions as its input", b.span, label)
    return dim


def _is_empty(index: TensorType) -> bool:
    """PyTorch asks nothing of an index that names no place."""
    return any(known(size) == 0 for size in index.shape)


def _check_within(b: Bound, index: Shape, other: TensorType, skipped: int | None) -> None:
    if any(known(size) == 0 for size in index):
        return
    for i, (part, size) in enumerate(zip(index, other.shape)):
        if i == skipped or same(part, size):
            continue
        a, z = known(part), known(size)
        if a is not None and z is not None and a > z:
            fail("E203", f"the index of `{b.op.name}` is longer than what it is for", b.span, f"{part} and {other}")
        if not at_most(part, size):
            help = f"state it: `assume {part} <= {size}`"
            fail("E208", f"can't prove that {part} is at most {size}", b.span, str(other), help=help)


def _gather(b: Bound) -> Types:
    index = b.type(1)
    dim = _place(b, index)
    _check_within(b, index.shape, b.type(0), dim)
    return typed(b, index.shape)


def _scatter(b: Bound) -> Types:
    x, index = b.type(0), b.type(1)
    dim = _place(b, index)
    given = [i for i in (2, 3) if b.given(i)]
    if len(given) != 1:
        fail("E202", "`scatter` needs `src` or `value`", b.span)
    source = b.type(given[0])
    if b.attrs["reduce"] not in (None, "add", "multiply"):
        fail("E202", 'argument `reduce` of `scatter` is "add" or "multiply"', b.span, str(b.attrs["reduce"]))
    _check_within(b, index.shape, x, dim)
    if not isinstance(b.inputs[given[0]], Scalar):
        _check_source(b, source)
    return typed(b, x.shape)


def _check_source(b: Bound, source: TensorType) -> None:
    x, index = b.type(0), b.type(1)
    if source.dtype != x.dtype and {source.dtype, x.dtype} != {"float", "f32"}:
        fail("E205", "`scatter` writes values of its input's dtype", b.span, f"{source} into {x}")
    if len(source.shape or (ONE,)) != len(index.shape or (ONE,)):
        fail("E203", "`scatter` takes as many dimensions as its index has", b.span, f"{source} at {index}")
    _check_within(b, index.shape, source, None)


def _scatter_text(texts: list[str], attrs: dict[str, Any]) -> str:
    x, index, *values = texts
    value = next(text for text in values if text != "None")
    reduce = f', reduce="{attrs["reduce"]}"' if attrs["reduce"] else ""
    return f"{x}.scatter({attrs['dim']}, {index}, {value}{reduce})"


def _index_select(b: Bound) -> Types:
    x, index = b.type(0), b.type(1)
    dim = axis(b.attrs["dim"], len(x.shape), b)
    if index.dtype not in ("i64", "i32") or len(index.shape) > 1:
        fail("E205", "`index_select` takes a list of integers", b.span, str(index))
    count = index.shape[0] if index.shape else ONE
    if not x.shape and not same(count, ONE):
        fail("E203", "`index_select` of a single number by several indices", b.span, str(index))
    return typed(b, with_size(x.shape, dim, count) if x.shape else ())


def _picks(b: Bound) -> bool:
    """Whether it picks one number a row, as a label does of class scores."""
    x, index = b.type(0), b.type(1)
    rank = len(x.shape)
    return (
        x.is_float
        and rank == len(index.shape) > 1
        and axis(b.attrs["dim"], rank, b) == rank - 1
        and known(index.shape[-1]) == 1
        and all(map(same, x.shape[:-1], index.shape[:-1]))
    )


def _picked(t: Tracer, x: Expr, index: Expr, dim: int) -> Expr:
    """The number in the column of that index; NaN, never another, for an index that is no column."""
    found = t.row_sum(t.where(t.eq(t.column(), index), x, 0.0))
    return t.where(t.both(index >= 0, index < N_COLS), found, float("nan"))


_SELECT = "input: tensor, dim: int, index: tensor"
register(
    Op(
        "gather",
        Kind.REDUCTION,
        signature(_SELECT),
        _gather,
        ".gather",
        lower=_picked,
        unfused=lambda b: not _picks(b),
        flops=0,
        looks_up=0,
        keeps=Keeps.PLACES,
    )
)
movement(
    "scatter",
    "input: tensor, dim: int, index: tensor, src: operand? = none, *, value: operand? = none, reduce: str? = none",
    _scatter,
    _scatter_text,
    keeps=Keeps.PLACES,
)
movement("index_select", _SELECT, _index_select, ".index_select", looks_up=0, keeps=Keeps.PLACES)
