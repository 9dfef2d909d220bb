"""Modules of embeddings.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels


class Net(nn.Module):
    def __init__(self, vocab: int = 11, dim: int = 8, pad: int = 3) -> None:
        super().__init__()
        self.pad = pad
        self.embed = nn.Embedding(vocab, dim)
        self.kind = nn.Embedding(8, dim, padding_idx=-1)
        self.known = nn.Embedding(vocab, dim, padding_idx=pad)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.position = nn.Parameter(torch.randn(16, dim) * 0.02)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, kinds: Tensor) -> Tensor:  # int[B, T] each -> [B, T, vocab]
        embedding = kernels.embedding(tokens, self.embed.weight)
        embedding_2 = kernels.embedding_2(kinds, self.kind.weight)
        embedding_3 = kernels.embedding_3(tokens, self.known.weight, self.pad)
        return self.head(kernels.add_mul(embedding, embedding_2, embedding_3, kernels.embedding(kinds, self.position)))
