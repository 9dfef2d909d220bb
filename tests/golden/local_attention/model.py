"""Modules of local_attention.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
from tdsl.runtime import nn_functions


class Local(nn.Module):
    def __init__(self, dim: int = 16, heads: int = 4, groups: int = 2, window: int = 3) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.groups = groups
        self.window = window
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * (dim // heads) * groups, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> [B, T, dim]
        B, T, _ = x.shape
        kv, q = nn_functions.linears(x, self.kv, self.q).chunk(2, dim=-1)
        k, v = kv.chunk(2, dim=-1)  # [B, T, (dim // heads) * groups] each
        q = q.reshape(B, T, self.heads, self.dim // self.heads).transpose(1, 2)  # [B, heads, T, dim // heads]
        k = k.reshape(B, T, self.groups, self.dim // self.heads).transpose(1, 2)  # [B, groups, T, dim // heads]
        v = v.reshape(B, T, self.groups, self.dim // self.heads).transpose(1, 2)  # [B, groups, T, dim // heads]
        y = kernels.attention(q, k, v, self.window)  # [B, heads, T, dim // heads]
        return self.out(y.transpose(1, 2).reshape(B, T, self.dim))


class Biased(nn.Module):
    def __init__(self, heads: int = 4, T: int = 6) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(heads, 1, T) * 0.5)

    def forward(self, x: Tensor) -> Tensor:  # [B, heads, T, D] -> [B, heads, T, D]
        near = kernels.attention_2(x)  # [B, heads, T, D]
        return near + kernels.attention_3(x, near, self.table)


class Net(nn.Module):
    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.local = Local(dim)
        self.biased = Biased()

    def forward(self, x: Tensor) -> Tensor:  # [B, 6, dim] -> [B, 6, dim]
        B = x.shape[0]
        h = x + self.local(x)  # [B, 6, dim]
        return self.biased(h.reshape(B, 6, 4, self.dim // 4).transpose(1, 2)).transpose(1, 2).reshape(B, 6, self.dim)
