"""Look-ups in a table of vectors."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.dsl.diagnostics import fail


def _embedding(b: Bound) -> Types:
    tokens, weight = b.type(0), b.type(1)
    if tokens.is_float:
        fail("E205", "`embedding` looks up integers", b.span, str(tokens))
    if len(weight.shape) != 2:
        fail("E203", "the weight of `embedding` is a matrix [entries, width]", b.span, str(weight))
    return (TensorType(weight.dtype, (*tokens.shape, weight.shape[1])),)


library("embedding", "input: tensor, weight: tensor, padding_idx: int? = none", _embedding)
