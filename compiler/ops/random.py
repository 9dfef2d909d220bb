"""Random numbers, drawn by Philox from a seed and the element's index: a backward draws them again, none are stored."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import like_input, like_input_float
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.ops.trace import Expr, Tracer


def _everywhere(b: Bound) -> Types:
    return (TensorType("float", (ROWS, COLS)),)


for _name in ("uniform", "gaussian"):
    register(
        Op(
            _name,
            Kind.RANDOM,
            signature("*, stream: int = 0"),
            _everywhere,
            f"random.{_name}",
            "tm." + _name + "({seed}, offsets)",
            flops=40,
            doc="A draw an element, within kernels; `stream` tells the draws of one kernel apart.",
        )
    )


def _dropout(t: Tracer, x: Expr, p: Expr, *, stream: int) -> Expr:
    """`p` is 0 when not training, and everything is kept."""
    kept = t.uniform(stream=stream) >= p
    return t.where(kept, x / (1.0 - p), 0.0)


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
        flops=42,
    )
)
for _name, _draw in (("rand_like", "uniform"), ("randn_like", "gaussian")):
    register(
        Op(
            _name,
            Kind.RANDOM,
            signature("input: tensor"),
            like_input,
            f"torch.{_name}",
            lower=lambda t, x, *, stream, draw=_draw: t(draw, stream=stream),
            flops=40,
        )
    )

internal("uniform", "gaussian")
