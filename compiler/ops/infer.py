"""Shape and dtype rules that several ops share: broadcasting, promotion, reduced dimensions. They are PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from tdsl.compiler.ir import Attr, Operand, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.op import Bound, Types
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import Span, fail

ONE = Size.of(1)

# What sizes are known to be while a module is built for one set of arguments: proofs may use them. Set by the builder.
KNOWN: dict[Symbol, int] = {}
# Sizes declared equal (`assume H == W`) while a body is built: each symbol's replacement. Set by the builder.
ASSUMED: dict[Symbol, Size] = {}


@contextmanager
def knowing(known: Mapping[Symbol, int]) -> Iterator[None]:
    """Prove with these module parameters known, and nothing assumed."""
    before, assumed = dict(KNOWN), dict(ASSUMED)
    KNOWN.clear()
    ASSUMED.clear()
    KNOWN.update(known)
    try:
        yield
    finally:
        KNOWN.clear()
        ASSUMED.clear()
        KNOWN.update(before)
        ASSUMED.update(assumed)


def same(left: Size, right: Size) -> bool:
    """Whether two sizes are proved equal: as polynomials, under what is assumed, or for the arguments at hand."""
    if left == right:
        return True
    difference = left - right
    if ASSUMED:
        difference = difference.substitute(ASSUMED)
    return difference.substitute(KNOWN).constant == 0 if KNOWN else difference.constant == 0


def same_shape(left: Shape, right: Shape) -> bool:
    return len(left) == len(right) and all(map(same, left, right))


def known(size: Size) -> int | None:
    """The integer that a size is, where that is known."""
    if size.constant is not None:
        return size.constant
    return size.substitute(KNOWN).constant


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
                fail("E203", f"shapes do not match in `{what}`", span, " and ".join(str(t) for t in given))
        result.append(size)
    return tuple(result)


_RANK = {"bool": 0, "u8": 1, "i8": 1, "i16": 2, "i32": 3, "i64": 4, "f16": 5, "bf16": 5, "float": 6, "f32": 6, "f64": 7}


def _category(dtype: str) -> int:
    return 0 if dtype == "bool" else 1 if _RANK[dtype] < 5 else 2


def promote(operands: Iterable[Operand]) -> str:
    """PyTorch's type promotion: dimensioned tensors first, then zero-dimensional ones, then numbers, by category."""
    result = ""
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    for operand in operands:
        if isinstance(operand, Scalar):
            groups[2].append(operand.dtype)
        else:
            groups[0 if operand.type.shape else 1].append(operand.type.dtype)
    for group in groups:
        best = _join(group)
        if best and (not result or _category(best) > _category(result)):
            result = best
    return result or "float"


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


def pointwise_numeric(b: Bound) -> Types:
    """Broadcast and promote; booleans are refused, as PyTorch refuses them."""
    for operand in b.inputs:
        if isinstance(operand, Value) and operand.type.dtype == "bool":
            fail("E205", f"`{b.op.name}` needs numbers", b.span, str(operand.type), help="convert with `.float()`")
    return pointwise(b)


def pointwise_float(b: Bound) -> Types:
    """Broadcast and promote; integers become `float`, as in `torch.exp`."""
    dtype = promote(b.inputs)
    return (TensorType(dtype if _category(dtype) == 2 else "float", broadcast(tensors(b), b.op.name, b.span)),)


def pointwise_bool(b: Bound) -> Types:
    return (TensorType("bool", broadcast(tensors(b), b.op.name, b.span)),)


def like_input(b: Bound) -> Types:
    return (b.type(0),)


def like_input_float(b: Bound) -> Types:
    if not b.type(0).is_float:
        fail("E205", f"`{b.op.name}` needs floating-point values", b.span, str(b.type(0)))
    return (b.type(0),)


def axis(dim: Attr, rank: int, b: Bound) -> int:
    """A dimension as an index from the left; E204 where it is out of range."""
    if not isinstance(dim, int) or not -max(rank, 1) <= dim < max(rank, 1):
        fail("E204", f"`{b.op.name}` has no dimension {dim}", b.span, f"{b.type(0)} has {rank} dimensions")
    return dim % max(rank, 1)


def axes(dim: Attr, b: Bound) -> tuple[int, ...]:
    """The reduced dimensions, sorted; all of them where `dim` is none or empty."""
    rank = len(b.type(0).shape)
    if dim is None or dim == ():
        return tuple(range(rank))
    given = dim if isinstance(dim, tuple) else (dim,)
    return tuple(sorted({axis(d, rank, b) for d in given}))


def reduced(b: Bound, dtype: str | None = None) -> Types:
    """The result of a reduction over attribute `dim`, kept as ones where `keepdim`."""
    t = b.type(0)
    gone = axes(b.attrs.get("dim"), b)
    if b.attrs.get("keepdim"):
        shape = tuple(ONE if i in gone else s for i, s in enumerate(t.shape))
    else:
        shape = tuple(s for i, s in enumerate(t.shape) if i not in gone)
    return (TensorType(dtype or t.dtype, shape),)


def reduced_sum(b: Bound) -> Types:
    """As `reduced`; integers and booleans add up in `i64`, as in `torch.sum`."""
    return reduced(b, None if b.type(0).is_float else "i64")


def reduced_float(b: Bound) -> Types:
    if not b.type(0).is_float:
        fail(
            "E205", f"`{b.op.name}` needs floating-point values", b.span, str(b.type(0)), help="convert with `.float()`"
        )
    return reduced(b)


def plain(attrs: Mapping[str, Attr], name: str) -> float:
    """A numeric attribute as a number."""
    value = attrs[name]
    if isinstance(value, (int, float)):
        return value
    raise TypeError(f"{name} is {value!r}")
