"""Casts between float32 and a run's lower precision, which `place_casts` puts in; no program names them."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.ops.trace import Expr, Tracer


def _widened(b: Bound) -> Types:
    return (TensorType("f32", b.type(0).shape),)


def _narrowed(b: Bound) -> Types:
    return (TensorType("float", b.type(0).shape),)


def _unchanged(t: Tracer, x: Expr, **attrs: object) -> Expr:
    """Kernels compute in float32 whatever they read and write."""
    return x


def _to(texts: list[str], attrs: dict[str, Any]) -> str:
    return f"{texts[0]}.to({attrs['dtype'].text})"


register(
    Op(
        "upcast",
        Kind.POINTWISE,
        signature("input: tensor, dtype: any"),
        _widened,
        lambda texts, attrs: f"{texts[0]}.float()",
        lower=_unchanged,
        flops=0,
        keeps=Keeps.NOTHING,
        doc="To float32, from `dtype`.",
    )
)
register(
    Op(
        "downcast",
        Kind.POINTWISE,
        signature("input: tensor, dtype: any"),
        _narrowed,
        _to,
        lower=_unchanged,
        flops=0,
        keeps=Keeps.NOTHING,
        doc="From float32 to `dtype`, which is a scalar with PyTorch's name of it.",
    )
)
internal("upcast", "downcast")
