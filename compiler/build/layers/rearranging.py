"""Layers that move, resize or pass on what they are given, and dropout."""

from __future__ import annotations

from tdsl.compiler.build.layers.layer import layer

layer("Flatten", "start_dim: int = 1, end_dim: int = -1", "flatten")
layer("Unflatten", "dim: int, unflattened_size: shape", "unflatten", attrs=lambda a: {"sizes": a["unflattened_size"]})
layer("Identity", "", "identity")
layer(
    "Upsample",
    'size: sizes? = none, scale_factor: any = none, mode: str = "nearest", align_corners: bool? = none, '
    "recompute_scale_factor: bool? = none",
    "interpolate",
)
layer("PixelShuffle", "upscale_factor: int", "pixel_shuffle")
layer("PixelUnshuffle", "downscale_factor: int", "pixel_unshuffle")
for _name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"):
    layer(_name, "p: float = 0.5, inplace: bool = false", _name.lower())
