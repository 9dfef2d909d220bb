"""Pointwise ops: arithmetic, comparisons, mathematical functions, activations.

VJPs name their operands as the formula does: `g` is the gradient of the result `y`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tdsl.compiler.ir import Scalar, TensorType, Value
from tdsl.compiler.ops.infer import (
    broadcast,
    like_input_float,
    pointwise,
    pointwise_bool,
    pointwise_float,
    pointwise_numeric,
    promote,
    tensors,
)
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.ops.trace import Expr, Tracer

UNARY = signature("input: tensor")
BINARY = signature("input: operand, other: operand")
Infer = Callable[[Bound], Types]


def unary(name: str, triton: str, vjp: Callable[..., Any] | None, infer: Infer = pointwise_float, **more: Any) -> None:
    register(Op(name, Kind.POINTWISE, UNARY, infer, more.pop("torch", f"torch.{name}"), triton, vjp=vjp, **more))


def binary(name: str, torch: str, triton: str, vjp: Callable[..., Any] | None, infer: Infer = pointwise) -> None:
    register(Op(name, Kind.POINTWISE, BINARY, infer, torch, triton, vjp=vjp))


def composite(
    name: str, arguments: str, lower: Callable[..., Expr], infer: Infer = like_input_float, **more: Any
) -> None:
    """An op made of others."""
    torch = more.pop("torch", f"F.{name}")
    register(Op(name, Kind.POINTWISE, signature(arguments), infer, torch, lower=lower, **more))


# Arithmetic ----------------------------------------------------------------------------------------------------------

binary("add", "+", "{0} + {1}", lambda t, g, y, a, b: (g, g))
binary("sub", "-", "{0} - {1}", lambda t, g, y, a, b: (g, -g), pointwise_numeric)
binary("mul", "*", "{0} * {1}", lambda t, g, y, a, b: (g * b, g * a))
binary("div", "/", "{0} / {1}", lambda t, g, y, a, b: (g / b, -g * y / b), pointwise_float)
binary(
    "maximum",
    "torch.maximum",
    "tm.maximum({0}, {1})",
    lambda t, g, y, a, b: (g * _winner(t, a, b), g * _winner(t, b, a)),
)
binary(
    "minimum",
    "torch.minimum",
    "tm.minimum({0}, {1})",
    lambda t, g, y, a, b: (g * _winner(t, b, a), g * _winner(t, a, b)),
)


def _winner(t: Tracer, a: Expr, b: Expr) -> Expr:
    """1 where `a` is the greater, a half where they tie, as PyTorch shares the gradient."""
    return t.where(a > b, 1.0, t.where(t.eq(a, b), 0.5, 0.0))


unary("neg", "-{0}", lambda t, g, y, x: (-g,), pointwise_numeric, torch="-x")
unary("abs", "tl.abs({0})", lambda t, g, y, x: (g * t.sign(x),), pointwise_numeric)
unary("sign", "tm.sign({0})", None, pointwise_numeric)


def _pow(t: Tracer, x: Expr, exponent: Expr) -> Expr:
    """Powers by small whole numbers by multiplication, which is exact for negative bases too."""
    base, n = _number(x), _number(exponent)
    if n in (0.5, -0.5):
        return t.sqrt(x) if n == 0.5 else t.rsqrt(x)
    if n is not None and n == int(n) and 0 < abs(n) <= 16:
        whole = _multiplied(x, int(abs(n)))
        return whole if n > 0 else 1.0 / whole
    return t.exp2(exponent * math.log2(base)) if base is not None and base > 0 else t.power(x, exponent)


def _number(x: Expr) -> int | float | None:
    """The literal that an operand is."""
    operand = x.operand
    if isinstance(operand, Scalar) and not operand.text and isinstance(operand.value, (int, float)):
        return operand.value
    return None


def _multiplied(x: Expr, n: int) -> Expr:
    """x to the power of n, at least 1, by squaring."""
    if n == 1:
        return x
    half = _multiplied(x, n // 2)
    return half * half * x if n % 2 else half * half


def _power_vjp(t: Tracer, g: Expr, y: Expr, x: Expr, p: Expr) -> tuple[Expr | None, Expr]:
    """At the edges as in PyTorch: no gradient of `x ** 0`, nor of the exponent where a zero stays one."""
    d_x = None if _number(p) == 0 else g * t.where(t.eq(p, 0.0), 0.0, p * t.power(x, p - 1.0))
    d_p = y * t.log(t.where(t.eq(x, 0.0), t.where(p >= 0.0, 1.0, x), x))
    return d_x, g * d_p


register(
    Op(
        "pow",
        Kind.POINTWISE,
        signature("input: operand, exponent: operand"),
        pointwise,
        "**",
        lower=_pow,
    )
)
register(
    Op(
        "power",
        Kind.POINTWISE,
        BINARY,
        pointwise,
        "torch.pow",
        "tm.power({0}, {1})",
        vjp=_power_vjp,
        doc="`pow` for any exponent, within kernels.",
    )
)

# Comparisons ---------------------------------------------------------------------------------------------------------

for _name, _sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    binary(_name, _sign, "{0} " + _sign + " {1}", None, pointwise_bool)
# On truth values alone, within kernels; what a program calls takes numbers too.
binary("both", "torch.logical_and", "{0} & {1}", None, pointwise_bool)
binary("either", "torch.logical_or", "{0} | {1}", None, pointwise_bool)
unary("opposite", "~{0}", None, pointwise_bool)


def _truth(t: Tracer, x: Expr) -> Expr:
    return x if x.type.dtype == "bool" and isinstance(x.operand, Value) else t.ne(x, 0)


composite(
    "logical_and",
    "input: operand, other: operand",
    lambda t, a, b: t.both(_truth(t, a), _truth(t, b)),
    pointwise_bool,
    torch="torch.logical_and",
)
composite(
    "logical_or",
    "input: operand, other: operand",
    lambda t, a, b: t.either(_truth(t, a), _truth(t, b)),
    pointwise_bool,
    torch="torch.logical_or",
)
composite(
    "logical_not",
    "input: tensor",
    lambda t, x: t.opposite(_truth(t, x)),
    pointwise_bool,
    torch="torch.logical_not",
)
unary("isnan", "{0} != {0}", None, pointwise_bool)

# Functions -----------------------------------------------------------------------------------------------------------

unary("exp", "tl.exp({0})", lambda t, g, y, x: (g * y,))
unary("exp2", "tl.exp2({0})", lambda t, g, y, x: (g * y * math.log(2),))
unary("expm1", "tm.expm1({0})", lambda t, g, y, x: (g * (y + 1.0),))
unary("log", "tl.log({0})", lambda t, g, y, x: (g / x,))
unary("log2", "tl.log2({0})", lambda t, g, y, x: (g / (x * math.log(2)),))
unary("log10", "tm.log10({0})", lambda t, g, y, x: (g / (x * math.log(10)),))
unary("log1p", "tm.log1p({0})", lambda t, g, y, x: (g / (x + 1.0),))
unary("sqrt", "tl.sqrt_rn({0})", lambda t, g, y, x: (g * 0.5 / y,))
unary("rsqrt", "tl.rsqrt({0})", lambda t, g, y, x: (g * -0.5 * y * y * y,))
unary("reciprocal", "1.0 / {0}", lambda t, g, y, x: (-g * y * y,))
unary("sin", "tl.sin({0})", lambda t, g, y, x: (g * t.cos(x),))
unary("cos", "tl.cos({0})", lambda t, g, y, x: (-g * t.sin(x),))
unary("tanh", "tm.tanh({0})", lambda t, g, y, x: (g * (1.0 - y * y),))
unary("erf", "tl.erf({0})", lambda t, g, y, x: (g * (2 / math.sqrt(math.pi)) * t.exp(-(x * x)),))
unary("sigmoid", "tl.sigmoid({0})", lambda t, g, y, x: (g * y * (1.0 - y),))
unary("floor", "tl.floor({0})", None, pointwise_numeric)
unary("ceil", "tl.ceil({0})", None, pointwise_numeric)
composite("tan", "input: tensor", lambda t, x: t.sin(x) / t.cos(x), pointwise_float, torch="torch.tan")
composite("square", "input: tensor", lambda t, x: x * x, pointwise, torch="torch.square")

# Choice --------------------------------------------------------------------------------------------------------------


def _where_type(b: Bound) -> Types:
    return (TensorType(promote(b.inputs[1:]), broadcast(tensors(b), "where", b.span)),)


register(
    Op(
        "where",
        Kind.POINTWISE,
        signature("condition: tensor, input: operand, other: operand"),
        _where_type,
        "torch.where",
        "tl.where({0}, {1}, {2})",
        vjp=lambda t, g, y, c, a, b: (None, t.where(c, g, 0.0), t.where(c, 0.0, g)),
    )
)


def _bound(name: str, triton: str, inside: Callable[[Expr, Expr], Expr], outside: Callable[[Expr, Expr], Expr]) -> None:
    """One side of `clamp`: the gradient passes at the bound, but not through NaN, as in PyTorch."""

    def vjp(t: Tracer, g: Expr, y: Expr, x: Expr, bound: Expr) -> tuple[Expr, Expr]:
        return t.where(inside(x, bound), g, 0.0), t.where(outside(x, bound), g, 0.0)

    register(Op(name, Kind.POINTWISE, BINARY, pointwise, f"torch.{triton}", f"tm.{triton}({{0}}, {{1}})", vjp=vjp))


_bound("at_least", "maximum", lambda x, low: x >= low, lambda x, low: x < low)
_bound("at_most", "minimum", lambda x, high: x <= high, lambda x, high: x > high)


def _clamp(t: Tracer, x: Expr, low: Expr, high: Expr) -> Expr:
    if getattr(low.operand, "value", 0.0) is not None:
        x = t.at_least(x, low)
    if getattr(high.operand, "value", 0.0) is not None:
        x = t.at_most(x, high)
    return x


composite("clamp", "input: tensor, min: operand? = none, max: operand? = none", _clamp, pointwise, torch="torch.clamp")
composite(
    "masked_fill",
    "input: tensor, mask: tensor, value: operand",
    lambda t, x, mask, value: t.where(mask, value, x),
    lambda b: (b.type(0),),
    torch=".masked_fill",
)
composite(
    "lerp",
    "input: tensor, end: tensor, weight: operand",
    lambda t, a, b, w: a + w * (b - a),
    pointwise_float,
    torch="torch.lerp",
)

# Activations: the formulas of torch.nn.functional --------------------------------------------------------------------


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


composite("relu", "input: tensor", lambda t, x: t.where(x <= 0.0, 0.0, x), pointwise_numeric)
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
)
composite("gelu", 'input: tensor, *, approximate: str = "none"', _gelu, flops=8)
composite("silu", "input: tensor", lambda t, x: x * t.sigmoid(x), flops=4)
composite("mish", "input: tensor", lambda t, x: x * t.tanh(_softplus(t, x, 1.0, 20.0)), flops=8)
composite("hardtanh", "input: tensor, min_val: float = -1.0, max_val: float = 1.0", _hardtanh)
composite("hardsigmoid", "input: tensor", lambda t, x: _between(t, x, 0.0, 1.0, (x + 3.0) / 6.0))
composite("hardswish", "input: tensor", lambda t, x: _between(t, x, 0.0, x, x * (x + 3.0) / 6.0))
composite("softplus", "input: tensor, beta: float = 1.0, threshold: float = 20.0", _softplus, flops=4)
composite("softsign", "input: tensor", lambda t, x: x / (1.0 + t.abs(x)))
composite("logsigmoid", "input: tensor", lambda t, x: -_softplus(t, -x, 1.0, 20.0))

internal("power", "both", "either", "opposite", "at_least", "at_most")
