"""Modules of gaussian.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Sample(nn.Module):
    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, dim)
        self.logvar = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, dim]
        mu = self.mean(x)  # [B, dim]
        return kernels.exp_randn_like_add(mu, self.logvar(x))
