"""Modules of gaussian.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels
from tdsl.runtime import nn_functions


class Sample(nn.Module):
    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, dim)
        self.logvar = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, dim]
        return kernels.exp_randn_like_add(nn_functions.linears(x, self.mean, self.logvar))
