"""Convolutions and pooling: left to cuDNN."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import same
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


def _window(size: Size, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Size:
    return (size + Size.of(padding) * 2 - Size.of(dilation) * (Size.of(kernel) - 1) - 1) // Size.of(stride) + 1


def _image(b: Bound) -> TensorType:
    x = b.type(0)
    if len(x.shape) != 4 or not x.is_float:
        fail("E203", f"`{b.op.name}` needs images float[B, channels, height, width]", b.span, str(x))
    return x


def _conv2d(b: Bound) -> Types:
    x, weight = _image(b), b.type(1)
    a = b.attrs
    groups = a["groups"]
    if not same(x.shape[1], weight.shape[1] * Size.of(groups)):  # type: ignore[arg-type]
        wanted = weight.shape[1] * Size.of(groups)  # type: ignore[arg-type]
        fail("E203", "channels do not match in `conv2d`", b.span, f"{x} has {x.shape[1]} channels, not {wanted}")
    kernel = weight.shape[2:]
    if a["padding"] == "same":
        return (TensorType(x.dtype, (x.shape[0], weight.shape[0], *x.shape[2:])),)
    padding = _pair(0 if a["padding"] == "valid" else a["padding"])
    sizes = zip(x.shape[2:], kernel, _pair(a["stride"]), padding, _pair(a["dilation"]))
    return (TensorType(x.dtype, (x.shape[0], weight.shape[0], *(_window(*s) for s in sizes))),)


def _pool(b: Bound) -> Types:
    x, a = _image(b), b.attrs
    kernel = _pair(a["kernel_size"])
    stride = kernel if a["stride"] is None else _pair(a["stride"])
    sizes = zip(x.shape[2:], kernel, stride, _pair(a["padding"]), _pair(a.get("dilation", 1)))
    return (TensorType(x.dtype, (*x.shape[:2], *(_window(*s) for s in sizes))),)


def _adaptive(b: Bound) -> Types:
    x = _image(b)
    sizes = tuple(s if w is None else Size.of(w) for s, w in zip(x.shape[2:], _pair(b.attrs["output_size"])))
    return (TensorType(x.dtype, (*x.shape[:2], *sizes)),)


library(
    "conv2d",
    "input: tensor, weight: tensor, bias: tensor? = none, stride: sizes = 1, padding: any = 0, dilation: sizes = 1, "
    "groups: int = 1",
    _conv2d,
)
library(
    "max_pool2d",
    "input: tensor, kernel_size: sizes, stride: sizes? = none, padding: sizes = 0, dilation: sizes = 1",
    _pool,
)
library("avg_pool2d", "input: tensor, kernel_size: sizes, stride: sizes? = none, padding: sizes = 0", _pool)
library("adaptive_avg_pool2d", "input: tensor, output_size: sizes", _adaptive)
