"""Parts and wholes: joining tensors, cutting them up, repeating them, putting a border around them."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.bounds import at_least, at_most
from tdsl.compiler.ops.infer import ONE, axis, known, promote, quotient, same, stated
from tdsl.compiler.ops.op import Bound, Cut, Types, movement
from tdsl.compiler.ops.shape import need_rank, several, typed, view
from tdsl.compiler.size import Size, product
from tdsl.dsl.diagnostics import fail


def with_size(shape: Shape, dim: int, *sizes: Size) -> Shape:
    """The shape with other sizes in the place of one dimension."""
    return (*shape[:dim], *sizes, *shape[dim + 1 :])


def existing(b: Bound, dim: Any = None) -> int:
    """The dimension that attribute `dim` names; E204 where the tensor has none at all."""
    if not b.type(0).shape:
        fail("E204", f"`{b.op.name}` of a tensor without dimensions", b.span, str(b.type(0)))
    return axis(b.attrs["dim"] if dim is None else dim, len(b.type(0).shape), b)


# Joining -------------------------------------------------------------------------------------------------------------


def _types(b: Bound) -> list[TensorType]:
    return [v.type for v in b.inputs if isinstance(v, Value)]


def _cat(b: Bound) -> Types:
    given = _types(b)
    for t in given:
        if not t.shape:
            fail("E203", "`cat` of a tensor without dimensions", b.span, str(t), help="join numbers with `stack`")
    # PyTorch passes over empty vectors, whatever the others are.
    types = [t for t in given if t.shape != (Size.of(0),)] or given
    first = types[0].shape
    dim = axis(b.attrs["dim"], len(first), b)
    total = Size.of(0)
    for t in types:
        others = [same(x, y) for i, (x, y) in enumerate(zip(t.shape, first)) if i != dim]
        if len(t.shape) != len(first) or not all(others):
            help = "all sizes are equal but the one along which it joins; `stack` joins along a new dimension"
            fail("E203", "shapes do not match in `cat`", b.span, " and ".join(map(str, given)), help=help)
        total = total + t.shape[dim]
    return (TensorType(promote(b.inputs), with_size(first, dim, total)),)


def _stack(b: Bound) -> Types:
    types = _types(b)
    first = types[0].shape
    at = axis(b.attrs["dim"], len(first) + 1, b)
    for t in types:
        if len(t.shape) != len(first) or not all(map(same, t.shape, first)):
            fail("E203", "shapes do not match in `stack`", b.span, " and ".join(map(str, types)))
    return (TensorType(promote(b.inputs), (*first[:at], Size.of(len(types)), *first[at:])),)


def _joined(name: str) -> Any:
    def text(texts: list[str], attrs: dict[str, Any]) -> str:
        dim = f", dim={attrs['dim']}" if attrs["dim"] else ""
        return f"torch.{name}(({', '.join(texts)}{',' if len(texts) == 1 else ''}){dim})"

    return text


movement("cat", "tensors: tensors, dim: int = 0", _cat, _joined("cat"))
movement("stack", "tensors: tensors, dim: int = 0", _stack, _joined("stack"))

# Cutting -------------------------------------------------------------------------------------------------------------


def _pieces(b: Bound, dim: int, sizes: list[Size]) -> Types:
    shape = b.type(0).shape
    return tuple(TensorType(b.type(0).dtype, with_size(shape, dim, size)) for size in sizes)


def _chunk(b: Bound) -> Types:
    """Pieces of one size; the last may be smaller, and there may be fewer than asked for, as in PyTorch."""
    dim, count = existing(b), b.attrs["chunks"]
    size = b.type(0).shape[dim]
    chunks = known(Size.of(count)) if isinstance(count, (int, Size)) else None
    if chunks is None or chunks < 1:
        fail("E208", "the number of chunks is a positive constant", b.span, str(count))
    part, whole = quotient(size, Size.of(count)), known(size)  # type: ignore[arg-type]
    if whole is not None:
        each = -(-whole // chunks)
        if part is None or each * chunks != whole or not each:
            return _pieces(b, dim, _sizes(whole, each) if each else [size] * chunks)
    if part is None:
        fail(
            "E208",
            f"can't prove that {size} divides into {chunks} equal chunks",
            b.span,
            str(b.type(0)),
            help=stated(size, Size.of(chunks)),
        )
    return _pieces(b, dim, [part] * chunks)


def _sizes(whole: int, each: int) -> list[Size]:
    return [Size.of(min(each, whole - start)) for start in range(0, whole, each)] or [Size.of(0)]


def _split(b: Bound) -> Types:
    """Pieces of a size, of which the last may be smaller; or of the sizes in a list."""
    dim, given = existing(b), b.attrs["split_size_or_sections"]
    size = b.type(0).shape[dim]
    if isinstance(given, tuple):
        return _sections(b, dim, [Size.of(s) for s in given])  # type: ignore[arg-type]
    each = Size.of(given)  # type: ignore[arg-type]
    whole, step = known(size), known(each)
    if step is not None and (step < 0 or (step == 0 and whole != 0)):
        fail("E203", "`split` into pieces of no size", b.span, str(step))
    count = quotient(size, each) if step != 0 else None
    parts = None if count is None else known(count)
    if parts:
        return _pieces(b, dim, [each] * parts)
    if whole is None or step is None:
        help = f"give the sizes: `split([{each}, ...], dim={dim})`"
        fail("E208", f"can't tell how many pieces of {each} there are in {size}", b.span, str(b.type(0)), help=help)
    return _pieces(b, dim, _sizes(whole, step) if step else [size])


def _sections(b: Bound, dim: int, sizes: list[Size]) -> Types:
    size = b.type(0).shape[dim]
    total = sum(sizes, Size.of(0))
    if not sizes or any((known(s) or 0) < 0 for s in sizes) or not same(total, size):
        listed = " + ".join(map(str, sizes)) or "nothing"
        fail("E203", f"the pieces of `split` do not make up {size}", b.span, f"{b.type(0)}: {listed} is {total}")
    return _pieces(b, dim, sizes)


def _unbind(b: Bound) -> Types:
    dim = existing(b)
    shape = b.type(0).shape
    count = known(shape[dim])
    if count is None:
        fail("E208", f"`unbind` can't tell how many {shape[dim]} are", b.span, str(b.type(0)))
    if count > 1000:
        fail("E208", f"`unbind` into {count} tensors", b.span, str(b.type(0)), help="index, or keep the dimension")
    return tuple(TensorType(b.type(0).dtype, with_size(shape, dim)) for _ in range(count))


def _narrow(b: Bound) -> Types:
    dim = existing(b)
    size, length, at = b.type(0).shape[dim], Size.of(b.attrs["length"]), b.inputs[1]  # type: ignore[arg-type]
    start = Size.of(0)
    if isinstance(at, Value):
        if at.type.shape or at.type.dtype not in ("i64", "i32"):
            fail("E205", "argument `start` of `narrow` is an integer", b.span, str(at.type))
    elif not isinstance(at.value, (int, Size)) or isinstance(at.value, bool):
        fail("E202", "argument `start` of `narrow` is an integer", b.span, at.text or str(at.value))
    else:
        start = Size.of(at.value)
        start = size + start if (start.constant or 0) < 0 else start
    for low, high in ((Size.of(0), start), (Size.of(0), length), (start + length, size)):
        within(b, low, high, size)
    return typed(b, with_size(b.type(0).shape, dim, length))


def within(b: Bound, low: Size, high: Size, size: Size) -> None:
    """Prove `low <= high`, which a part of `size` needs: E204 where it is false, E208 where it is open."""
    a, z = known(low), known(high)
    if a is not None and z is not None and a > z:
        fail("E204", f"`{b.op.name}` reaches beyond a size of {size}", b.span, str(b.type(0)))
    if not at_most(low, high):
        help = f"state it: `assume {low} <= {high}`"
        fail("E208", f"can't prove that {low} is at most {high}", b.span, str(b.type(0)), help=help)


def _select(b: Bound) -> Types:
    dim = existing(b)
    check_index(b, Size.of(b.attrs["index"]), b.type(0).shape[dim])  # type: ignore[arg-type]
    return typed(b, with_size(b.type(0).shape, dim))


def check_index(b: Bound, index: Size, size: Size) -> None:
    """E204 where an index is out of range for certain; where that is open, PyTorch tells when it runs."""
    at, have = known(index), known(size)
    outside = at is not None and have is not None and not -have <= at < have
    beyond = at_least(index, size) and not at_most(index, size - 1)
    if outside or beyond or (at is not None and at < 0 and at_most(size, -at - 1)):
        help = "indices count from 0 to the size less 1, or back from -1"
        fail("E204", f"index {index} of a size of {size}", b.span, str(b.type(0)), help=help)


def _cut(b: Bound, whole: bool, *numbers: object) -> Cut | None:
    """A cut along `dim` by these numbers, which must be constants."""
    return Cut(existing(b), whole) if all(_constant(n) for n in numbers) else None


def _constant(number: object) -> bool:
    if isinstance(number, tuple):
        return all(map(_constant, number))
    return isinstance(number, int) or (isinstance(number, Scalar) and not number.text and _constant(number.value))


view(
    "chunk",
    "input: tensor, chunks: int, dim: int = 0",
    _chunk,
    cut=lambda b: _cut(b, True, b.attrs["chunks"]),
)
view(
    "split",
    "tensor: tensor, split_size_or_sections: sizes, dim: int = 0",
    _split,
    cut=lambda b: _cut(b, True, b.attrs["split_size_or_sections"]),
)
view("unbind", "input: tensor, dim: int = 0", _unbind, cut=lambda b: _cut(b, True))
view(
    "narrow",
    "input: tensor, dim: int, start: operand, length: size",
    _narrow,
    cut=lambda b: _cut(b, False, b.inputs[1], b.attrs["length"]),
)
view(
    "select",
    "input: tensor, dim: int, index: size",
    _select,
    cut=lambda b: _cut(b, False, b.attrs["index"]),
)

# Repeating -----------------------------------------------------------------------------------------------------------


def _counts(b: Bound, name: str) -> list[Size]:
    counts = [Size.of(n) for n in several(b.attrs[name])]
    negative = next((n for n in counts if (known(n) or 0) < 0), None)
    if negative is not None:
        fail("E203", f"`{b.op.name}` a negative number of times", b.span, str(negative))
    return counts


def _repeated(b: Bound, shape: Shape, counts: list[Size]) -> Types:
    return typed(b, tuple(size * count for size, count in zip(shape, counts)))


def _tile(b: Bound) -> Types:
    need_rank(b)
    shape, counts = b.type(0).shape, _counts(b, "dims")
    rank = max(len(shape), len(counts))
    ones = (ONE,) * rank
    return _repeated(b, (*ones[len(shape) :], *shape), [*ones[len(counts) :], *counts])


def _repeat(b: Bound) -> Types:
    need_rank(b)
    shape, counts = b.type(0).shape, _counts(b, "repeats")
    if len(counts) < len(shape):
        label = f"{b.type(0)} has {len(shape)} dimensions"
        fail("E203", "`repeat` needs a number for each dimension", b.span, label, help="`tile` takes fewer")
    return _repeated(b, ((ONE,) * (len(counts) - len(shape)) + shape), counts)


def _repeat_interleave(b: Bound) -> Types:
    x, dim = b.type(0), b.attrs["dim"]
    if dim is None:
        need_rank(b)
    at = 0 if dim is None else existing(b)
    size = product(x.shape) if dim is None else x.shape[at]
    length = _interleaved(b, size)
    return typed(b, (length,) if dim is None else with_size(x.shape, at, length))


def _interleaved(b: Bound, size: Size) -> Size:
    repeats, given = b.inputs[1], b.attrs["output_size"]
    if isinstance(repeats, Scalar):
        times = _times(b, repeats)
        if given is not None and not same(Size.of(given), size * times):  # type: ignore[arg-type]
            fail("E203", f"`output_size` is {size * times} here", b.span, str(given))
        return size * times
    if repeats.type.dtype not in ("i64", "i32") or len(repeats.type.shape) > 1:
        fail("E205", "the repeats are a list of integers", b.span, str(repeats.type))
    if repeats.type.shape and not any(same(repeats.type.shape[0], s) for s in (size, ONE)):
        fail("E203", f"the repeats are {size} integers here", b.span, str(repeats.type))
    if given is None:
        help = "say how many there are in all: `output_size=`"
        fail("E208", "the result of `repeat_interleave` by a tensor has no size", b.span, help=help)
    return Size.of(given)  # type: ignore[arg-type]


def _times(b: Bound, repeats: Scalar) -> Size:
    value = repeats.value
    if not isinstance(value, (int, Size)) or isinstance(value, bool):
        fail("E202", "argument `repeats` of `repeat_interleave` is an integer or a tensor of them", b.span)
    if (known(Size.of(value)) or 0) < 0:
        fail("E203", "`repeat_interleave` a negative number of times", b.span, str(value))
    return Size.of(value)


movement("tile", "input: tensor, *dims: size", _tile, ".tile")
movement("repeat", "input: tensor, *repeats: size", _repeat, ".repeat")
movement(
    "repeat_interleave",
    "input: tensor, repeats: operand, dim: int? = none, *, output_size: size? = none",
    _repeat_interleave,
    ".repeat_interleave",
)

# What the builder resolves to other ops, or to numbers: no graph holds these.


def _resolved(b: Bound) -> Types:
    raise AssertionError(f"`{b.op.name}` is resolved when it is called")


view("size", "input: tensor, dim: int? = none", _resolved)
view("numel", "input: tensor", _resolved)
view("rearrange", "tensor: tensor, pattern: str", _resolved)
view("reduce", "tensor: tensor, pattern: str, reduction: str", _resolved)

# A border ------------------------------------------------------------------------------------------------------------

_MODES = ("constant", "reflect", "replicate", "circular")


def _pad(b: Bound) -> Types:
    shape, mode = b.type(0).shape, b.attrs["mode"]
    if mode not in _MODES:
        fail("E202", "argument `mode` of `pad` is one of " + ", ".join(f'"{m}"' for m in _MODES), b.span, str(mode))
    widths = [Size.of(w) for w in several(b.attrs["pad"])]
    if len(widths) % 2 or len(widths) > 2 * len(shape):
        fail("E203", "`pad` takes two widths a dimension, from the last one on", b.span, str(b.type(0)))
    if mode != "constant":
        _check_mode(b, len(widths) // 2)
    if widths:
        need_rank(b, len(widths) // 2)
    padded = list(shape)
    for i in range(len(widths) // 2):
        low, high = widths[2 * i : 2 * i + 2]
        padded[-1 - i] = _padded(b, shape[-1 - i], low, high)
    return typed(b, tuple(padded))


def _check_mode(b: Bound, count: int) -> None:
    """Other modes than "constant" pad the last one, two or three dimensions behind one or two others."""
    x, mode = b.type(0), b.attrs["mode"]
    if b.attrs["value"]:
        fail("E202", f'`pad` with mode "{mode}" takes no `value`', b.span)
    if not 1 <= count <= 3 or len(x.shape) not in (count + 1, count + 2):
        fail(
            "E203",
            f'`pad` with mode "{mode}" pads 1 to 3 dimensions behind one or two others',
            b.span,
            f"{x} and {2 * count} widths",
        )
    if mode != "circular" and not x.is_float:
        fail("E205", f'`pad` with mode "{mode}" needs floating-point values', b.span, str(x))


def _padded(b: Bound, size: Size, low: Size, high: Size) -> Size:
    mode, total = b.attrs["mode"], size + low + high
    most = {"reflect": size - 1, "circular": size}.get(str(mode))
    for width in (low, high):
        if most is not None:
            within(b, width, most, size)
    # An empty result is refused for modes that repeat what is there.
    if any(known(w) is None or (known(w) or 0) < 0 for w in (low, high)):
        within(b, Size.of(0 if mode == "constant" else 1), total, size)
    return total


movement("pad", 'input: tensor, pad: shape, mode: str = "constant", value: float? = none', _pad)
