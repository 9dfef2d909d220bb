"""Random numbers, drawn by Philox from a seed and the element's index: a backward draws them again, none are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.bounds import at_most
from tdsl.compiler.ops.create import OPTIONS, made, number, options, shape_of
from tdsl.compiler.ops.infer import like_input_float
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, library, register, signature
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _everywhere(b: Bound) -> Types:
    return (TensorType("float", (ROWS, COLS)),)


for _name, _call, _flops in (
    ("uniform", "uniform{rows}({seed}, {first})", 15),
    ("gaussian", "gaussian({seed}, offsets)", 60),
):
    register(
        Op(
            _name,
            Kind.RANDOM,
            signature("*, stream: int = 0"),
            _everywhere,
            f"random.{_name}",
            f"tm.{_call}",
            flops=_flops,
            doc="A draw an element, within kernels; `stream` tells the draws of one kernel apart.",
        )
    )


def _dropout(t: Tracer, x: Expr, p: Expr, *, stream: int) -> Expr:
    """`p` is 0 when not training, and everything is kept; where it is 1, nothing is, and the gradient is 0."""
    kept = t.uniform(stream=stream) >= p
    return x / t.where(kept, 1.0 - p, float("inf"))


def _dropout_text(texts: list[str], attrs: dict[str, Any]) -> str:
    x, p = texts
    rate, conditional, rest = p.partition(" if ")
    return f"F.dropout({x}, {rate}, {rest.removesuffix(' else 0.0')})" if conditional else f"F.dropout({x}, {p})"


register(
    Op(
        "dropout",
        Kind.RANDOM,
        signature("input: tensor, p: operand = 0.5"),
        like_input_float,
        _dropout_text,
        lower=_dropout,
        flops=17,
    )
)


def _like(b: Bound) -> Types:
    return _checked(b, made(b, b.type(0).shape, b.type(0).dtype))


def _checked(b: Bound, types: Types) -> Types:
    if not types[0].is_float:
        fail("E205", f"`{b.op.name}` draws fractions", b.span, str(types[0]), help="say the dtype: `dtype=float`")
    return types


for _name, _draw in (("rand_like", "uniform"), ("randn_like", "gaussian")):
    register(
        Op(
            _name,
            Kind.RANDOM,
            signature("input: tensor, *, dtype: dtype? = none"),
            _like,
            f"torch.{_name}",
            lower=lambda t, x, *, stream, dtype, draw=_draw: t(draw, stream=stream),
            flops=40,
        )
    )


# Drawn by PyTorch ----------------------------------------------------------------------------------------------------


def _drawn(b: Bound) -> Types:
    return _checked(b, made(b, shape_of(b, "size")))


def _bounds(attrs: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """`low`, `high` and `size` of `randint`, whose first argument may be left out."""
    low, high, size = attrs["low"], attrs["high"], attrs["size"]
    return (0, low, high) if size is None else (0 if low is None else low, high, size)


def _integers(b: Bound) -> Types:
    low, high, size = _bounds(b.attrs)
    if not isinstance(low, (int, Size)) or not isinstance(high, (int, Size)) or not isinstance(size, tuple):
        fail("E202", "`randint` takes `low`, `high` and a list of sizes", b.span, help="as in `randint(0, 10, (B,))`")
    if at_most(high, low):
        fail("E203", "`randint` draws from low up to high", b.span, f"{low} is not below {high}")
    attrs = {**b.attrs, "size": size}
    return made(b, shape_of(Bound(b.op, b.inputs, attrs, b.span), "size"), "i64")


def _integers_text(texts: list[str], attrs: dict[str, Any]) -> str:
    low, high, size = _bounds(attrs)
    sizes = ", ".join(map(number, size)) + ("," if len(size) == 1 else "")
    return f"torch.randint({number(low)}, {number(high)}, ({sizes}){options(attrs)})"


for _name in ("rand", "randn"):
    library(_name, f"*size: size, {OPTIONS}", _drawn, f"torch.{_name}", effects=True)
library(
    "randint",
    f"low: any = none, high: any = none, size: any = none, {OPTIONS}",
    _integers,
    _integers_text,
    effects=True,
)

internal("uniform", "gaussian")
