"""Ops that rearrange: views, concatenation, indexing. They compute nothing."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import Attr, Shape, TensorType, Value
from tdsl.compiler.ops.infer import ONE, axis, known, promote, same
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.size import Size, product
from tdsl.dsl.diagnostics import fail


def _view(name: str, arguments: str, infer: Any, torch: Any = None) -> None:
    register(Op(name, Kind.VIEW, signature(arguments), infer, torch or f".{name}"))


def _typed(b: Bound, shape: Shape) -> Types:
    return (TensorType(b.type(0).dtype, shape),)


def _dims(attr: Attr) -> tuple[Any, ...]:
    given = attr if isinstance(attr, tuple) else (attr,)
    return given[0] if len(given) == 1 and isinstance(given[0], tuple) else given


def _reshape(b: Bound) -> Types:
    """One size may be -1: what the others leave, which must come out exactly."""
    wanted = _wanted(b, "shape")
    x = b.type(0)
    total = product(x.shape)
    free = [i for i, s in enumerate(wanted) if s.constant == -1]
    if len(free) > 1:
        fail("E208", f"`{b.op.name}` can infer one size only", b.span)
    rest = product(tuple(s for i, s in enumerate(wanted) if i not in free))
    if free:
        left = _quotient(total, rest)
        if left is None:
            shape = ", ".join(map(str, wanted))
            fail("E208", f"can't prove that `{b.op.name}` comes out exactly", b.span, f"{x} to [{shape}]")
        wanted[free[0]] = left
    elif not same(total, rest):
        shape = ", ".join(map(str, wanted))
        fail("E203", f"`{b.op.name}` to another number of elements", b.span, f"{x} to [{shape}]")
    return _typed(b, tuple(wanted))


def _wanted(b: Bound, name: str) -> list[Size]:
    wanted = [Size.of(s) for s in _dims(b.attrs[name])]
    if not wanted:
        fail("E202", f"`{b.op.name}` needs sizes", b.span, help="to a single number: `x.squeeze()` or `x[0]`")
    negative = next((s for s in wanted if (known(s) or 0) < 0 and s.constant != -1), None)
    if negative is not None:
        fail("E203", f"`{b.op.name}` to a negative size", b.span, str(negative))
    return wanted


def _quotient(total: Size, by: Size) -> Size | None:
    exact = total.exact(by)
    if exact is not None:
        return exact
    a, b = known(total), known(by)
    return total // by if a is not None and b and a % b == 0 else None


def _flatten(b: Bound) -> Types:
    shape = b.type(0).shape
    if not shape:
        return _typed(b, (ONE,))
    start, end = axis(b.attrs["start_dim"], len(shape), b), axis(b.attrs["end_dim"], len(shape), b)
    if start > end:
        fail("E204", "`flatten` from a dimension to one before it", b.span, str(b.type(0)))
    return _typed(b, (*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :]))


def _squeeze(b: Bound) -> Types:
    shape = b.type(0).shape
    dim = b.attrs["dim"]
    gone = set(range(len(shape))) if dim is None else {axis(d, len(shape), b) for d in _dims(dim)}
    unsure = next((shape[i] for i in sorted(gone) if known(shape[i]) is None), None)
    if unsure is not None:
        help = "name the dimensions that go, as in `squeeze(-1)`" if dim is None else None
        fail("E208", f"`squeeze` can't tell whether {unsure} is 1", b.span, str(b.type(0)), help=help)
    return _typed(b, tuple(s for i, s in enumerate(shape) if i not in gone or known(s) != 1))


def _unsqueeze(b: Bound) -> Types:
    shape = b.type(0).shape
    at = axis(b.attrs["dim"], len(shape) + 1, b)
    return _typed(b, (*shape[:at], ONE, *shape[at:]))


def _transpose(b: Bound) -> Types:
    shape = list(b.type(0).shape)
    i, j = axis(b.attrs["dim0"], len(shape), b), axis(b.attrs["dim1"], len(shape), b)
    shape[i], shape[j] = shape[j], shape[i]
    return _typed(b, tuple(shape))


def _permute(b: Bound) -> Types:
    shape = b.type(0).shape
    order = [axis(d, len(shape), b) for d in _dims(b.attrs["dims"])]
    if sorted(order) != list(range(len(shape))):
        fail("E204", "`permute` names each dimension once", b.span, f"{b.type(0)} has {len(shape)} dimensions")
    return _typed(b, tuple(shape[i] for i in order))


def _expand(b: Bound) -> Types:
    shape = b.type(0).shape
    wanted = _wanted(b, "sizes")
    if len(wanted) < len(shape) or any(s.constant == -1 for s in wanted[: len(wanted) - len(shape)]):
        fail("E203", "`expand` to fewer dimensions", b.span, f"{b.type(0)} to {len(wanted)} sizes")
    padded = (ONE,) * (len(wanted) - len(shape)) + shape
    found = tuple(s if w.constant == -1 else w for s, w in zip(padded, wanted))
    for have, want in zip(padded, found):
        if known(have) != 1 and not same(have, want):
            fail("E203", "`expand` of a size that is not 1", b.span, f"{b.type(0)}: {have} to {want}")
    return _typed(b, found)


_view("reshape", "input: tensor, *shape: size", _reshape)
_view("view", "input: tensor, *shape: size", _reshape)
_view("flatten", "input: tensor, start_dim: int = 0, end_dim: int = -1", _flatten)
_view("squeeze", "input: tensor, dim: sizes? = none", _squeeze)
_view("unsqueeze", "input: tensor, dim: int", _unsqueeze)
_view("transpose", "input: tensor, dim0: int, dim1: int", _transpose)
_view("permute", "input: tensor, *dims: int", _permute)
_view("expand_to", "input: tensor, *sizes: size", _expand, ".expand")


def _swap_last(b: Bound) -> Types:
    shape = b.type(0).shape
    if len(shape) < 2:
        fail("E204", "`.T` swaps the last two dimensions", b.span, f"{b.type(0)} has {len(shape)}")
    return _typed(b, (*shape[:-2], shape[-1], shape[-2]))


_view(
    "swap_last",
    "input: tensor",
    _swap_last,
    lambda texts, attrs: f"{texts[0]}.mT",
)

# Parts and wholes ----------------------------------------------------------------------------------------------------


def _chunk(b: Bound) -> Types:
    shape = b.type(0).shape
    dim = axis(b.attrs["dim"], len(shape), b)
    count = b.attrs["chunks"]
    if not isinstance(count, int) or count < 1:
        fail("E208", "the number of chunks is a positive constant", b.span, str(count))
    part = _quotient(shape[dim], Size.of(count))
    if part is None:
        fail("E208", f"can't prove that {shape[dim]} divides into {count} equal chunks", b.span, str(b.type(0)))
    return tuple(TensorType(b.type(0).dtype, (*shape[:dim], part, *shape[dim + 1 :])) for _ in range(count))


def _together(b: Bound) -> list[TensorType]:
    return [v.type for v in b.inputs if isinstance(v, Value)]


def _cat(b: Bound) -> Types:
    types = _together(b)
    rank = len(types[0].shape)
    dim = axis(b.attrs["dim"], rank, b)
    total = Size.of(0)
    for t in types:
        others = [same(x, y) for i, (x, y) in enumerate(zip(t.shape, types[0].shape)) if i != dim]
        if len(t.shape) != rank or not all(others):
            fail("E203", "shapes do not match in `cat`", b.span, " and ".join(map(str, types)))
        total = total + t.shape[dim]
    shape = types[0].shape
    return (TensorType(promote(b.inputs), (*shape[:dim], total, *shape[dim + 1 :])),)


def _stack(b: Bound) -> Types:
    types = _together(b)
    at = axis(b.attrs["dim"], len(types[0].shape) + 1, b)
    for t in types:
        if len(t.shape) != len(types[0].shape) or not all(map(same, t.shape, types[0].shape)):
            fail("E203", "shapes do not match in `stack`", b.span, " and ".join(map(str, types)))
    shape = types[0].shape
    return (TensorType(promote(b.inputs), (*shape[:at], Size.of(len(types)), *shape[at:])),)


def _joined(name: str) -> Any:
    def text(texts: list[str], attrs: dict[str, Any]) -> str:
        dim = f", dim={attrs['dim']}" if attrs["dim"] else ""
        return f"torch.{name}(({', '.join(texts)}){dim})"

    return text


_view("chunk", "input: tensor, chunks: int, dim: int = 0", _chunk)
register(Op("cat", Kind.LIBRARY, signature("tensors: tensors, dim: int = 0"), _cat, _joined("cat")))
register(Op("stack", Kind.LIBRARY, signature("tensors: tensors, dim: int = 0"), _stack, _joined("stack")))

# Indexing ------------------------------------------------------------------------------------------------------------
# An item is an integer, `none`, `...` as the string "...", or a slice as ("slice", start, stop, step).


def _index(b: Bound) -> Types:
    items = b.attrs["items"]
    assert isinstance(items, tuple)
    shape = list(b.type(0).shape)
    consumed = sum(i is not None and i != "..." for i in items)
    if consumed > len(shape):
        fail("E204", f"{consumed} indices of a tensor with {len(shape)} dimensions", b.span, str(b.type(0)))
    found: list[Size] = []
    for item in items:
        if item is None:
            found.append(ONE)
        elif item == "...":
            rest = len(shape) - sum(i is not None and i != "..." for i in items[items.index(item) + 1 :])
            found, shape = found + shape[:rest], shape[rest:]
        else:
            found += _item(item, shape.pop(0), b)
    return _typed(b, tuple(found + shape))


def _item(item: Attr, size: Size, b: Bound) -> list[Size]:
    if not isinstance(item, tuple):
        have = known(size)
        if isinstance(item, int) and have is not None and not -have <= item < have:
            fail("E204", f"index {item} of a size of {size}", b.span, str(b.type(0)))
        return []
    _, start, stop, step = item
    return [_sliced(size, start, stop, 1 if step is None else step, b)]


def _sliced(size: Size, start: Any, stop: Any, step: Any, b: Bound) -> Size:
    if not isinstance(step, int) or step < 1:
        fail("E204", "a slice has a positive constant step", b.span)
    low, high = (_bound(v, size, d) for v, d in ((start, Size.of(0)), (stop, size)))
    have, a, z = known(size), known(low), known(high)
    if have is not None and a is not None and z is not None:
        low, high = Size.of(min(a, have)), Size.of(max(min(z, have), min(a, have)))
    return high - low if step == 1 else (high - low + (step - 1)) // step


def _bound(value: Any, size: Size, default: Size) -> Size:
    if value is None:
        return default
    given = Size.of(value)
    return size + given if given.constant is not None and given.constant < 0 else given


def _index_text(texts: list[str], attrs: dict[str, Any]) -> str:
    return f"{texts[0]}[{', '.join(map(_item_text, attrs['items']))}]"


def _item_text(item: Any) -> str:
    if item is None or item == "...":
        return "None" if item is None else "..."
    if isinstance(item, tuple):
        parts = ["" if v is None else str(getattr(v, "text", "") or v) for v in item[1:]]
        return _slice_text(parts if parts[2] else parts[:2])
    return str(item)


def _slice_text(parts: list[str]) -> str:
    """With spaces around the colons where a bound is more than a name or a number, as formatters have it."""
    if all(not part or part.isidentifier() or part.lstrip("-").isdigit() for part in parts):
        return ":".join(parts)
    return " : ".join(parts).strip()


_view("index", "input: tensor, items: any", _index, _index_text)

internal("index", "swap_last", "expand_to")
