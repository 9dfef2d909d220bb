"""Products of matrices: left to cuBLAS."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import broadcast, promote, same, same_shape, tensors
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.dsl.diagnostics import fail


def _agree(b: Bound) -> None:
    """A product's operands have one dtype: PyTorch promotes nothing there."""
    dtypes = {t.dtype for t in tensors(b)}
    if len(dtypes) > 1 and not dtypes <= {"float", "f32"}:
        given = " and ".join(map(str, tensors(b)))
        fail("E205", f"dtypes do not match in `{b.op.name}`", b.span, given, help="convert one with `cast(x, dtype)`")


def _linear(b: Bound) -> Types:
    x, weight = b.type(0), b.type(1)
    if not x.shape:
        fail("E203", "`linear` of a tensor without dimensions", b.span, str(x))
    if len(weight.shape) != 2:
        fail("E203", "the weight of `linear` is a matrix [out, in]", b.span, str(weight))
    if not x.is_float:
        fail("E205", "`linear` needs floating-point values", b.span, str(x), help="convert with `.float()`")
    if not same(x.shape[-1], weight.shape[-1]):
        fail(
            "E203",
            "shapes do not match in `linear`",
            b.span,
            f"{x}, whose last size is {x.shape[-1]}, where {weight.shape[-1]} is expected",
        )
    if b.given(2) and not same_shape(b.type(2).shape, weight.shape[:1]):
        fail("E203", f"the bias of `linear` has {weight.shape[0]} numbers here", b.span, str(b.type(2)))
    _agree(b)
    return (TensorType(promote(b.inputs[:1]), (*x.shape[:-1], *weight.shape[:-1])),)


def _matmul(b: Bound) -> Types:
    left, right = b.type(0), b.type(1)
    if not left.shape or not right.shape:
        fail("E203", "`@` of a tensor without dimensions", b.span, f"{left} @ {right}")
    inner = right.shape[-2] if len(right.shape) > 1 else right.shape[0]
    if not same(left.shape[-1], inner):
        fail("E203", "shapes do not match in `@`", b.span, f"{left} @ {right}: {left.shape[-1]} is not {inner}")
    _agree(b)
    if left.dtype == "bool":
        fail("E205", "`@` does not multiply booleans", b.span, f"{left} @ {right}", help="convert with `.float()`")
    batch = broadcast([TensorType("float", t.shape[:-2]) for t in (left, right)], "@", b.span)
    rows = left.shape[-2:-1] if len(left.shape) > 1 else ()
    cols = right.shape[-1:] if len(right.shape) > 1 else ()
    return (TensorType(promote(b.inputs), (*batch, *rows, *cols)),)


library("linear", "input: tensor, weight: tensor, bias: tensor? = none", _linear)
library("matmul", "input: tensor, other: tensor", _matmul, "@", aliases=("mm", "bmm"))
