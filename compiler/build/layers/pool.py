"""Pooling."""

from __future__ import annotations

from tdsl.compiler.build.layers.layer import layer

_WINDOW = "kernel_size: sizes, stride: sizes? = none, padding: sizes = 0"
for _n in (1, 2, 3):
    layer(
        f"MaxPool{_n}d",
        f"{_WINDOW}, dilation: sizes = 1, return_indices: bool = false, ceil_mode: bool = false",
        f"max_pool{_n}d",
    )
    layer(
        f"AvgPool{_n}d",
        f"{_WINDOW}, ceil_mode: bool = false, count_include_pad: bool = true"
        + (", divisor_override: int? = none" if _n > 1 else ""),
        f"avg_pool{_n}d",
    )
    layer(f"AdaptiveAvgPool{_n}d", "output_size: any", f"adaptive_avg_pool{_n}d")
    layer(f"AdaptiveMaxPool{_n}d", "output_size: any, return_indices: bool = false", f"adaptive_max_pool{_n}d")
