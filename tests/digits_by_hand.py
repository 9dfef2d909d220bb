"""The network of `examples/digits.model` as one writes it by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Block(nn.Module):
    def __init__(self, dim: int, dropout_p: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.down(self.dropout(F.gelu(self.up(self.norm(x)))))
        return found


class Digit(nn.Module):
    def __init__(self, dim: int = 128, classes: int = 10, dropout_p: float = 0.2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.embed = nn.Linear(512, dim)
        self.blocks = nn.ModuleList([Block(dim, dropout_p) for _ in range(2)])
        self.norm = RMSNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        h = F.relu(self.conv1(pixels.view(-1, 1, 8, 8)))
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        x = self.embed(h.flatten(1))
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.head(self.norm(x))
        return found
