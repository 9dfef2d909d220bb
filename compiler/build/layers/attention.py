"""`MultiheadAttention`: `y, weights = attn(q, k, v)`; `weights` is `none` with `need_weights=false`."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.build.layers.layer import Args, layer, size
from tdsl.compiler.ir import Attr, Shape
from tdsl.compiler.ops.infer import known
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import Span, fail


def _width(a: Args, name: str) -> Size:
    return size(a["embed_dim"] if a[name] is None else a[name])


def _weights(a: Args) -> Mapping[str, Shape]:
    """One matrix for all three where they are of one width, else three, and what is appended to keys and values."""
    width = size(a["embed_dim"])
    found: dict[str, Shape] = {}
    if _width(a, "kdim") == width and _width(a, "vdim") == width:
        found["in_proj_weight"] = (width * 3, width)
    else:
        found["q_proj_weight"] = (width, width)
        found["k_proj_weight"] = (width, _width(a, "kdim"))
        found["v_proj_weight"] = (width, _width(a, "vdim"))
    if a["bias"]:
        found["in_proj_bias"] = (width * 3,)
    if a["add_bias_kv"]:
        found |= dict.fromkeys(("bias_k", "bias_v"), (Size.of(1), Size.of(1), width))
    return found


def _check(a: Args, span: Span) -> None:
    width, heads = known(size(a["embed_dim"])), known(size(a["num_heads"]))
    for name, number in (("embed_dim", width), ("num_heads", heads)):
        if number is not None and number < 1:
            fail("E202", f"`{name}` is at least 1", span, f"this is {number}")
    if width is not None and heads is not None and width % heads:
        fail("E203", "`embed_dim` does not divide into `num_heads`", span, f"{width} into {heads}")


def _attrs(a: Args) -> Mapping[str, Attr]:
    names = ("embed_dim", "num_heads", "kdim", "vdim", "batch_first", "add_bias_kv", "add_zero_attn")
    return {name: a[name] for name in names}


layer(
    "MultiheadAttention",
    "embed_dim: size, num_heads: size, dropout: float = 0.0, bias: bool = true, add_bias_kv: bool = false, "
    "add_zero_attn: bool = false, kdim: size? = none, vdim: size? = none, batch_first: bool = false",
    "multihead_attention",
    more=_weights,
    attrs=_attrs,
    inputs="query: tensor, key: tensor, value: tensor, key_padding_mask: tensor? = none, need_weights: bool = true, "
    "attn_mask: tensor? = none, average_attn_weights: bool = true, is_causal: bool = false",
    infer={"embed_dim": (0, -1), "kdim": (1, -1), "vdim": (2, -1)},
    parts={
        "out_proj": (
            "Linear",
            lambda a: {"in_features": a["embed_dim"], "out_features": a["embed_dim"], "bias": a["bias"]},
        )
    },
    check=_check,
)
