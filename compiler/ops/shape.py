"""Ops that give a tensor another shape, or put its dimensions in another order. They compute nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tdsl.compiler.ir import Attr, Shape, TensorType
from tdsl.compiler.ops.infer import ONE, REST, axis, known, quotient, same, stated
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, movement, register, signature
from tdsl.compiler.size import Quotient, Size, product
from tdsl.dsl.diagnostics import fail


def view(name: str, arguments: str, infer: Any, torch: Any = None, **more: Any) -> None:
    """Register an op that is index arithmetic alone, by default a method."""
    register(Op(name, Kind.VIEW, signature(arguments), infer, torch or f".{name}", **more))


def typed(b: Bound, shape: Shape) -> Types:
    """The dtype of the first operand in another shape."""
    return (TensorType(b.type(0).dtype, shape),)


def need_rank(b: Bound, last: int | None = None) -> None:
    """Refuse a tensor whose dimensions (the `last` ones) are not all known one by one."""
    if REST in b.type(0).shape[-(last or 0) :]:
        help = "declare the dimensions, as in `x: float[B, T, dim]`"
        told = f"{b.type(0)}: `...` stands for any number of dimensions"
        fail("E208", f"`{b.op.name}` needs to know each dimension", b.span, told, help=help)


def several(attr: Attr) -> tuple[Any, ...]:
    """One integer, several, or a list of them, as a tuple."""
    given = attr if isinstance(attr, tuple) else (attr,)
    return given[0] if len(given) == 1 and isinstance(given[0], tuple) else given


def whole(size: Size) -> Size:
    """`heads * (dim // heads)` as `dim`, where the division is proved to come out."""
    atoms = [atom for monomial, _ in size.terms for atom, _ in monomial] if len(size.terms) == 1 else []
    for atom in atoms:
        if isinstance(atom, Quotient) and atom.operator == "//":
            rest = size.exact(atom.denominator * Size.of(atom))
            if rest is not None and same(size, rest * atom.numerator):
                return whole(rest * atom.numerator)
    return size


# Another shape -------------------------------------------------------------------------------------------------------


def _reshape(b: Bound) -> Types:
    need_rank(b)
    return typed(b, _filled(b, _wanted(b, "shape"), product(b.type(0).shape), str(b.type(0))))


def _filled(b: Bound, wanted: list[Size], total: Size, of: str) -> Shape:
    """The sizes of `total` elements; one of them may be -1: what the others leave, which must come out exactly."""
    free = [i for i, s in enumerate(wanted) if s.constant == -1]
    if len(free) > 1:
        fail("E208", f"`{b.op.name}` can infer one size only", b.span)
    rest = product(tuple(s for i, s in enumerate(wanted) if i not in free))
    shape = ", ".join(map(str, wanted))
    if not free:
        if not same(total, rest):
            help = "the new sizes multiply to what the old ones do; one of them may be -1"
            fail("E203", f"`{b.op.name}` to another number of elements", b.span, f"{of} to [{shape}]", help=help)
        return tuple(wanted)
    if known(rest) == 0:
        fail("E208", f"`{b.op.name}` can't infer a size beside one of 0", b.span, f"{of} to [{shape}]")
    left = quotient(total, rest)
    if left is None and known(total) is not None and known(rest) is not None:
        fail("E203", f"`{b.op.name}` does not come out exactly", b.span, f"{of} to [{shape}]")
    if left is None:
        told = f"{of} to [{shape}]"
        fail("E208", f"can't prove that `{b.op.name}` comes out exactly", b.span, told, help=stated(total, rest))
    wanted[free[0]] = whole(left)
    return tuple(wanted)


def _wanted(b: Bound, name: str) -> list[Size]:
    wanted = [Size.of(s) for s in several(b.attrs[name])]
    negative = next((s for s in wanted if (known(s) or 0) < 0 and s.constant != -1), None)
    if negative is not None:
        fail("E203", f"`{b.op.name}` to a negative size", b.span, str(negative))
    return wanted


def _reshape_as(b: Bound) -> Types:
    x, other = b.type(0), b.type(1)
    need_rank(b)
    if not same(product(x.shape), product(other.shape)):
        fail("E203", f"`{b.op.name}` to another number of elements", b.span, f"{x} to {other}")
    return typed(b, other.shape)


def _flatten(b: Bound) -> Types:
    shape = b.type(0).shape
    start, end = axis(b.attrs["start_dim"], len(shape), b), axis(b.attrs["end_dim"], len(shape), b)
    if not shape:
        return typed(b, (ONE,))
    if start > end:
        fail("E204", "`flatten` from a dimension to one before it", b.span, str(b.type(0)))
    return typed(b, (*shape[:start], whole(product(shape[start : end + 1])), *shape[end + 1 :]))


def _unflatten(b: Bound) -> Types:
    shape = b.type(0).shape
    if not shape:
        fail("E204", "`unflatten` of a tensor without dimensions", b.span, str(b.type(0)))
    at = axis(b.attrs["dim"], len(shape), b)
    wanted = _wanted(b, "sizes")
    if not wanted:
        fail("E203", "`unflatten` needs sizes", b.span)
    sizes = _filled(b, wanted, shape[at], f"{shape[at]}")
    return typed(b, (*shape[:at], *sizes, *shape[at + 1 :]))


def _squeeze(b: Bound) -> Types:
    shape = b.type(0).shape
    dim = b.attrs["dim"]
    gone = set(range(len(shape))) if dim is None else {axis(d, len(shape), b) for d in several(dim)}
    if dim is not None and len(gone) < len(several(dim)):
        fail("E204", "`squeeze` names each dimension once", b.span, str(b.type(0)))
    unsure = next((shape[i] for i in sorted(gone) if i < len(shape) and known(shape[i]) is None), None)
    if unsure is not None:
        help = "name the dimensions that go, as in `squeeze(-1)`" if dim is None else None
        fail("E208", f"`squeeze` can't tell whether {unsure} is 1", b.span, str(b.type(0)), help=help)
    return typed(b, tuple(s for i, s in enumerate(shape) if i not in gone or known(s) != 1))


def _unsqueeze(b: Bound) -> Types:
    shape = b.type(0).shape
    at = axis(b.attrs["dim"], len(shape) + 1, b)
    return typed(b, (*shape[:at], ONE, *shape[at:]))


def _expand(b: Bound) -> Types:
    need_rank(b)
    wanted = _wanted(b, "size")
    padded = _padded(b, len(wanted))
    missing = len(wanted) - len(b.type(0).shape)
    if any(s.constant == -1 for s in wanted[:missing]):
        fail("E203", "`expand` of a dimension that is not there to -1", b.span, str(b.type(0)))
    found = tuple(s if w.constant == -1 else w for s, w in zip(padded, wanted))
    _check_expanded(b, padded, found)
    return typed(b, found)


def _expand_as(b: Bound) -> Types:
    found = b.type(1).shape
    _check_expanded(b, _padded(b, len(found)), found)
    return typed(b, found)


def _padded(b: Bound, rank: int) -> Shape:
    """The shape with ones in front, up to `rank` dimensions."""
    shape = b.type(0).shape
    if rank < len(shape):
        fail("E203", f"`{b.op.name}` to fewer dimensions", b.span, f"{b.type(0)} to {rank} sizes")
    return (ONE,) * (rank - len(shape)) + shape


def _check_expanded(b: Bound, before: Shape, after: Shape) -> None:
    for have, want in zip(before, after):
        if known(have) != 1 and not same(have, want):
            fail("E203", f"`{b.op.name}` of a size that is not 1", b.span, f"{b.type(0)}: {have} to {want}")


view("reshape", "input: tensor, *shape: size", _reshape)
# `.view` refuses memory that is not laid out for it, which no type tells.
view("view", "input: tensor, *shape: size", _reshape, ".reshape")
view("reshape_as", "input: tensor, other: tensor", _reshape_as)
view("view_as", "input: tensor, other: tensor", _reshape_as, ".reshape_as")
view("flatten", "input: tensor, start_dim: int = 0, end_dim: int = -1", _flatten)
view("unflatten", "input: tensor, dim: int, sizes: shape", _unflatten)
view("squeeze", "input: tensor, dim: sizes? = none", _squeeze)
view("unsqueeze", "input: tensor, dim: int", _unsqueeze)
view("expand", "input: tensor, *size: size", _expand)
view("expand_as", "input: tensor, other: tensor", _expand_as)
movement("contiguous", "input: tensor", lambda b: typed(b, b.type(0).shape), ".contiguous")

# Another order -------------------------------------------------------------------------------------------------------


def _transpose(b: Bound) -> Types:
    shape = b.type(0).shape
    return typed(b, tuple(shape[i] for i in _swapped(b)) if shape else shape)


def _swapped(b: Bound) -> list[int]:
    rank = len(b.type(0).shape)
    i, j = axis(b.attrs["dim0"], rank, b), axis(b.attrs["dim1"], rank, b)
    return [{i: j, j: i}.get(d, d) for d in range(rank)]


def _given_order(b: Bound) -> list[int]:
    rank = len(b.type(0).shape)
    return [axis(d, rank, b) for d in several(b.attrs["dims"])]


def _in_place(order: Callable[[Bound], list[int]]) -> Callable[[Bound], tuple[int, ...] | None]:
    """The order of a call that leaves the last dimension in its place, each dimension being known by itself."""

    def found(b: Bound) -> tuple[int, ...] | None:
        dims = order(b)
        return tuple(dims) if REST not in b.type(0).shape and dims and dims[-1] == len(dims) - 1 else None

    return found


def _permute(b: Bound) -> Types:
    shape, order = b.type(0).shape, _given_order(b)
    if sorted(order) != list(range(len(shape))):
        fail("E204", "`permute` names each dimension once", b.span, f"{b.type(0)} has {len(shape)} dimensions")
    return typed(b, tuple(shape[i] for i in order))


def _movedim(b: Bound) -> Types:
    shape = b.type(0).shape
    return typed(b, tuple(shape[i] for i in _moved_order(b)) if shape else shape)


def _moved_order(b: Bound) -> list[int]:
    shape = b.type(0).shape
    source = [axis(d, len(shape), b) for d in several(b.attrs["source"])]
    target = [axis(d, len(shape), b) for d in several(b.attrs["destination"])]
    if len(source) != len(target) or len({*source}) < len(source) or len({*target}) < len(target):
        fail("E204", "`movedim` takes as many places as dimensions, each once", b.span, str(b.type(0)))
    rest = iter(i for i in range(len(shape)) if i not in source)
    moved = dict(zip(target, source))
    return [moved[i] if i in moved else next(rest) for i in range(len(shape))]


def _swap_last(b: Bound) -> Types:
    shape = b.type(0).shape
    if len(shape) < 2:
        fail("E204", "`.T` swaps the last two dimensions", b.span, f"{b.type(0)} has {len(shape)}")
    need_rank(b, 2)
    return typed(b, (*shape[:-2], shape[-1], shape[-2]))


def _t(b: Bound) -> Types:
    shape = b.type(0).shape
    need_rank(b)
    if len(shape) > 2:
        fail("E204", "`t` is for matrices", b.span, f"{b.type(0)} has {len(shape)} dimensions", help="use `.T`")
    return typed(b, shape[::-1])


def _same_shape(b: Bound) -> Types:
    return typed(b, b.type(0).shape)


def _flip(b: Bound) -> Types:
    rank = len(b.type(0).shape)
    dims = [axis(d, rank, b) for d in several(b.attrs["dims"])]
    if len({*dims}) < len(dims):
        fail("E204", "`flip` names each dimension once", b.span, str(b.type(0)))
    return _same_shape(b)


def _roll(b: Bound) -> Types:
    rank = len(b.type(0).shape)
    if b.attrs["dims"] is None:
        if len(several(b.attrs["shifts"])) != 1:
            fail("E202", "`roll` by several shifts needs as many `dims`", b.span)
        return _same_shape(b)
    dims = [axis(d, rank, b) for d in several(b.attrs["dims"])]
    if not rank or len(dims) != len(several(b.attrs["shifts"])):
        fail("E202", "`roll` takes as many shifts as dimensions", b.span, str(b.type(0)))
    return _same_shape(b)


view("transpose", "input: tensor, dim0: int, dim1: int", _transpose, moves=_in_place(_swapped))
view("permute", "input: tensor, *dims: int", _permute, moves=_in_place(_given_order))
view("movedim", "input: tensor, source: sizes, destination: sizes", _movedim, moves=_in_place(_moved_order))
view("t", "input: tensor", _t)
view("swap_last", "input: tensor", _swap_last, lambda texts, attrs: f"{texts[0]}.mT")
movement("flip", "input: tensor, *dims: int", _flip, ".flip")
movement("roll", "input: tensor, shifts: sizes, dims: sizes? = none", _roll, ".roll")

internal("swap_last")


def permutation(b: Bound) -> tuple[int, ...]:
    """Where each dimension of the result of a view that puts dimensions in another order comes from."""
    order = {"transpose": _swapped, "permute": _given_order, "movedim": _moved_order}.get(b.op.name)
    rank = len(b.type(0).shape)
    return tuple(order(b)) if order is not None else (*range(rank - 2), rank - 1, rank - 2)
