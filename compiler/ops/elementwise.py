"""Pointwise ops: arithmetic, comparisons, mathematical functions. `choice.py` and `activation.py` have the others.

VJPs name their operands as the formula does: `g` is the gradient of the result `y`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tdsl.compiler.ir import Scalar, TensorType, Value
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import (
    is_floating,
    like_input_float,
    pointwise,
    pointwise_bool,
    pointwise_float,
    pointwise_numeric,
    promote,
    refuse_booleans,
)
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.dsl.diagnostics import fail

UNARY = signature("input: tensor")
BINARY = signature("input: operand, other: operand")
PAIR = "input: tensor, other: tensor"
Infer = Callable[[Bound], Types]


def unary(name: str, triton: str, vjp: Callable[..., Any] | None, infer: Infer = pointwise_float, **more: Any) -> None:
    register(Op(name, Kind.POINTWISE, UNARY, infer, more.pop("torch", f"torch.{name}"), triton, vjp=vjp, **more))


def binary(
    name: str, torch: str, triton: str, vjp: Callable[..., Any] | None, infer: Infer = pointwise, **more: Any
) -> None:
    arguments = signature(more.pop("arguments", "input: operand, other: operand"))
    register(Op(name, Kind.POINTWISE, arguments, infer, torch, triton, vjp=vjp, **more))


def composite(
    name: str, arguments: str, lower: Callable[..., Expr], infer: Infer = like_input_float, **more: Any
) -> None:
    """An op made of others."""
    torch = more.pop("torch", f"F.{name}")
    register(Op(name, Kind.POINTWISE, signature(arguments), infer, torch, lower=lower, **more))


# Conversions within kernels -------------------------------------------------------------------------------------------

unary("real", "{0}.to(tl.float32)", None, lambda b: (TensorType("float", b.type(0).shape),), torch=".float")
unary("integer", "{0}.to(tl.int64)", None, lambda b: (TensorType("i64", b.type(0).shape),), torch=".long")


def _number_of(t: Tracer, x: Expr) -> Expr:
    """Truth values as 0 and 1: products of theirs would be truth values."""
    return t.integer(x) if x.type.dtype == "bool" and isinstance(x.operand, Value) else x


# Arithmetic ----------------------------------------------------------------------------------------------------------


def _without_booleans(b: Bound) -> Types:
    """`-` takes no truth values at all, not even beside numbers."""
    for i in range(2):
        refuse_booleans(b, b.type(i).dtype)
    return pointwise(b)


def _scaled(sign: int) -> Op:
    """`add(x, y, alpha=2)`, and `sub` with it."""
    name, rule = ("add", pointwise) if sign > 0 else ("sub", _without_booleans)

    def infer(b: Bound) -> Types:
        found = rule(b)
        if isinstance(b.attrs["alpha"], (float, Scalar)) and not found[0].is_float:
            fail("E202", f"`alpha` of `{b.op.name}` of integers is an integer", b.span, str(b.attrs["alpha"]))
        return found

    return Op(
        name,
        Kind.POINTWISE,
        signature("input: operand, other: operand, *, alpha: float = 1"),
        infer,
        f"torch.{name}",
        lower=lambda t, a, b, alpha: a + sign * (b * alpha),
        keeps=Keeps.NOTHING,
    )


def _rounded_division() -> Op:
    def infer(b: Bound) -> Types:
        if b.attrs["rounding_mode"] not in (None, "trunc", "floor"):
            told = f"this is {b.attrs['rounding_mode']!r}"
            fail("E202", '`rounding_mode` of `div` is "trunc", "floor" or none', b.span, told)
        return pointwise_float(b) if b.attrs["rounding_mode"] is None else pointwise_numeric(b)

    def lower(t: Tracer, a: Expr, b: Expr, rounding_mode: str | None) -> Expr:
        if rounding_mode is None:
            return a / b
        return _floor_divide(t, a, b) if rounding_mode == "floor" else _truncated(t, a, b)

    arguments = signature("input: operand, other: operand, *, rounding_mode: str? = none")
    return Op("div", Kind.POINTWISE, arguments, infer, "torch.div", lower=lower)


def _truncated(t: Tracer, a: Expr, b: Expr) -> Expr:
    return t.trunc(a / b) if _floating(a, b) else t.whole_quotient(a - t.fmod(a, b), b)


def _floating(*operands: Expr) -> bool:
    return is_floating(promote(x.operand for x in operands))


def _remainder(t: Tracer, a: Expr, b: Expr) -> Expr:
    """With the sign of the divisor, as Python has it; `fmod` has that of the dividend."""
    rest, divisor = t.fmod(a, b), _number(b)
    if divisor:
        return t.where(rest < 0 if divisor > 0 else rest > 0, rest + b, rest)
    return t.where(t.both(t.ne(rest, 0), t.ne(rest < 0, b < 0)), rest + b, rest)


def _floor_divide(t: Tracer, a: Expr, b: Expr) -> Expr:
    """By the remainder, which is exact, so that both agree where the quotient is nearly whole."""
    whole = a - _remainder(t, a, b)
    if not _floating(a, b):
        return t.whole_quotient(whole, b)
    return t.stop(t.where(t.eq(b, 0), a / b, t.whole(whole / b)))


binary("add", "+", "{0} + {1}", lambda t, g, y, a, b: (g, g), overloads=(_scaled(1),), keeps=Keeps.NOTHING)
binary(
    "sub",
    "-",
    "{0} - {1}",
    lambda t, g, y, a, b: (g, -g),
    _without_booleans,
    overloads=(_scaled(-1),),
    keeps=Keeps.NOTHING,
)
binary("mul", "*", "{0} * {1}", lambda t, g, y, a, b: (g * b, g * a))
binary(
    "div",
    "/",
    "{0} / {1}",
    lambda t, g, y, a, b: (g / b, -g * y / b),
    pointwise_float,
    overloads=(_rounded_division(),),
)
# Of whole numbers that divide exactly.
binary("whole_quotient", "//", "{0} // {1}", None)
binary("fmod", "torch.fmod", "tm.fmod({0}, {1})", lambda t, g, y, a, b: (g, -g * t.trunc(a / b)), pointwise_numeric,
       arguments="input: tensor, other: operand")  # fmt: skip
composite("remainder", "input: operand, other: operand", _remainder, pointwise_numeric, torch="%")
composite(
    "floor_divide",
    "input: operand, other: operand",
    _floor_divide,
    pointwise_numeric,
    # `//` of PyTorch has no gradient, not even zeros.
    torch=lambda texts, attrs: f'torch.div({texts[0]}, {texts[1]}, rounding_mode="floor")',
)


def _two_tensors(b: Bound) -> Types:
    for operand in b.inputs:
        if isinstance(operand, Scalar):
            bound = "min" if b.op.name == "maximum" else "max"
            told = f"this is the number {operand.text or operand.value}"
            fail(
                "E202",
                f"`{b.op.name}` is of two tensors",
                b.span,
                told,
                help=f"beside a number: `clamp(x, {bound}=...)`",
            )
    return pointwise(b)


for _name, _winner in (("maximum", lambda a, b: a > b), ("minimum", lambda a, b: a < b)):
    binary(
        _name,
        f"torch.{_name}",
        f"tm.{_name}({{0}}, {{1}})",
        lambda t, g, y, a, b, wins=_winner: (g * _share(t, a, b, wins), g * _share(t, b, a, wins)),
        _two_tensors,
    )


def _share(t: Tracer, a: Expr, b: Expr, wins: Callable[[Expr, Expr], Expr]) -> Expr:
    """1 where `a` wins, a half where they tie, as PyTorch shares the gradient."""
    return t.where(wins(a, b), 1.0, t.where(t.eq(a, b), 0.5, 0.0))


unary("neg", "-{0}", lambda t, g, y, x: (-g,), pointwise_numeric, torch="-x", keeps=Keeps.NOTHING)
unary("abs", "tl.abs({0})", lambda t, g, y, x: (g * t.sign(x),), pointwise_numeric)
unary("sign", "tm.sign({0})", None, pointwise)


def _pow(t: Tracer, x: Expr, exponent: Expr) -> Expr:
    """Powers by small whole numbers by multiplication, which is exact for negative bases too."""
    x = _number_of(t, x)
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


def _power_type(b: Bound) -> Types:
    found = pointwise_numeric(b)
    exponent = b.inputs[1]
    value = exponent.value if isinstance(exponent, Scalar) else None
    if not found[0].is_float and isinstance(value, int) and value < 0:
        told = f"{b.type(0)} to the power of {value}"
        fail("E205", "a negative power of integers is no integer", b.span, told, help="convert with `.float()`")
    return found


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
        _power_type,
        "**",
        lower=_pow,
        unfused=lambda b: not is_floating(promote(b.inputs)) and not isinstance(b.inputs[1], Scalar),
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


def _logical_and(t: Tracer, a: Expr, b: Expr) -> Expr:
    if a.type.dtype == b.type.dtype == "bool":
        return t.both(a, b)
    return t.ne(t.where(_truth(t, a), b, 0), 0)


def _logical_or(t: Tracer, a: Expr, b: Expr) -> Expr:
    if a.type.dtype == b.type.dtype == "bool":
        return t.either(a, b)
    return t.ne(t.where(_truth(t, a), 1, b), 0)


composite("logical_and", PAIR, _logical_and, pointwise_bool, torch="torch.logical_and")
composite("logical_or", PAIR, _logical_or, pointwise_bool, torch="torch.logical_or")
composite(
    "logical_not",
    "input: tensor",
    lambda t, x: t.opposite(_truth(t, x)),
    pointwise_bool,
    torch="torch.logical_not",
)
unary("isnan", "{0} != {0}", None, pointwise_bool)
composite("isinf", "input: tensor", lambda t, x: _is_infinite(t, x), pointwise_bool, torch="torch.isinf")
composite("isfinite", "input: tensor", lambda t, x: _is_finite(t, x), pointwise_bool, torch="torch.isfinite")


def _is_infinite(t: Tracer, x: Expr) -> Expr:
    return t.eq(t.abs(x), float("inf")) if x.type.is_float else t.ne(x, x)


def _is_finite(t: Tracer, x: Expr) -> Expr:
    return t.abs(x) < float("inf") if x.type.is_float else t.eq(x, x)


# Functions -----------------------------------------------------------------------------------------------------------

unary("exp", "tl.exp({0})", lambda t, g, y, x: (g * y,), keeps=Keeps.RESULT)
unary("exp2", "tl.exp2({0})", lambda t, g, y, x: (g * y * math.log(2),), keeps=Keeps.RESULT)
unary("expm1", "tm.expm1({0})", lambda t, g, y, x: (g * (y + 1.0),))
unary("log", "tl.log({0})", lambda t, g, y, x: (g / x,))
unary("log2", "tl.log2({0})", lambda t, g, y, x: (g / (x * math.log(2)),))
unary("log10", "tm.log10({0})", lambda t, g, y, x: (g / (x * math.log(10)),))
unary("log1p", "tm.log1p({0})", lambda t, g, y, x: (g / (x + 1.0),))
unary("sqrt", "tl.sqrt_rn({0})", lambda t, g, y, x: (g * 0.5 / y,), keeps=Keeps.RESULT)
unary("rsqrt", "tl.rsqrt({0})", lambda t, g, y, x: (g * -0.5 * y * y * y,), keeps=Keeps.RESULT)
unary("reciprocal", "1.0 / {0}", lambda t, g, y, x: (-g * y * y,), keeps=Keeps.RESULT)
unary("sin", "tl.sin({0})", lambda t, g, y, x: (g * t.cos(x),))
unary("cos", "tl.cos({0})", lambda t, g, y, x: (-g * t.sin(x),))
unary("tanh", "tm.tanh({0})", lambda t, g, y, x: (g * (1.0 - y * y),), keeps=Keeps.RESULT)
unary("erf", "tl.erf({0})", lambda t, g, y, x: (g * (2 / math.sqrt(math.pi)) * t.exp(-(x * x)),))
unary("sigmoid", "tl.sigmoid({0})", lambda t, g, y, x: (g * y * (1.0 - y),), keeps=Keeps.RESULT)
unary("asin", "tm.asin({0})", lambda t, g, y, x: (g * t.rsqrt(1.0 - x * x),))
unary("acos", "tm.acos({0})", lambda t, g, y, x: (-g * t.rsqrt(1.0 - x * x),))
unary("atan", "tm.atan({0})", lambda t, g, y, x: (g / (x * x + 1.0),))
unary("sinh", "tm.sinh({0})", lambda t, g, y, x: (g * t.cosh(x),))
unary("cosh", "tm.cosh({0})", lambda t, g, y, x: (g * t.sinh(x),))
composite("tan", "input: tensor", lambda t, x: t.sin(x) / t.cos(x), pointwise_float, torch="torch.tan")


def _atan2_vjp(t: Tracer, g: Expr, y: Expr, a: Expr, b: Expr) -> tuple[Expr, Expr]:
    over = g / (a * a + b * b)
    return b * over, -a * over


binary("atan2", "torch.atan2", "tm.atan2({0}, {1})", _atan2_vjp, pointwise_float, arguments=PAIR)


def _square_type(b: Bound) -> Types:
    (found,) = pointwise(b)
    return (TensorType("i64" if found.dtype == "bool" else found.dtype, found.shape),)


composite(
    "square", "input: tensor", lambda t, x: _number_of(t, x) * _number_of(t, x), _square_type, torch="torch.square"
)

# Rounding: no gradient, and integers stay as they are -----------------------------------------------------------------

unary("whole", "tm.whole({0})", None)
for _name, _triton in (("floor", "tl.floor"), ("ceil", "tl.ceil"), ("trunc", "tm.trunc")):
    unary(_name, f"{_triton}({{0}})", None, pointwise_numeric)


def _frac_type(b: Bound) -> Types:
    like_input_float(b)
    return pointwise(b)


composite("frac", "input: tensor", lambda t, x: x - t.trunc(x), _frac_type, torch="torch.frac")


def _round(t: Tracer, x: Expr, decimals: int) -> Expr:
    if not decimals:
        return t.whole(x)
    scale = 10.0 ** abs(decimals)
    return t.whole(x * scale) / scale if decimals > 0 else t.whole(x / scale) * scale


def _round_type(b: Bound) -> Types:
    return like_input_float(b) if b.attrs["decimals"] else pointwise_numeric(b)


composite("round", "input: tensor, *, decimals: int = 0", _round, _round_type, torch="torch.round")

internal("power", "both", "either", "opposite", "whole", "whole_quotient", "real", "integer")
