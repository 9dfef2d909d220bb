"""Counter-based random numbers in plain PyTorch: the numbers that the emitted kernels draw, bit for bit.

A draw is a function of a seed and the element's index (Philox-4x32-10; Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", 2011). So a backward draws again what its forward drew, and nothing is stored. A counter gives four words:
four numbers of [0, 1), or one of a normal distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_ROUND_A, _ROUND_B = 0xD2511F53, 0xCD9E8D57
_WORD = 0xFFFFFFFF


def next_seed() -> int:
    """A seed from PyTorch's default CPU generator: what `torch.manual_seed` sets, and a checkpoint keeps."""
    return int(torch.randint(1 << 62, ()).item())


def philox(seed: int, count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The words of Philox for the counters 0 to `count` - 1: int64 [count] each, in [0, 2^32)."""
    index = torch.arange(count, dtype=torch.int64, device=device)
    c0, c1 = index & _WORD, index >> 32
    c2 = c3 = torch.zeros_like(index)
    key_a, key_b = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        # The products wrap in 64 bits; their high and low words are right all the same.
        a, b = c0 * _ROUND_A, c2 * _ROUND_B
        c0, c2 = ((b >> 32) & _WORD) ^ c1 ^ key_a, ((a >> 32) & _WORD) ^ c3 ^ key_b
        c1, c3 = b & _WORD, a & _WORD
        key_a, key_b = (key_a + _KEY_A) & _WORD, (key_b + _KEY_B) & _WORD
    return c0, c1, c2, c3


def _unit(words: Tensor, like: Tensor) -> Tensor:
    """Upper 24 bits as multiples of 2^-24 in [0, 1), shaped as `like`; float64 where `like` is, float32 elsewhere."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return ((words >> 8).to(dtype) * 2.0**-24).reshape(like.shape)


def uniform(like: Tensor, seed: int) -> Tensor:
    """Numbers of [0, 1) in the shape of `like`."""
    count = like.numel()
    words = torch.stack(philox(seed, -(-count // 4), like.device), dim=1)
    return _unit(words.reshape(-1)[:count], like)


def gaussian(like: Tensor, seed: int) -> Tensor:
    """Numbers of N(0, 1) in the shape of `like` (Box and Muller)."""
    a, b, _, _ = philox(seed, like.numel(), like.device)
    return torch.sqrt(-2.0 * torch.log(1.0 - _unit(a, like))) * torch.cos(2 * math.pi * _unit(b, like))


def dropout(x: Tensor, p: float, seed: int) -> Tensor:
    """`x` with each element zeroed with probability `p`, the others scaled by 1 / (1 - p). Where p is 0, `x` itself."""
    if p == 0.0:
        return x
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return x * ((uniform(x, seed) >= p).to(x.dtype) * scale)


def rand_like(x: Tensor, seed: int) -> Tensor:
    """As `torch.rand_like`, from a seed."""
    return uniform(x, seed).to(x.dtype)


def randn_like(x: Tensor, seed: int) -> Tensor:
    """As `torch.randn_like`, from a seed."""
    return gaussian(x, seed).to(x.dtype)
