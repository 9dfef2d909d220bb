"""What a program may ask of a tensor that the compiler knows: its sizes, how many they are, its dtype."""

from __future__ import annotations

from tdsl.compiler.build.values import Dtype, Semantic
from tdsl.compiler.ir import Scalar, TensorType, Value
from tdsl.compiler.ops.infer import REST, axis
from tdsl.compiler.ops.op import Bound
from tdsl.compiler.size import Size, product
from tdsl.dsl.diagnostics import Span, fail

# Ops in name alone: a call of one is a number, or several.
QUERIES = ("size", "numel")


def queried(bound: Bound) -> Semantic:
    """`x.size(0)`, `x.size()` and `x.numel()`."""
    type, span = bound.type(0), bound.span
    assert span is not None
    if bound.op.name == "numel":
        _need_all(type, span)
        return _number(product(type.shape))
    dim = bound.attrs["dim"]
    if dim is None:
        return _shape(type, span)
    if not type.shape:
        fail("E204", "`size` of a tensor without dimensions", span, str(type))
    size = type.shape[axis(dim, len(type.shape), bound)]
    if size == REST:
        _need_all(type, span)
    return _number(size)


def attribute_of(value: Value, name: str, span: Span) -> Semantic | None:
    """`x.shape`, `x.ndim` and `x.dtype`; None for another name."""
    if name == "shape":
        return _shape(value.type, span)
    if name == "ndim":
        _need_all(value.type, span)
        return Scalar(len(value.type.shape))
    return Dtype(value.type.dtype) if name == "dtype" else None


def _shape(type: TensorType, span: Span) -> tuple[Semantic, ...]:
    _need_all(type, span)
    return tuple(map(_number, type.shape))


def _need_all(type: TensorType, span: Span) -> None:
    if REST in type.shape:
        help = "one counted from the end is known: `size(x, -1)`"
        fail("E208", "how many dimensions `...` stands for is only known when it runs", span, str(type), help=help)


def _number(size: Size) -> Scalar:
    return Scalar(size if size.constant is None else size.constant)
