"""Attention and positions."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import known, same
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.dsl.diagnostics import fail


def _attention(b: Bound) -> Types:
    q, k, v = b.type(0), b.type(1), b.type(2)
    for t in (q, k, v):
        if len(t.shape) != 4:
            fail("E203", "`attention` needs [B, heads, T, D]", b.span, str(t))
    if not (same(q.shape[3], k.shape[3]) and same(k.shape[2], v.shape[2]) and same(k.shape[1], v.shape[1])):
        fail("E203", "shapes do not match in `attention`", b.span, f"q {q}, k {k}, v {v}")
    heads, groups = known(q.shape[1]), known(k.shape[1])
    if not same(q.shape[1], k.shape[1]) and (heads is None or groups is None or heads % groups):
        fail("E203", "the heads of q are no multiple of those of k", b.span, f"{q.shape[1]} and {k.shape[1]}")
    return (TensorType(q.dtype, (*q.shape[:3], v.shape[3])),)


def _attention_text(texts: list[str], attrs: dict[str, Any]) -> str:
    q, k, v = texts[:3]
    causal = ", is_causal=True" if attrs["causal"] else ""
    scale = "" if attrs["scale"] is None else f", scale={attrs['scale']}"
    grouped = ", enable_gqa=True" if attrs["grouped"] else ""
    return f"F.scaled_dot_product_attention({q}, {k}, {v}{causal}{scale}{grouped})"


library(
    "attention",
    "q: tensor, k: tensor, v: tensor, causal: bool = false, scale: float? = none, grouped: bool = false",
    _attention,
    _attention_text,
)


def _rope(b: Bound) -> Types:
    x = b.type(0)
    if len(x.shape) < 2 or not x.is_float:
        fail("E203", "`rope` needs float[..., T, D]", b.span, str(x))
    if (known(x.shape[-1]) or 0) % 2:
        fail("E203", "`rope` turns dimensions in pairs", b.span, f"{x} has an odd last size")
    return (x,)


library("rope", "input: tensor, base: float = 10000.0, offset: int = 0", _rope, "nn_functions.rope")
