"""Modules of masks.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Masked(nn.Module):
    def __init__(self, dim: int = 18) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # [B, T, dim], bool[B, 1, T] -> [B, T, T]
        return kernels.softmax(keep, self.query(x) @ self.key(x).mT)
