"""Modules of normalise.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Encoder(nn.Module):
    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, dim)])

    def forward(self, x: Tensor) -> Tensor:  # [B, 64] -> [B, dim]
        for layer in self.net:
            x = layer(x)  # [B, dim]
        return kernels.unit(x)
