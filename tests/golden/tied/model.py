"""Modules of tied.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels


class Tied(nn.Module):
    def __init__(self, vocab: int = 50, dim: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:  # int[B, T] -> [B, T, vocab]
        return self.head(
            kernels.layer_norm_gelu(kernels.embedding(tokens, self.embed.weight), self.norm.weight, self.norm.bias),
        )
