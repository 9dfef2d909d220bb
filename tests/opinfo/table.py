"""Which of PyTorch's samples belong to which name of the language, and which samples the language has no words for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any
from unittest import mock

# The functions of the language's built-in names, by family. Layers, optimizers, metrics and the like have no samples.
FAMILIES: Mapping[str, str] = {
    "pointwise": """
        add sub mul div floor_divide remainder pow neg abs sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square
        reciprocal sin cos tan asin acos atan atan2 sinh cosh tanh erf floor ceil round trunc frac clamp minimum
        maximum lerp fmod logical_and logical_or logical_not isnan isinf isfinite eq ne lt le gt ge
        cast float int bool to
        sum mean prod max min amax amin argmax argmin var std norm logsumexp all any cumsum cumprod topk sort median
        relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid hardsigmoid hardswish hardtanh softplus softsign
        softmax log_softmax glu prelu threshold
    """,
    "shape": """
        tensor zeros ones full arange linspace eye tril triu rand randn randint zeros_like ones_like full_like rand_like
        randn_like one_hot
        reshape view flatten unflatten transpose permute squeeze unsqueeze expand repeat_interleave cat stack split
        chunk unbind narrow select gather scatter index_select roll flip pad masked_fill where tile movedim
        index T rearrange reduce repeat size matmul mm bmm einsum outer dot
    """,
    "nn": """
        linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d max_pool1d max_pool2d avg_pool1d
        avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d layer_norm rms_norm group_norm batch_norm
        instance_norm local_response_norm embedding embedding_bag interpolate pixel_shuffle dropout dropout2d
        attention rope alibi detach grad
        mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss binary_cross_entropy
        binary_cross_entropy_with_logits kl_div triplet_margin_loss margin_ranking_loss cosine_embedding_loss
        hinge_embedding_loss multi_margin_loss gaussian_nll_loss poisson_nll_loss ctc_loss
    """,
}

# Names of which op_db has no samples.
WITHOUT: Mapping[str, str] = {
    "tensor": "a literal",
    "rand": "no OpInfo",
    "size": "not a tensor",
    "rearrange": "from einops",
    "reduce": "from einops",
    "rope": "the language's own",
    "alibi": "the language's own",
    "detach": "no OpInfo",
    "grad": "not an operator",
}

# Where the samples of a name are not (only) under that name or `nn.functional.` and it.
ENTRIES: Mapping[str, tuple[str, ...]] = {
    "add": ("add", "__radd__"),
    "sub": ("sub", "__rsub__"),
    "mul": ("mul", "__rmul__"),
    "div": ("div.no_rounding_mode", "div.trunc_rounding", "div.floor_rounding", "__rdiv__"),
    "pow": ("pow", "__rpow__"),
    "remainder": ("remainder", "__rmod__"),
    "matmul": ("matmul", "__rmatmul__"),
    "cast": ("to",),
    "int": ("long",),
    "index": ("__getitem__",),
    "T": ("mT",),
    "attention": ("nn.functional.scaled_dot_product_attention",),
}

# Entries of these names that are left out whole.
LEFT_OUT: Mapping[str, str] = {
    "norm.nuc": "nuclear norms are of torch.linalg",
    "nn.functional.batch_norm.without_cudnn": "the samples of batch_norm again, for a GPU alone",
    "nn.functional.silu.complex": "complex numbers",
}

# Why samples are skipped: each is counted in the printout, and none counts as passed.
REASONS: Mapping[str, str] = {
    "complex": "complex numbers",
    "mask": "a boolean mask as an index has no static shape",
    "out": "an argument `out=`",
    "generator": "an argument `generator=`",
    "memory": "memory formats other than the present one",
    "in place": "in place",
    "classes": "`one_hot` without a number of classes has no static shape",
    "counts": "counts that are a tensor give no static shape",
    "sparse": "sparse gradients",
    "renorm": "`max_norm` changes the weights in place",
    "random": "random beyond the seed that both draw from",
    "legacy": "`size_average` and `reduce`, deprecated in PyTorch",
    "rank": "attention is on [B, H, T, D]",
}


class Skip(Exception):
    """A sample that the language has no words for, by its key in `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(REASONS[reason])
        self.reason = REASONS[reason]


@cache
def op_db() -> Mapping[str, Any]:
    """PyTorch's OpInfos by name, a variant's name after a dot. Reading them takes seconds."""
    import torch

    # Its tests keep each other from setting flags as a training run does; the tests after these here are to set them.
    with mock.patch.object(torch.backends, "disable_global_flags"):
        infos = importlib.import_module("torch.testing._internal.common_methods_invocations").op_db
    assert not torch.backends.flags_frozen()
    return {f"{i.name}.{i.variant_test_name}".rstrip("."): i for i in infos}


def names() -> dict[str, str]:
    """Each function of the language, those beyond its list of built-in names too, with its family."""
    from tdsl.compiler.ops import OPS
    from tdsl.compiler.ops.op import INTERNAL

    found = {name: family for family, text in FAMILIES.items() for name in text.split()}
    more = [name for name in OPS if name not in INTERNAL and name not in found]
    return found | {name: _family(OPS[name]) for name in sorted(more) if entries(name)}


_MODULES = {
    **dict.fromkeys("elementwise choice activation rows reduce scan order convert infer".split(), "pointwise"),
    **dict.fromkeys("shape index create random linalg".split(), "shape"),
}


def _family(op: Any) -> str:
    return _MODULES.get(op.infer.__module__.rpartition(".")[2], "nn")


def entries(name: str) -> list[str]:
    """The keys of `op_db` whose samples are samples of a name."""
    if name in ENTRIES:
        return [key for key in ENTRIES[name] if key in op_db()]
    wanted = (name, f"nn.functional.{name}")
    return [key for key, info in op_db().items() if info.name in wanted and key not in LEFT_OUT]
