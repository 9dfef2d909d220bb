"""Modules of gated.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from tdsl.runtime import nn_functions


class SwiGLU(nn.Module):
    def __init__(self, dim: int = 48, hidden: int = 64) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [..., dim] -> [..., dim]
        return self.down(kernels.silu_mul(nn_functions.linears(x, self.gate, self.up)))


class Attention(nn.Module):
    def __init__(self, dim: int = 48, heads: int = 3) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> [B, T, dim]
        B, T, _ = x.shape
        q, k, v = nn_functions.linears(x, self.q, self.k, self.v).chunk(3, dim=-1)  # [B, T, dim] each
        a = q.reshape(B, T, self.heads, self.dim // self.heads).transpose(1, 2)  # [B, heads, T, dim // heads]
        b = k.reshape(B, T, self.heads, self.dim // self.heads).transpose(1, 2)  # [B, heads, T, dim // heads]
        c = v.reshape(B, T, self.heads, self.dim // self.heads).transpose(1, 2)  # [B, heads, T, dim // heads]
        return self.proj(F.scaled_dot_product_attention(a, b, c).transpose(1, 2).reshape(B, T, self.dim))
