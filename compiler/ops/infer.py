"""Shape and dtype rules that several ops share: broadcasting, promotion, reduced dimensions. They are PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product as product_of

from tdsl.compiler.assumed import Assumptions
from tdsl.compiler.ir import Assumption, Attr, Operand, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops import cures
from tdsl.compiler.ops.op import Bound, Types
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import Span, fail

ONE = Size.of(1)
# The leading dimensions that a signature writes `...`: one symbol, however many they are.
REST = Size.of(Symbol("..."))

# What sizes are known to be while a module is built for one set of arguments: proofs may use them. Set by the builder.
KNOWN: dict[Symbol, int] = {}
# What the body that is built states of its sizes (`assume`). Set by the builder.
ASSUMED = Assumptions()
# Proofs by cases look at no more remainders than this.
MOST_CASES = 512


@contextmanager
def knowing(known: Mapping[Symbol, int], assumed: Iterable[Assumption] = ()) -> Iterator[None]:
    """Prove with these module parameters known, and this assumed."""
    before, others = dict(KNOWN), ASSUMED.copy()
    KNOWN.clear()
    ASSUMED.clear()
    KNOWN.update(known)
    ASSUMED.add(assumed)
    try:
        yield
    finally:
        KNOWN.clear()
        KNOWN.update(before)
        ASSUMED.become(others)


@contextmanager
def assuming() -> Iterator[None]:
    """What is assumed within is forgotten after."""
    before = ASSUMED.copy()
    try:
        yield
    finally:
        ASSUMED.become(before)


def same(left: Size, right: Size) -> bool:
    """Whether two sizes are proved equal: as polynomials, under what is assumed, or for the arguments at hand."""
    if left == right:
        return True
    difference = left - right
    return _is_zero(difference) or (bool(KNOWN) and _is_zero(difference.substitute(KNOWN)))


def _is_zero(difference: Size) -> bool:
    if difference.constant is not None:
        return difference.constant == 0
    if ASSUMED and (ASSUMED.is_zero(difference) or known(ASSUMED.resolve(difference)) == 0):
        return True
    return _by_cases(ASSUMED.resolve(difference))


def _by_cases(difference: Size) -> bool:
    """Whether a difference is 0 whatever its symbols leave as remainders of the constants that divide them.

    With `H = 4 * q + r` every `// 4` comes out, for each `r`: so `(H // 2) // 2` is seen to be `H // 4`.
    """
    modulus = difference.modulus()
    symbols = sorted(difference.divided(), key=lambda s: s.name)
    if modulus < 2 or not symbols or modulus ** len(symbols) > MOST_CASES:
        return False
    for remainders in product_of(range(modulus), repeat=len(symbols)):
        given = {s: Size.of(s) * modulus + r for s, r in zip(symbols, remainders)}
        if difference.substitute(given).constant != 0:
            return False
    return True


def same_shape(left: Shape, right: Shape) -> bool:
    return len(left) == len(right) and all(map(same, left, right))


def known(size: Size) -> int | None:
    """The integer that a size is, where that is known."""
    if size.constant is not None:
        return size.constant
    found = size.substitute(KNOWN).constant
    return found if found is not None or not ASSUMED else ASSUMED.resolve(size).substitute(KNOWN).constant


def quotient(total: Size, by: Size) -> Size | None:
    """`total / by` where it is proved to leave no remainder, else None."""
    exact = total.exact(by)
    if exact is not None:
        return exact
    if ASSUMED and ASSUMED.divides(total, by):
        return total // by
    a, b = known(total), known(by)
    if a is not None and b:
        return total // by if a % b == 0 else None
    return total // by if same(total // by * by, total) else None


def stated(total: Size, by: Size) -> str:
    """The help line of what can't be proved to divide, without the factors that both have."""
    common = [Size.of(s) for s in sorted(by.symbols(), key=lambda s: s.name)]
    for factor in common:
        less, rest = total.exact(factor), by.exact(factor)
        total, by = (less, rest) if less is not None and rest is not None else (total, by)
    return f"state it: `assume {_operand(total)} % {_operand(by)} == 0`"


def _operand(size: Size) -> str:
    text = str(size)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def broadcast(types: Iterable[TensorType], what: str, span: Span | None) -> Shape:
    """The shape that `types` broadcast to; E203 where they do not."""
    given = list(types)
    rank = max((len(t.shape) for t in given), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size = ONE
        for t in given:
            if len(t.shape) < -axis or t.shape[axis] == ONE:
                continue
            if size == ONE or known(size) == 1:
                size = t.shape[axis]
            elif known(t.shape[axis]) != 1 and not same(size, t.shape[axis]):
                told = " and ".join(str(t) for t in given)
                fail("E203", f"shapes do not match in `{what}`", span, told, help=cures.broadcasting(given))
        result.append(size)
    return tuple(result)


_RANK = {"bool": 0, "u8": 1, "i8": 1, "i16": 2, "i32": 3, "i64": 4, "f16": 5, "bf16": 5, "float": 6, "f32": 6, "f64": 7}


def category(dtype: str) -> int:
    """0 of truth values, 1 of integers, 2 of floating-point numbers."""
    return 0 if dtype == "bool" else 1 if _RANK[dtype] < 5 else 2


def promote(operands: Iterable[Operand]) -> str:
    """PyTorch's type promotion: dimensioned tensors first, then zero-dimensional ones, then numbers, by category."""
    result = ""
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    for operand in operands:
        if isinstance(operand, Scalar):
            if operand.value is not None or operand.text:
                groups[2].append(operand.dtype)
        else:
            groups[0 if operand.type.shape else 1].append(operand.type.dtype)
    for group in groups:
        best = _join(group)
        if best and (not result or category(best) > category(result)):
            result = best
    return result or "float"


def is_floating(dtype: str) -> bool:
    return category(dtype) == 2


def _join(dtypes: list[str]) -> str:
    result = ""
    for dtype in dtypes:
        if not result or _RANK[dtype] > _RANK[result]:
            result = dtype
        elif _RANK[dtype] == _RANK[result] and dtype != result:
            both = {dtype, result}
            result = "i16" if both == {"i8", "u8"} else "float" if both <= {"float", "f32"} else "f32"
    return result


def tensors(b: Bound) -> list[TensorType]:
    return [v.type for v in b.inputs if isinstance(v, Value)]


def pointwise(b: Bound) -> Types:
    """Broadcast and promote."""
    return (TensorType(promote(b.inputs), broadcast(tensors(b), b.op.name, b.span)),)


def refuse_booleans(b: Bound, dtype: str) -> None:
    """What PyTorch does to numbers alone."""
    if dtype == "bool":
        told = " and ".join(map(str, tensors(b)))
        fail("E205", f"`{b.op.name}` needs numbers", b.span, told, help="convert with `.float()`")


def pointwise_numeric(b: Bound) -> Types:
    """Broadcast and promote; where the result would be boolean, it is refused, as PyTorch refuses it."""
    found = pointwise(b)
    refuse_booleans(b, found[0].dtype)
    return found


def pointwise_float(b: Bound) -> Types:
    """Broadcast and promote; integers become `float`, as in `torch.exp`."""
    dtype = promote(b.inputs)
    return (TensorType(dtype if is_floating(dtype) else "float", broadcast(tensors(b), b.op.name, b.span)),)


def pointwise_bool(b: Bound) -> Types:
    return (TensorType("bool", broadcast(tensors(b), b.op.name, b.span)),)


def agree(b: Bound) -> None:
    """Refuse operands of several dtypes: in products PyTorch promotes nothing."""
    dtypes = {t.dtype for t in tensors(b)}
    if len(dtypes) > 1 and not dtypes <= {"float", "f32"}:
        given = " and ".join(map(str, tensors(b)))
        fail("E205", f"dtypes do not match in `{b.op.name}`", b.span, given, help="convert one with `cast(x, dtype)`")


def like_input(b: Bound) -> Types:
    return (b.type(0),)


def like_input_float(b: Bound) -> Types:
    if not b.type(0).is_float:
        what = f"`{b.op.name}` needs floating-point values"
        fail("E205", what, b.span, str(b.type(0)), help="convert with `.float()`")
    return (b.type(0),)


def axis(dim: Attr, rank: int, b: Bound) -> int:
    """A dimension as an index from the left; E204 where it is out of range."""
    if not isinstance(dim, int) or not -max(rank, 1) <= dim < max(rank, 1):
        help = f"dimensions count from 0 to {max(rank, 1) - 1}, or back from -1"
        fail("E204", f"`{b.op.name}` has no dimension {dim}", b.span, f"{b.type(0)} has {rank} dimensions", help=help)
    shape, place = b.type(0).shape, dim % max(rank, 1)
    if REST in shape:
        at, inserted = shape.index(REST), rank > len(shape)
        if (dim >= 0 and place >= at + inserted) or (dim < 0 and place <= at):
            told = f"{b.type(0)}: `...` stands for any number of dimensions"
            fail("E208", f"dimension {dim} of `{b.op.name}` is not known", b.span, told, help="count from the end: -1")
    return place


def axes(dim: Attr, b: Bound) -> tuple[int, ...]:
    """The reduced dimensions, sorted; all of them where `dim` is none or empty."""
    rank = len(b.type(0).shape)
    if dim is None or dim == ():
        return tuple(range(rank))
    given = [axis(d, rank, b) for d in (dim if isinstance(dim, tuple) else (dim,))]
    if len(set(given)) < len(given):
        fail("E204", f"`{b.op.name}` names a dimension twice", b.span, f"{dim} of {b.type(0)}")
    return tuple(sorted(given))


def reduced(b: Bound, dtype: str | None = None) -> Types:
    """The result of a reduction over attribute `dim`, kept as ones where `keepdim`."""
    t = b.type(0)
    gone = axes(b.attrs.get("dim"), b)
    if b.attrs.get("keepdim"):
        shape = tuple(ONE if i in gone else s for i, s in enumerate(t.shape))
    else:
        shape = tuple(s for i, s in enumerate(t.shape) if i not in gone)
    return (TensorType(dtype or t.dtype, shape),)


def given_dtype(b: Bound) -> str | None:
    """The dtype that a reduction is asked to compute in."""
    dtype = b.attrs.get("dtype")
    return dtype if isinstance(dtype, str) else None


def reduced_sum(b: Bound) -> Types:
    """As `reduced`; integers and booleans add up in `i64`, as in `torch.sum`."""
    return reduced(b, given_dtype(b) or (None if b.type(0).is_float else "i64"))


def reduced_float(b: Bound) -> Types:
    """As `reduced`, of floating-point values, or in a floating-point dtype that is asked for."""
    dtype = given_dtype(b) or b.type(0).dtype
    if not is_floating(dtype):
        told = str(b.type(0))
        fail("E205", f"`{b.op.name}` needs floating-point values", b.span, told, help="convert with `.float()`")
    return reduced(b, dtype)


def plain(attrs: Mapping[str, Attr], name: str) -> float:
    """A numeric attribute as a number."""
    value = attrs[name]
    if isinstance(value, (int, float)):
        return value
    raise TypeError(f"{name} is {value!r}")
