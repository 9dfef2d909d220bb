"""Modules of rotary.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import kernels


class Joint(nn.Module):
    def __init__(self, dim: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> [B, T, dim]
        q, k, v = kernels.split_rope(self.qkv(x), self.heads)  # [B, heads, T, dim // heads] each
        transpose = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return transpose.reshape(x.shape[0], x.shape[1], self.dim)


class Grouped(nn.Module):
    def __init__(self, dim: int = 24, heads: int = 4, groups: int = 2, base: float = 500.0) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.groups = groups
        self.base = base
        self.qkv = nn.Linear(dim, 2 * (dim // heads) * groups + dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> [B, T, dim]
        q, k, v = kernels.split_rope_2(self.qkv(x), self.heads, self.groups, self.dim // self.heads, self.base)
        transpose = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
        return transpose.reshape(x.shape[0], x.shape[1], self.dim)


class Apart(nn.Module):
    def __init__(self, dim: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # [B, T, dim] each -> [B, T, dim]
        B, T, _ = x.shape
        q, k = kernels.rope_qk(
            self.q(x).reshape(B, T, self.heads, self.dim // self.heads).transpose(1, 2),
            self.k(y).reshape(B, T, self.heads, self.dim // self.heads).transpose(1, 2),
        )
        return F.scaled_dot_product_attention(q, k, k, is_causal=True).transpose(1, 2).reshape(B, T, self.dim)


class Rotary(nn.Module):
    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.joint = Joint(dim)
        self.grouped = Grouped(dim)
        self.apart = Apart(dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> [B, T, dim]
        return kernels.rope(kernels.add(self.joint(x), self.grouped(x), self.apart(x, x)))
