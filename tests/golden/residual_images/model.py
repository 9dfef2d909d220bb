"""Modules of residual_images.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, H, W] -> [B, channels, H, W]
        return kernels.batch_norm_add_relu(
            self.conv2(kernels.batch_norm_relu(self.conv1(x), self.norm1)),
            x,
            self.norm2,
        )


class Net(nn.Module):
    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.ModuleList([Residual(width) for _ in range(2)])
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:  # [B, 1, H, W] -> [B, classes]
        x = kernels.batch_norm_relu(self.stem[0](image), self.stem[1])
        for block in self.blocks:
            x = block(x)  # [B, width, H, W]
        return self.head(x.mean(dim=(2, 3)))
