"""Products with a weight, and look-ups."""

from __future__ import annotations

from tdsl.compiler.build.layers.layer import Args, layer, one_of, size, where
from tdsl.compiler.ops.infer import known
from tdsl.dsl.diagnostics import Span, fail

layer(
    "Linear",
    "in_features: size, out_features: size, bias: bool = true",
    "linear",
    {
        "weight": lambda a: (size(a["out_features"]), size(a["in_features"])),
        "bias": where("bias", lambda a: (size(a["out_features"]),)),
    },
    infer={"in_features": (0, -1)},
)
layer(
    "Bilinear",
    "in1_features: size, in2_features: size, out_features: size, bias: bool = true",
    "bilinear",
    {
        "weight": lambda a: (size(a["out_features"]), size(a["in1_features"]), size(a["in2_features"])),
        "bias": where("bias", lambda a: (size(a["out_features"]),)),
    },
    inputs="input1: tensor, input2: tensor",
    infer={"in1_features": (0, -1), "in2_features": (1, -1)},
)


def _embedding(a: Args, span: Span) -> None:
    rows, index = known(size(a["num_embeddings"])), a["padding_idx"]
    if rows is not None and isinstance(index, int) and not -rows <= index < rows:
        fail("E204", f"`padding_idx` is outside the {rows} rows", span, f"this is {index}")
    if a["sparse"]:
        help = "leave `sparse` out"
        fail("E206", "embeddings have no sparse gradients: no optimizer here takes them", span, help=help)
    if "mode" in a:
        one_of(a, "mode", ("sum", "mean", "max"), span)


_TABLE = {"weight": lambda a: (size(a["num_embeddings"]), size(a["embedding_dim"]))}
_RENORM = "max_norm: float? = none, norm_type: float = 2.0, scale_grad_by_freq: bool = false"
layer(
    "Embedding",
    f"num_embeddings: size, embedding_dim: size, padding_idx: int? = none, {_RENORM}, sparse: bool = false",
    "embedding",
    _TABLE,
    check=_embedding,
)
layer(
    "EmbeddingBag",
    f'num_embeddings: size, embedding_dim: size, {_RENORM}, mode: str = "mean", sparse: bool = false, '
    "include_last_offset: bool = false, padding_idx: int? = none",
    "embedding_bag",
    _TABLE,
    inputs="input: tensor, offsets: tensor? = none, per_sample_weights: tensor? = none",
    check=_embedding,
)
