"""A model written twice, and batches for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Pair:
    """A program whose module `Loss` is `by_hand`'s twin, and a batch for both."""

    program: str
    by_hand: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    lr: float = 0.02


def floats(*shape: int) -> Tensor:
    return torch.randn(shape)


def classes(n: int, *shape: int) -> Tensor:
    return torch.randint(0, n, shape)
