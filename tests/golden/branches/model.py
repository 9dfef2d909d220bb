"""Modules of branches.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels
from tdsl.runtime import nn_functions


class Net(nn.Module):
    def __init__(self, dim: int = 20, gated: bool = True, layers: int = 3) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(dim, dim) for _ in range(layers)])
        self.gate = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, dim]
        steps, gate = nn_functions.linears(x, self.steps[0], self.gate).chunk(2, dim=-1)  # [B, dim] each
        h = kernels.silu_add(x, steps)  # [B, dim]
        h = kernels.silu_add(h, self.steps[1](h))  # [B, dim]
        return kernels.silu_add_sigmoid(gate, h, self.steps[2](h))
