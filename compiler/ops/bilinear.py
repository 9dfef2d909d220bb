"""A product of two inputs with a third-order weight."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Call
from tdsl.compiler.ops.infer import same, same_shape
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.spatial import agreeing, floating
from tdsl.dsl.diagnostics import fail


def _bilinear(b: Bound) -> Types:
    left, right, weight = b.type(0), b.type(1), b.type(2)
    floating(b)
    agreeing(b)
    if len(weight.shape) != 3:
        fail("E203", "the weight of `bilinear` is [out, in1, in2]", b.span, f"this is {weight}")
    if not left.shape or not same_shape(left.shape[:-1], right.shape[:-1]) or len(left.shape) != len(right.shape):
        fail("E203", "shapes do not match in `bilinear`", b.span, f"{left} and {right} differ before their last size")
    for t, size in ((left, weight.shape[1]), (right, weight.shape[2])):
        if not same(t.shape[-1], size):
            fail("E203", "shapes do not match in `bilinear`", b.span, f"{t}, whose last size is to be {size}")
    if b.given(3) and not same_shape(b.type(3).shape, weight.shape[:1]):
        fail("E203", f"the bias of `bilinear` has {weight.shape[0]} numbers here", b.span, f"this is {b.type(3)}")
    return (TensorType(left.dtype, (*left.shape[:-1], weight.shape[0])),)


def _flops(call: Call) -> int:
    _, left, right = call.operand(2).shape
    return 2 * call.results[0].elements * left * (right + 1)


library(
    "bilinear",
    "input1: tensor, input2: tensor, weight: tensor, bias: tensor? = none",
    _bilinear,
    arguments=lambda texts, attrs: list(texts[:2]),
    product=_flops,
)
