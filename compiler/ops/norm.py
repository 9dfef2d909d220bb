"""Normalisation over a batch, which PyTorch's own layers do."""

from __future__ import annotations

from tdsl.compiler.ops.infer import same
from tdsl.compiler.ops.op import Bound, Types, internal, library
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _batch_norm(b: Bound) -> Types:
    x = b.type(0)
    ranks, features = b.attrs["ranks"], b.attrs["features"]
    if len(x.shape) not in ranks or not same(x.shape[1], Size.of(features)):  # type: ignore[operator,arg-type]
        fail("E203", f"batch norm over {features} features of another shape", b.span, str(x))
    return (x,)


library(
    "batch_norm",
    "input: tensor, weight: tensor? = none, bias: tensor? = none, features: any = none, ranks: any = none",
    _batch_norm,
)

internal("batch_norm")
