"""Modules of dropout.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class MLP(nn.Module):
    def __init__(self, hidden: int = 32, p: float = 0.25) -> None:
        super().__init__()
        self.p = p
        self.up = nn.Linear(16, hidden)
        self.drop = nn.Dropout(p)
        self.down = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:  # [B, 16] -> [B, 3]
        return self.down(kernels.gelu_dropout(self.up(x), self.p if self.training else 0.0))
