"""Pointwise ops that choose: `where`, `clamp`, `masked_fill`, `lerp`."""

from __future__ import annotations

from collections.abc import Callable

from tdsl.compiler.ir import Scalar, TensorType, Value
from tdsl.compiler.ops.elementwise import BINARY, composite
from tdsl.compiler.ops.infer import (
    broadcast,
    is_floating,
    pointwise,
    pointwise_numeric,
    promote,
    tensors,
)
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.dsl.diagnostics import fail


def _where_type(b: Bound) -> Types:
    if b.type(0).dtype not in ("bool", "u8"):
        told = str(b.type(0))
        fail("E205", "the condition of `where` is boolean", b.span, told, help="compare: `where(x > 0, a, b)`")
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


def _clamp_type(b: Bound) -> Types:
    bounds = [b.inputs[i] for i in (1, 2) if b.given(i)]
    if not bounds:
        fail("E202", "`clamp` needs `min` or `max`", b.span, help="`clamp(x, min=0)`")
    if len({isinstance(v, Value) for v in bounds}) == 2:
        fail("E202", "`min` and `max` of `clamp` are both numbers or both tensors", b.span)
    # Between two tensors PyTorch clamps numbers alone; a single one is a maximum or a minimum.
    return pointwise_numeric(b) if len(bounds) == 2 and isinstance(bounds[0], Value) else pointwise(b)


composite(
    "clamp", "input: tensor, min: operand? = none, max: operand? = none", _clamp, _clamp_type, torch="torch.clamp"
)


def _masked_fill_type(b: Bound) -> Types:
    x, mask, value = (b.type(i) for i in range(3))
    if mask.dtype != "bool":
        fail("E205", "the mask of `masked_fill` is boolean", b.span, str(mask), help="compare: `mask > 0`")
    if value.shape:
        fail("E203", "`masked_fill` fills in one number", b.span, str(value), help="`where(mask, value, x)`")
    return (TensorType(x.dtype, broadcast([x, mask], "masked_fill", b.span)),)


composite(
    "masked_fill",
    "input: tensor, mask: tensor, value: operand",
    lambda t, x, mask, value: t.where(mask, value, x),
    _masked_fill_type,
    torch=".masked_fill",
)


def _lerp_type(b: Bound) -> Types:
    x, end, weight = (b.type(i) for i in range(3))
    same = {_plain(x.dtype), _plain(end.dtype)} | ({_plain(weight.dtype)} if weight.shape else set())
    dtype = promote(b.inputs)
    if len(same) > 1:
        told = f"{x}, {end} and {weight}"
        fail("E205", "`lerp` is between tensors of one dtype", b.span, told, help="convert with `cast(x, dtype)`")
    if not is_floating(x.dtype if isinstance(b.inputs[2], Scalar) else dtype):
        fail("E205", "`lerp` needs floating-point values", b.span, str(x), help="convert with `.float()`")
    return (TensorType(dtype, broadcast(tensors(b), "lerp", b.span)),)


def _plain(dtype: str) -> str:
    return "f32" if dtype == "float" else dtype


composite(
    "lerp",
    "input: tensor, end: tensor, weight: operand",
    lambda t, a, b, w: a + w * (b - a),
    _lerp_type,
    torch="torch.lerp",
)

internal("at_least", "at_most")
