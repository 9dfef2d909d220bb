"""Modules of digits.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels


class RMSNorm(nn.Module):
    """Root mean square norm, written out: the compiler makes one kernel of it, and derives the kernel of its
    gradient.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:  # [..., dim] -> [..., dim]
        return kernels.rms_norm(x, self.weight, self.eps)


class Block(nn.Module):
    def __init__(self, dim: int, dropout_p: float) -> None:
        super().__init__()
        self.dropout_p = dropout_p
        self.norm = RMSNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, dim]
        h = kernels.gelu_dropout(
            self.up(kernels.rms_norm(x, self.norm.weight, self.norm.eps)),
            self.dropout_p if self.training else 0.0,
        )
        return x + self.down(h)


class Digit(nn.Module):
    def __init__(self, dim: int = 128, classes: int = 10, dropout_p: float = 0.2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.embed = nn.Linear(512, dim)
        self.blocks = nn.ModuleList([Block(dim, dropout_p) for _ in range(2)])
        self.norm = RMSNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, pixels: Tensor) -> Tensor:  # [B, 64] -> [B, classes]
        image = pixels.reshape(pixels.shape[0], 1, 8, 8)  # [B, 1, 8, 8]
        h = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(image)))), 2)  # [B, 32, 4, 4]
        x = self.embed(h.flatten(1))
        for block in self.blocks:
            x = block(x)  # [B, dim]
        return self.head(kernels.rms_norm(x, self.norm.weight, self.norm.eps))
