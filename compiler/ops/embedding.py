"""Look-ups in a table of vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import known, same_shape
from tdsl.compiler.ops.op import Bound, Types, movement
from tdsl.compiler.ops.spatial import shown
from tdsl.dsl.diagnostics import fail


def _table(b: Bound) -> TensorType:
    """The table; what is looked up are integers, and `padding_idx` is one of its rows."""
    tokens, weight = b.type(0), b.type(1)
    if tokens.dtype not in ("i64", "i32"):
        help = "convert with `.int()`" if not tokens.is_float else None
        fail("E205", f"`{b.op.name}` looks up integers", b.span, str(tokens), help=help)
    if len(weight.shape) != 2:
        fail("E203", f"the weight of `{b.op.name}` is a matrix [entries, width]", b.span, str(weight))
    rows, index = known(weight.shape[0]), b.attrs["padding_idx"]
    if rows is not None and isinstance(index, int) and not -rows <= index < rows:
        fail("E204", f"`padding_idx` of `{b.op.name}` is outside its {rows} rows", b.span, f"this is {index}")
    if b.attrs["sparse"]:
        help = "leave `sparse` out"
        fail("E206", f"`{b.op.name}` has no sparse gradients: no optimizer here takes them", b.span, help=help)
    return weight


def _embedding(b: Bound) -> Types:
    weight = _table(b)
    return (TensorType(weight.dtype, (*b.type(0).shape, weight.shape[1])),)


def _embedding_bag(b: Bound) -> Types:
    weight, x = _table(b), b.type(0)
    if b.attrs["mode"] not in ("sum", "mean", "max"):
        fail("E202", '`mode` of `embedding_bag` is "sum", "mean" or "max"', b.span, shown(b.attrs["mode"]))
    if b.given(3):
        _weighted(b)
    if len(x.shape) == 2:
        if b.given(2):
            fail("E202", "`offsets` of `embedding_bag` go with tokens [N]: here each row is a bag", b.span, str(x))
        return (TensorType(weight.dtype, (x.shape[0], weight.shape[1])),)
    if len(x.shape) != 1:
        fail("E203", "`embedding_bag` needs int[B, N], or int[N] with `offsets`", b.span, f"this is {x}")
    if not b.given(2):
        fail("E202", "`embedding_bag` of int[N] needs `offsets`, where each bag begins", b.span, f"this is {x}")
    offsets = b.type(2)
    if len(offsets.shape) != 1 or offsets.dtype not in ("i64", "i32"):
        fail("E203", "`offsets` of `embedding_bag` is int[bags]", b.span, f"this is {offsets}")
    bags = offsets.shape[0] - 1 if b.attrs["include_last_offset"] else offsets.shape[0]
    return (TensorType(weight.dtype, (bags, weight.shape[1])),)


def _weighted(b: Bound) -> None:
    """A weight for each token, of sums alone."""
    if b.attrs["mode"] != "sum":
        fail("E202", '`per_sample_weights` of `embedding_bag` needs `mode="sum"`', b.span)
    if not same_shape(b.type(3).shape, b.type(0).shape) or not b.type(3).is_float:
        fail("E203", "`per_sample_weights` is float, a number a token", b.span, f"{b.type(3)} for {b.type(0)}")


def _bag_arguments(texts: Sequence[str], attrs: Mapping[str, Any]) -> list[str]:
    """Those of `nn.EmbeddingBag`: what is looked up, where bags begin, and weights of tokens."""
    tokens, _, offsets, weights = texts
    found = [tokens] if offsets == "None" else [tokens, offsets]
    return found if weights == "None" else [*found, f"per_sample_weights={weights}"]


_RENORM = "max_norm: float? = none, norm_type: float = 2.0, scale_grad_by_freq: bool = false"
movement(
    "embedding",
    f"input: tensor, weight: tensor, padding_idx: int? = none, {_RENORM}, sparse: bool = false",
    _embedding,
    looks_up=1,
    keeps=Keeps.PLACES,
)
movement(
    "embedding_bag",
    f'input: tensor, weight: tensor, offsets: tensor? = none, {_RENORM}, mode: str = "mean", sparse: bool = false, '
    "per_sample_weights: tensor? = none, include_last_offset: bool = false, padding_idx: int? = none",
    _embedding_bag,
    arguments=_bag_arguments,
    looks_up=1,
    keeps=Keeps.PLACES,
)
