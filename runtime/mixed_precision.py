"""Layers of `torch.nn` whose parameters stay in float32 while tensors of a lower precision go through.

Products are computed in the precision of the input, with copies of the weights in it (`low_precision`). Normalisations
and recurrent layers are computed in float32, and their results cast back. Names, arguments and `state_dict`s are
PyTorch's. Gradients of the weights are in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdsl.runtime.linears import linears as linears
from tdsl.runtime.low_precision import cast


def _like(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    return None if parameter is None else cast(parameter, x.dtype)


# Products ------------------------------------------------------------------------------------------------------------


class Linear(nn.Linear):
    """x: [..., in_features] -> [..., out_features], of x's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        return linears(input, self)


class Bilinear(nn.Bilinear):
    """[..., in1_features], [..., in2_features] -> [..., out_features], of the first input's dtype."""

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, cast(self.weight, input1.dtype), _like(self.bias, input1))


class _Convolution(nn.Module):
    """The convolutions of PyTorch keep theirs, with the weights as arguments, in `_conv_forward`."""

    def forward(self, input: Tensor) -> Tensor:
        made: Any = self
        found: Tensor = made._conv_forward(input, cast(made.weight, input.dtype), _like(made.bias, input))
        return found


class Conv1d(_Convolution, nn.Conv1d):
    """x: [B, in_channels, L] -> [B, out_channels, L'], of x's dtype."""


class Conv2d(_Convolution, nn.Conv2d):
    """x: [B, in_channels, H, W] -> [B, out_channels, H', W'], of x's dtype."""


class Conv3d(_Convolution, nn.Conv3d):
    """x: [B, in_channels, D, H, W] -> [B, out_channels, D', H', W'], of x's dtype."""


class _Transposed(nn.Module):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        made: Any = self
        padding = made.output_padding
        if output_size is not None:
            padding = made._output_padding(
                input, output_size, made.stride, made.padding, made.kernel_size, len(made.stride), made.dilation
            )
        weight, bias = cast(made.weight, input.dtype), _like(made.bias, input)
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(made.stride) - 1]
        return function(input, weight, bias, made.stride, made.padding, padding, made.groups, made.dilation)


class ConvTranspose1d(_Transposed, nn.ConvTranspose1d):
    """x: [B, in_channels, L] -> [B, out_channels, L'], of x's dtype."""


class ConvTranspose2d(_Transposed, nn.ConvTranspose2d):
    """x: [B, in_channels, H, W] -> [B, out_channels, H', W'], of x's dtype."""


class ConvTranspose3d(_Transposed, nn.ConvTranspose3d):
    """x: [B, in_channels, D, H, W] -> [B, out_channels, D', H', W'], of x's dtype."""


class PReLU(nn.PReLU):
    """x: any shape -> the same, of x's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, cast(self.weight, input.dtype))


# In float32 ----------------------------------------------------------------------------------------------------------


def _floats(value: Any, dtype: Any) -> Any:
    """Floating-point tensors, and those in tuples, as `dtype`; all else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return tuple(_floats(v, dtype) for v in value) if isinstance(value, tuple) else value


class _InFloat32(nn.Module):
    """Casts what comes in to float32, and what goes out to the dtype of the first input."""

    def forward(self, input: Tensor, *others: Any, **options: Any) -> Any:
        options = {name: _floats(value, self._dtype()) for name, value in options.items()}
        found = super().forward(input.to(self._dtype()), *_floats(others, self._dtype()), **options)
        return _floats(found, input.dtype)

    def _dtype(self) -> Any:
        held = (t.dtype for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return next(held, torch.float32)


class LayerNorm(_InFloat32, nn.LayerNorm):
    """x: [..., *normalized_shape] -> the same, of x's dtype."""


class RMSNorm(_InFloat32, nn.RMSNorm):  # type: ignore[misc]
    """x: [..., *normalized_shape] -> the same, of x's dtype."""


class GroupNorm(_InFloat32, nn.GroupNorm):
    """x: [B, num_channels, ...] -> the same, of x's dtype."""


class BatchNorm1d(_InFloat32, nn.BatchNorm1d):
    """x: [B, num_features] or [B, num_features, L] -> the same, of x's dtype."""


class BatchNorm2d(_InFloat32, nn.BatchNorm2d):
    """x: [B, num_features, H, W] -> the same, of x's dtype."""


class BatchNorm3d(_InFloat32, nn.BatchNorm3d):
    """x: [B, num_features, D, H, W] -> the same, of x's dtype."""


class InstanceNorm1d(_InFloat32, nn.InstanceNorm1d):
    """x: [B, num_features, L] -> the same, of x's dtype."""


class InstanceNorm2d(_InFloat32, nn.InstanceNorm2d):
    """x: [B, num_features, H, W] -> the same, of x's dtype."""


class InstanceNorm3d(_InFloat32, nn.InstanceNorm3d):
    """x: [B, num_features, D, H, W] -> the same, of x's dtype."""


class MultiheadAttention(_InFloat32, nn.MultiheadAttention):  # type: ignore[misc]
    """As `nn.MultiheadAttention`; results have the query's dtype."""


class RNN(_InFloat32, nn.RNN):  # type: ignore[misc]
    """As `nn.RNN`; results have the input's dtype."""


class GRU(_InFloat32, nn.GRU):  # type: ignore[misc]
    """As `nn.GRU`; results have the input's dtype."""


class LSTM(_InFloat32, nn.LSTM):  # type: ignore[misc]
    """As `nn.LSTM`; results have the input's dtype."""
