"""Modules of scalars.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels


class Scaled(nn.Module):
    def __init__(self, dim: int = 10, temperature: float = 0.7) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = nn.Parameter(torch.full((), 2.0))
        self.shift = nn.Parameter(torch.randn(dim) * 0.5)
        self.net = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, dim]
        return kernels.tanh_add(self.net(x), self.scale, self.shift, self.temperature)
