"""Normalisation."""

from __future__ import annotations

from collections.abc import Callable

from tdsl.compiler.build.layers.layer import Args, Shapes, layer, size, sizes, where
from tdsl.compiler.ops.infer import known
from tdsl.dsl.diagnostics import Span, fail


def _normalized(a: Args) -> dict[str, object]:
    return {"normalized_shape": sizes(a["normalized_shape"])}


layer(
    "LayerNorm",
    "normalized_shape: sizes, eps: float = 1e-5, elementwise_affine: bool = true, bias: bool = true",
    "layer_norm",
    {
        "weight": where("elementwise_affine", lambda a: sizes(a["normalized_shape"])),
        "bias": lambda a: sizes(a["normalized_shape"]) if a["elementwise_affine"] and a["bias"] else None,
    },
    attrs=_normalized,
    infer={"normalized_shape": (0, -1)},
)
layer(
    "RMSNorm",
    "normalized_shape: sizes, eps: float? = none, elementwise_affine: bool = true",
    "rms_norm",
    {"weight": where("elementwise_affine", lambda a: sizes(a["normalized_shape"]))},
    attrs=_normalized,
    infer={"normalized_shape": (0, -1)},
)


def _scales(channels: str) -> Shapes:
    vector = where("affine", lambda a: (size(a[channels]),))
    return {"weight": vector, "bias": vector}


_MEAN = where("track_running_stats", lambda a: (size(a["num_features"]),))
_RUNNING = {"running_mean": _MEAN, "running_var": _MEAN}


def _grouped(a: Args, span: Span) -> None:
    groups, channels = known(size(a["num_groups"])), known(size(a["num_channels"]))
    if groups is not None and channels is not None and (groups < 1 or channels % groups):
        fail("E203", "`num_channels` does not divide into `num_groups`", span, f"{channels} into {groups}")


layer(
    "GroupNorm",
    "num_groups: size, num_channels: size, eps: float = 1e-5, affine: bool = true",
    "group_norm",
    _scales("num_channels"),
    infer={"num_channels": (0, 1)},
    check=_grouped,
)
layer(
    "LocalResponseNorm",
    "size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0",
    "local_response_norm",
)


def _running(ranks: tuple[int, ...]) -> Callable[[Args], dict[str, object]]:
    """The layer has the running numbers itself."""
    return lambda a: {"ranks": ranks}


for _n, _ranks in ((1, (2, 3)), (2, (4,)), (3, (5,))):
    layer(
        f"BatchNorm{_n}d",
        "num_features: size, eps: float = 1e-5, momentum: float? = 0.1, affine: bool = true, "
        "track_running_stats: bool = true",
        "batch_norm_layer",
        _scales("num_features"),
        attrs=_running(_ranks),
        infer={"num_features": (0, 1)},
        buffers=_RUNNING,
        joins=True,
    )
    layer(
        f"InstanceNorm{_n}d",
        "num_features: size, eps: float = 1e-5, momentum: float = 0.1, affine: bool = false, "
        "track_running_stats: bool = false",
        "instance_norm_layer",
        _scales("num_features"),
        attrs=_running((_n + 1, _n + 2)),
        infer={"num_features": (0, -_n - 1)},
        buffers=_RUNNING,
    )
