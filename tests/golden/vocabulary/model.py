"""Modules of vocabulary.model, written by tdsl 0.1.0."""

from __future__ import annotations

from torch import Tensor, nn

import kernels
from tdsl.runtime import mixed_precision


class Words(nn.Module):
    def __init__(self, vocab: int, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.norm = mixed_precision.LayerNorm(dim)
        self.head = mixed_precision.Linear(dim, vocab, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, head: bool = True) -> Tensor:  # int[B, T] -> [B, T, vocab]
        x = kernels.embedding(tokens, self.embed.weight)  # [B, T, dim]
        hidden = kernels.silu_add_layer_norm(x, self.norm.weight, self.norm.bias)
        return self.head(hidden) if head else hidden
