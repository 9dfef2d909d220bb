"""Modules of batch_norms.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Inverted(nn.Module):
    def __init__(self, channels: int = 6, slope: float = 0.1) -> None:
        super().__init__()
        self.slope = slope
        self.wide = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * channels)
        self.narrow = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels, affine=False)
        self.last = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, H, W] -> [B, channels, H, W]
        h = kernels.batch_norm_leaky_relu(self.wide(x), self.norm1, self.slope)  # [B, 2 * channels, H, W]
        y = kernels.batch_norm_add(self.narrow(h), x, self.norm2)  # [B, channels, H, W]
        return kernels.batch_norm_add_silu(self.last(y), y, self.norm3)
