"""Modules of long_rows.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels


class Long(nn.Module):
    """Rows that do not fit in registers are walked over."""

    def __init__(self, dim: int = 40000) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, dim]
        return kernels.long(x, self.weight)
