"""Modules of mixture.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Mixture(nn.Module):
    """Two results of one kernel, and a number a row."""

    def __init__(self, dim: int = 30) -> None:
        super().__init__()
        self.a = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [B, dim] -> [B, dim], [B]
        h = self.a(x)  # [B, dim]
        return kernels.softmax_add_log_sum(h)
