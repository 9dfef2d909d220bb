"""Activations: the formulas of torch.nn.functional."""

from __future__ import annotations

import math

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.elementwise import composite
from tdsl.compiler.ops.infer import (
    ONE,
    axis,
    known,
    like_input,
    like_input_float,
    pointwise_float,
    pointwise_numeric,
    quotient,
    refuse_booleans,
    same,
    stated,
)
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _gelu(t: Tracer, x: Expr, approximate: str) -> Expr:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + t.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1.0 + t.erf(x * math.sqrt(0.5)))


def _softplus(t: Tracer, x: Expr, beta: float, threshold: float) -> Expr:
    scaled = x * beta
    return t.where(scaled > threshold, x, t.log1p(t.exp(t.where(scaled > threshold, 0.0, scaled))) / beta)


def _hardtanh(t: Tracer, x: Expr, min_val: float, max_val: float) -> Expr:
    """Unlike `clamp`, without a gradient at the bounds, as in PyTorch."""
    return t.where(x <= min_val, min_val, t.where(x >= max_val, max_val, x))


def _between(t: Tracer, x: Expr, low: float, high: Expr | float, middle: Expr) -> Expr:
    """`low` up to -3, `high` from 3 on."""
    return t.where(x <= -3.0, low, t.where(x >= 3.0, high, middle))


def _selu(t: Tracer, x: Expr) -> Expr:
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return scale * t.where(x > 0.0, x, alpha * t.expm1(t.where(x > 0.0, 0.0, x)))


def _gelu_type(b: Bound) -> Types:
    if b.attrs["approximate"] not in ("none", "tanh"):
        told = f"this is {b.attrs['approximate']!r}"
        fail("E202", '`approximate` of `gelu` is "none" or "tanh"', b.span, told)
    return like_input_float(b)


def _celu_type(b: Bound) -> Types:
    if b.attrs["alpha"] == 0:
        fail("E202", "`alpha` of `celu` can't be 0", b.span)
    return like_input_float(b)


def _hardtanh_type(b: Bound) -> Types:
    low, high = b.attrs["min_val"], b.attrs["max_val"]
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
        fail("E202", "`min_val` of `hardtanh` is greater than `max_val`", b.span, f"{low} and {high}")
    if b.type(0).dtype == "u8" and any(isinstance(v, (int, float)) and int(v) < 0 for v in (low, high)):
        fail("E205", "`hardtanh` of values without a sign between bounds below 0", b.span, str(b.type(0)))
    refuse_booleans(b, b.type(0).dtype)
    return like_input(b)


def _softsign_type(b: Bound) -> Types:
    refuse_booleans(b, b.type(0).dtype)
    return pointwise_float(b)


def _threshold_type(b: Bound) -> Types:
    refuse_booleans(b, b.type(0).dtype)
    return like_input(b)


composite(
    "relu",
    "input: tensor",
    lambda t, x: t.where(x <= 0.0, 0.0 if x.type.is_float else 0, x),
    pointwise_numeric,
    keeps=Keeps.RESULT,
)
composite("relu6", "input: tensor", lambda t, x: _hardtanh(t, x, 0.0, 6.0), pointwise_numeric)
composite(
    "leaky_relu",
    "input: tensor, negative_slope: float = 0.01",
    lambda t, x, negative_slope: t.where(x > 0.0, x, negative_slope * x),
)
composite(
    "elu",
    "input: tensor, alpha: float = 1.0",
    lambda t, x, alpha: t.where(x > 0.0, x, alpha * t.expm1(t.where(x > 0.0, 0.0, x))),
)
composite("selu", "input: tensor", _selu)
composite(
    "celu",
    "input: tensor, alpha: float = 1.0",
    lambda t, x, alpha: t.where(x > 0.0, x, alpha * t.expm1(t.where(x > 0.0, 0.0, x) / alpha)),
    _celu_type,
)
composite("gelu", 'input: tensor, *, approximate: str = "none"', _gelu, _gelu_type, flops=8)
composite("silu", "input: tensor", lambda t, x: x * t.sigmoid(x), flops=4)
composite("mish", "input: tensor", lambda t, x: x * t.tanh(_softplus(t, x, 1.0, 20.0)), flops=8)
composite("hardtanh", "input: tensor, min_val: float = -1.0, max_val: float = 1.0", _hardtanh, _hardtanh_type)
composite("hardsigmoid", "input: tensor", lambda t, x: _between(t, x, 0.0, 1.0, (x + 3.0) / 6.0))
composite("hardswish", "input: tensor", lambda t, x: _between(t, x, 0.0, x, x * (x + 3.0) / 6.0))
composite("softplus", "input: tensor, beta: float = 1.0, threshold: float = 20.0", _softplus, flops=4)
composite("softsign", "input: tensor", lambda t, x: x / (1.0 + t.abs(x)), _softsign_type)
composite("logsigmoid", "input: tensor", lambda t, x: -_softplus(t, -x, 1.0, 20.0))
composite(
    "threshold",
    "input: tensor, threshold: float, value: float",
    lambda t, x, threshold, value: t.where(x <= threshold, value, x),
    _threshold_type,
)

# With more than elements: left to PyTorch ----------------------------------------------------------------------------


def _glu(b: Bound) -> Types:
    (x,) = like_input_float(b)
    if not x.shape:
        fail("E204", "`glu` of a tensor without dimensions", b.span, str(x))
    dim = axis(b.attrs["dim"], len(x.shape), b)
    half = quotient(x.shape[dim], Size.of(2))
    if half is None and known(x.shape[dim]) is not None:
        fail("E203", f"`glu` halves a dimension, and {x.shape[dim]} is odd", b.span, str(x))
    if half is None:
        told = stated(x.shape[dim], Size.of(2))
        fail("E208", f"can't prove that {x.shape[dim]} is even, which `glu` halves", b.span, str(x), help=told)
    return (TensorType(x.dtype, (*x.shape[:dim], half, *x.shape[dim + 1 :])),)


def _prelu(b: Bound) -> Types:
    """One slope in all, or one a channel, dimension 1."""
    x, weight = like_input_float(b)[0], b.type(1)
    if weight.dtype != x.dtype and {weight.dtype, x.dtype} != {"float", "f32"}:
        fail("E205", "dtypes do not match in `prelu`", b.span, f"{x} and a weight {weight}")
    if len(weight.shape) > 1:
        fail("E203", "the weight of `prelu` has one dimension at most", b.span, str(weight))
    channels = x.shape[1] if len(x.shape) > 1 else ONE
    if weight.shape and known(weight.shape[0]) != 1 and not same(weight.shape[0], channels):
        fail("E203", "the weight of `prelu` has one number, or one a channel", b.span, f"{weight} for {x}")
    return (x,)


library("glu", "input: tensor, dim: int = -1", _glu)
library("prelu", "input: tensor, weight: tensor", _prelu)
