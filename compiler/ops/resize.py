"""Resizing: interpolation, and channels laid out as pixels."""

from __future__ import annotations

import math
from typing import Any

from tdsl.compiler.ir import Scalar, TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import known
from tdsl.compiler.ops.op import Bound, Types, library, movement
from tdsl.compiler.ops.spatial import below, divided, each, floating, shown
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

# How many dimensions each mode resizes.
MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
}
# Tensors of more elements than this along a dimension have no address.
MOST = 2.0**31
LINEAR = ("linear", "bilinear", "bicubic", "trilinear")


def _interpolate(b: Bound) -> Types:
    floating(b)
    x, a = b.type(0), b.attrs
    n = _dimensions(b)
    if (a["size"] is None) == (a["scale_factor"] is None):
        fail("E202", f"`{b.op.name}` needs either `size` or `scale_factor`", b.span)
    if a["size"] is not None:
        sizes = each(b, "size", n, 1)
        if a["recompute_scale_factor"]:
            fail("E202", "`recompute_scale_factor` goes with `scale_factor`, not with `size`", b.span)
    else:
        sizes = tuple(_scaled(b, size, scale) for size, scale in zip(x.shape[-n:], _scales(b, n)))
    return (TensorType(x.dtype, (*x.shape[:-n], *sizes)),)


def _dimensions(b: Bound) -> int:
    """How many dimensions are resized, where `mode` and its options allow it."""
    x, mode = b.type(0), b.attrs["mode"]
    if mode not in MODES:
        fail("E202", f"`mode` of `{b.op.name}` is one of {', '.join(MODES)}", b.span, f'this is "{mode}"')
    n = len(x.shape) - 2
    if n not in MODES[mode]:
        ranks = " or ".join(str(r + 2) for r in MODES[mode])
        fit = next((m for m in LINEAR if n in MODES[m]), None)
        help = f'here it is `mode="{fit}"`' if mode in LINEAR and fit else "the first two are batch and channels"
        fail("E203", f'`mode="{mode}"` resizes tensors of {ranks} dimensions', b.span, f"this is {x}", help=help)
    if b.attrs["align_corners"] is not None and mode not in LINEAR:
        help = f"leave it out, or choose one of {', '.join(LINEAR)}"
        fail("E202", f'`align_corners` does not go with `mode="{mode}"`', b.span, help=help)
    if b.attrs.get("antialias") and mode not in ("bilinear", "bicubic"):
        fail("E202", '`antialias` goes with `mode="bilinear"` and "bicubic" alone', b.span)
    return n


def _scales(b: Bound, n: int) -> tuple[float, ...]:
    given: Any = b.attrs["scale_factor"]
    scales = given if isinstance(given, tuple) else (given,) * n
    known_scales = tuple(_number(s) for s in scales)
    wrong = any(not isinstance(s, (int, float)) or isinstance(s, bool) or not 0 < s < MOST for s in known_scales)
    if len(scales) != n or wrong:
        fail(
            "E202", f"`scale_factor` is a positive number below 2^31, or {n} of them", b.span, f"this is {shown(given)}"
        )
    return known_scales


def _number(value: Any) -> Any:
    if isinstance(value, Scalar):
        return value.value
    return known(value) if isinstance(value, Size) else value


def _scaled(b: Bound, size: Size, scale: float) -> Size:
    """`floor(size * scale)`, as PyTorch computes it: in floating point."""
    number = known(size)
    if number is not None:
        return Size.of(math.floor(float(number) * scale))
    numerator, denominator = float(scale).as_integer_ratio()
    if denominator > 4096:
        help = "give the `size` that it is to have"
        fail("E208", f"can't tell what {size} times {scale} is, rounded down", b.span, str(b.type(0)), help=help)
    return size * numerator // denominator


def _factor(b: Bound, name: str) -> Size:
    factor = Size.of(b.attrs[name])  # type: ignore[arg-type]
    if below(factor, 1):
        fail("E202", f"`{name}` is at least 1", b.span, f"this is {factor}")
    if len(b.type(0).shape) < 3:
        fail("E203", f"`{b.op.name}` needs [..., channels, height, width]", b.span, f"this is {b.type(0)}")
    return factor


def _shuffle(b: Bound) -> Types:
    r, x = _factor(b, "upscale_factor"), b.type(0)
    *lead, channels, height, width = x.shape
    return (TensorType(x.dtype, (*lead, divided(b, "the channels", channels, r * r), height * r, width * r)),)


def _unshuffle(b: Bound) -> Types:
    r, x = _factor(b, "downscale_factor"), b.type(0)
    *lead, channels, height, width = x.shape
    sizes = (divided(b, "the rows", height, r), divided(b, "the columns", width, r))
    return (TensorType(x.dtype, (*lead, channels * r * r, *sizes)),)


_SIZES = (
    'size: sizes? = none, scale_factor: any = none, mode: str = "nearest", align_corners: bool? = none, '
    "recompute_scale_factor: bool? = none"
)
library("interpolate", f"input: tensor, {_SIZES}, antialias: bool = false", _interpolate, keeps=Keeps.NOTHING)
movement("pixel_shuffle", "input: tensor, upscale_factor: int", _shuffle)
movement("pixel_unshuffle", "input: tensor, downscale_factor: int", _unshuffle)
