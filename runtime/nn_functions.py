"""Functions of the language that PyTorch has no single call for."""

from __future__ import annotations

import torch
from torch import Tensor


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
