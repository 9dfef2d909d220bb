"""Counter-based random numbers in plain PyTorch: the numbers that the emitted kernels draw, bit for bit.

A draw is a function of a seed and the element's index (Philox-4x32-10; Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", 2011). So a backward draws again what its forward drew, and nothing is stored. A counter gives four words:
four numbers of [0, 1), or one of a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words: TypeAlias = npt.NDArray[np.uint64]

_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_ROUND_A, _ROUND_B = 0xD2511F53, 0xCD9E8D57
_WORD = 0xFFFFFFFF
# Counters that are worked on at once.
_BLOCK = 4096
_MULTIPLIER_A, _MULTIPLIER_B, _LOW, _SHIFT = map(np.uint64, (_ROUND_A, _ROUND_B, _WORD, 32))


def next_seed() -> int:
    """A seed from PyTorch's default CPU generator: what `torch.manual_seed` sets, and a checkpoint keeps."""
    return int(torch.randint(1 << 62, ()).item())


def philox(seed: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """The words of Philox for the counters 0 to `count` - 1: int64 [count, 4], in [0, 2^32)."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(_by_numpy(seed, count).view(np.int64))
    return _by_torch(seed, count, device)


def _by_torch(seed: int, count: int, device: torch.device | str) -> Tensor:
    index = torch.arange(count, dtype=torch.int64, device=device)
    c0, c1 = index & _WORD, index >> 32
    c2 = c3 = torch.zeros_like(index)
    for key_a, key_b in _keys(seed):
        # The products wrap in 64 bits; their high and low words are right all the same.
        a, b = c0 * _ROUND_A, c2 * _ROUND_B
        c0, c2 = ((b >> 32) & _WORD) ^ c1 ^ key_a, ((a >> 32) & _WORD) ^ c3 ^ key_b
        c1, c3 = b & _WORD, a & _WORD
    return torch.stack((c0, c1, c2, c3), dim=1)


def _keys(seed: int) -> Iterator[tuple[int, int]]:
    """Those of the ten rounds."""
    for number in range(10):
        yield (seed + number * _KEY_A) & _WORD, ((seed >> 32) + number * _KEY_B) & _WORD


def _by_numpy(seed: int, count: int) -> Words:
    """The same by NumPy, in a third of the time: it has unsigned words, and what it works on stays in the cache."""
    found = np.empty((count, 4), dtype=np.uint64)
    for start in range(0, count, _BLOCK):
        _block(seed, start, found[start : start + _BLOCK])
    return found


def _block(seed: int, start: int, found: Words) -> None:
    c0 = np.arange(start, start + len(found), dtype=np.uint64)
    c1 = c0 >> _SHIFT
    c0 &= _LOW
    c2, c3 = np.zeros_like(c0), np.zeros_like(c0)
    a, b = np.empty_like(c0), np.empty_like(c0)
    for key_a, key_b in _keys(seed):
        np.multiply(c0, _MULTIPLIER_A, out=a)
        np.multiply(c2, _MULTIPLIER_B, out=b)
        for product, words, others, key in ((b, c0, c1, key_a), (a, c2, c3, key_b)):
            np.right_shift(product, _SHIFT, out=words)
            words ^= others
            words ^= np.uint64(key)
            np.bitwise_and(product, _LOW, out=others)
    for column, words in enumerate((c0, c1, c2, c3)):
        found[:, column] = words


def _words(seed: int, count: int, device: torch.device) -> Tensor:
    """`count` words in the order in which elements take them: int64 [count]."""
    return philox(seed, -(-count // 4), device).reshape(-1)[:count]


def _unit(words: Tensor, like: Tensor) -> Tensor:
    """Upper 24 bits as multiples of 2^-24 in [0, 1), shaped as `like`; float64 where `like` is, float32 elsewhere."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return ((words >> 8).to(dtype) * 2.0**-24).reshape(like.shape)


def uniform(like: Tensor, seed: int) -> Tensor:
    """Numbers of [0, 1) in the shape of `like`."""
    return _unit(_words(seed, like.numel(), like.device), like)


def gaussian(like: Tensor, seed: int) -> Tensor:
    """Numbers of N(0, 1) in the shape of `like` (Box and Muller)."""
    a, b, _, _ = philox(seed, like.numel(), like.device).unbind(1)
    return torch.sqrt(-2.0 * torch.log(1.0 - _unit(a, like))) * torch.cos(2 * math.pi * _unit(b, like))


def dropout(x: Tensor, p: float, seed: int) -> Tensor:
    """`x` with each element zeroed with probability `p`, the others scaled by 1 / (1 - p). Where p is 0, `x` itself."""
    if p == 0.0:
        return x
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    # `uniform(x, seed) >= p`, told from the words: as many steps of 2^-24 as p has, rounded as the comparison would be.
    steps = math.ceil((p if x.dtype == torch.float64 else float(np.float32(p))) * 2**24)
    kept = _words(seed, x.numel(), x.device) >= steps << 8
    return x * (kept.reshape(x.shape).to(x.dtype) * scale)


def rand_like(x: Tensor, seed: int) -> Tensor:
    """As `torch.rand_like`, from a seed."""
    return uniform(x, seed).to(x.dtype)


def randn_like(x: Tensor, seed: int) -> Tensor:
    """As `torch.randn_like`, from a seed."""
    return gaussian(x, seed).to(x.dtype)
