"""Functions of the language that PyTorch has no single call for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.runtime.linears import linears as linears


def rope(x: Tensor, base: float = 10000.0, offset: int = 0) -> Tensor:
    """Rotary position embedding of `x` [..., T, D], D even (Su et al., "RoFormer", 2021).

    Dimension i turns together with i + D / 2, as in GPT-NeoX and Llama, by position / base^(2i / D). `offset` is the
    position of the first row. Angles are computed in float32, the result has the dtype of `x`.
    """
    length, dim = x.shape[-2:]
    if dim % 2:
        raise ValueError(f"rope needs an even last dimension, not {dim}")
    rates = base ** (-torch.arange(0, dim, 2, device=x.device, dtype=torch.float32) / dim)
    positions = torch.arange(offset, offset + length, device=x.device, dtype=torch.float32)
    angles = torch.outer(positions, rates)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention of `q` [B, H, T, D] over `k` [B, G, S, D] and `v` [B, G, S, E]: [B, H, T, E].

    Scores are `scale * q @ k.T`, `scale` being 1 / sqrt(D) unless given; then, in this order:

    - `softcap=c` bounds them smoothly: c * tanh(scores / c) (Gemma 2, 2024);
    - `bias`, which broadcasts to [B, H, T, S], is added;
    - `causal` hides the keys after the query: query i sees keys 0 to i;
    - `window=w` hides those w or more positions away: query i sees keys i - w + 1 to i + w - 1, and up to i with
      `causal`, so itself and the w - 1 before it.

    A query that sees nothing yields zeros. H is a multiple of G: each head of `k` and `v` serves H / G of `q`, in
    order. Softmax runs in float32 at least. `dropout_p` drops weights: the caller gives it in training alone.
    """
    if k.shape[1] != q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * (
        q.shape[-1] ** -0.5 if scale is None else scale
    )
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    hidden = _hidden(q.shape[2], k.shape[2], causal, window, q.device)
    if hidden is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        # Not -inf: a query that sees nothing would have NaN, and hand it on to the gradient.
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1).masked_fill(hidden, 0.0)
    return F.dropout(weights, dropout_p).to(v.dtype) @ v


def _hidden(queries: int, keys: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys [T, S] each query does not see; None where it sees all."""
    if not causal and window is None:
        return None
    ahead = torch.arange(keys, device=device) - torch.arange(queries, device=device)[:, None]
    hidden = ahead > 0 if causal else torch.zeros_like(ahead, dtype=torch.bool)
    return hidden if window is None else hidden | (ahead.abs() >= window)


def alibi(heads: int, T: int, S: int | None = None, device: torch.device | None = None) -> Tensor:
    """The bias [heads, T, S] of attention with linear biases (Press et al., "Train Short, Test Long", 2022).

    Query i and key j get -slope * |i - j|, S being T unless given. The slopes of n heads are 2^(-8 / n), 2^(-16 / n),
    and so on where n is a power of two; otherwise those of the next smaller one, then every other one of the next
    greater.
    """
    keys = torch.arange(T if S is None else S, device=device)
    distance = (keys - torch.arange(T, device=device)[:, None]).abs()
    return -torch.tensor(_slopes(heads), device=device)[:, None, None] * distance


def _slopes(heads: int) -> list[float]:
    whole = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * i / whole) for i in range(1, whole + 1)]
    return slopes if whole == heads else slopes + _slopes(2 * whole)[::2][: heads - whole]


def requires_grad(x: Tensor) -> Tensor:
    """`x` as a tensor to differentiate by: itself where it carries a gradient, else a view of its values that does."""
    return x if x.requires_grad else x.detach().requires_grad_()


def grad(y: Tensor, x: Tensor) -> Tensor:
    """The gradient of the number `y` with respect to `x`, as a tensor that can be differentiated in turn.

    It is zero where `y` turns out not to depend on `x`.
    """
    if not y.requires_grad:  # as the second derivative of a linear function
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(y, x, create_graph=True, materialize_grads=True)
    return found
