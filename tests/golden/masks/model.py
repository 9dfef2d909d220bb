"""Modules of masks.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels
from tdsl.runtime import nn_functions


class Masked(nn.Module):
    def __init__(self, dim: int = 18) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # [B, T, dim], bool[B, 1, T] -> [B, T, T]
        query, key = nn_functions.linears(x, self.query, self.key).chunk(2, dim=-1)  # [B, T, dim] each
        return kernels.div_where_softmax(keep, query @ key.mT)
