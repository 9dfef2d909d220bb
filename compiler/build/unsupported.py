"""Names of the language that this version does not have yet: an error says so instead of calling them unknown."""

from __future__ import annotations

from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.ops.op import OPS

_FUNCTIONS = """
    zeros ones full arange linspace eye tril triu rand randn randint zeros_like ones_like full_like rand_like
    randn_like one_hot unflatten repeat_interleave split unbind narrow select gather scatter index_select roll flip
    pad tile movedim tan asin acos atan atan2 sinh cosh round trunc frac fmod remainder isinf isfinite prod max min
    median cumsum cumprod topk sort all any einsum outer dot glu prelu threshold reduce repeat alibi grad conv1d
    conv3d conv_transpose1d conv_transpose2d max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool2d
    group_norm batch_norm instance_norm interpolate margin_ranking_loss cosine_embedding_loss hinge_embedding_loss
    multi_margin_loss gaussian_nll_loss ctc_loss
"""
_LAYERS = """
    Bilinear Conv1d Conv3d ConvTranspose1d ConvTranspose2d EmbeddingBag GroupNorm BatchNorm3d InstanceNorm1d
    InstanceNorm2d LocalResponseNorm Dropout2d MaxPool1d AvgPool1d AdaptiveAvgPool1d AdaptiveMaxPool2d Unflatten
    Upsample PixelShuffle MultiheadAttention LSTM GRU RNN GLU PReLU Threshold
"""


def is_unsupported(name: str) -> bool:
    """Whether the language has this name and this version has not."""
    return name in {*_FUNCTIONS.split(), *_LAYERS.split()} and name not in OPS and name not in LAYERS
