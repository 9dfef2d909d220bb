"""Models of sequences: recurrent networks and a transformer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.whole_models.pair import Pair, classes

GRU = """
module Loss(vocab: int = 20, dim: int = 12) {
    embed = Embedding(vocab, dim)
    rnn   = GRU(dim, 10, batch_first=true, bidirectional=true)
    head  = Linear(20, 3)

    forward(tokens: int[B, T], y: int[B]) -> float[] {
        states, last = rnn(embed(tokens))
        return cross_entropy(head(states.mean(dim=1)), y)
    }
}
"""


class GRULoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.rnn = nn.GRU(12, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 3)

    def forward(self, tokens: Tensor, y: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(tokens))
        return F.cross_entropy(self.head(states.mean(dim=1)), y)


LSTM = """
module Loss(vocab: int = 15, dim: int = 10) {
    embed = Embedding(vocab, dim)
    rnn   = LSTM(dim, 12, num_layers=2, batch_first=true)
    head  = Linear(12, vocab)

    forward(tokens: int[B, T], targets: int[B, T]) -> float[] {
        states, state = rnn(embed(tokens))
        logits = head(tanh(states) * states)
        return cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))
    }
}
"""


class LSTMLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(15, 10)
        self.rnn = nn.LSTM(10, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 15)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(tokens))
        logits = self.head(torch.tanh(states) * states)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))


TRANSFORMER = """
module RMSNorm(dim: int, eps: float = 1e-6) {
    param weight: [dim] = ones()

    forward(x: [..., dim]) -> [..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + eps) * weight
    }
}

module Attention(dim: int, heads: int) {
    qkv  = Linear(dim, 3 * dim, bias=false)
    proj = Linear(dim, dim, bias=false)

    forward(x: float[B, T, dim]) -> float[B, T, dim] {
        q, k, v = qkv(x).chunk(3, dim=-1)
        q = rope(rearrange(q, "b t (h d) -> b h t d", h=heads))
        k = rope(rearrange(k, "b t (h d) -> b h t d", h=heads))
        v = rearrange(v, "b t (h d) -> b h t d", h=heads)
        y = attention(q, k, v, causal=true)
        return proj(rearrange(y, "b h t d -> b t (h d)"))
    }
}

module Block(dim: int, heads: int) {
    norm1 = RMSNorm(dim)
    attn  = Attention(dim, heads)
    norm2 = RMSNorm(dim)
    gate  = Linear(dim, 2 * dim, bias=false)
    up    = Linear(dim, 2 * dim, bias=false)
    down  = Linear(2 * dim, dim, bias=false)

    forward(x: float[B, T, dim]) -> float[B, T, dim] {
        h = x + attn(norm1(x))
        n = norm2(h)
        return h + down(silu(gate(n)) * up(n))
    }
}

module Loss(vocab: int = 17, dim: int = 16, heads: int = 2) {
    embed  = Embedding(vocab, dim)
    blocks = [Block(dim, heads) for i in range(2)]
    norm   = RMSNorm(dim)
    head   = Linear(dim, vocab, bias=false, weight=embed.weight)

    forward(tokens: int[B, T], targets: int[B, T]) -> float[] {
        logits = embed(tokens) |> blocks |> norm |> head
        return cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))
    }
}
"""


class Norm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def turned(x: Tensor) -> Tensor:
    """Rotary positions: the two halves of the last dimension turned by angles that grow with the position."""
    steps, half = x.shape[-2], x.shape[-1] // 2
    angles = torch.arange(steps)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, dim = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, dim=-1))
        q, k = turned(q), turned(k)
        scores = q @ k.mT / math.sqrt(dim // self.heads)
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -math.inf)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, dim))


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = Norm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = Norm(dim)
        self.gate = nn.Linear(dim, 2 * dim, bias=False)
        self.up = nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.attn(self.norm1(x))
        n = self.norm2(h)
        return h + self.down(F.silu(self.gate(n)) * self.up(n))


class TransformerLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 16)
        self.blocks = nn.ModuleList(TransformerBlock(16, 2) for _ in range(2))
        self.norm = Norm(16)
        self.head = nn.Linear(16, 17, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


PAIRS = {
    "gru": Pair(GRU, GRULoss, lambda: (classes(20, 6, 5), classes(3, 6))),
    "lstm": Pair(LSTM, LSTMLoss, lambda: (classes(15, 4, 6), classes(15, 4, 6))),
    "transformer": Pair(TRANSFORMER, TransformerLoss, lambda: (classes(17, 3, 7), classes(17, 3, 7))),
}
