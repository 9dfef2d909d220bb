"""Transforms of a field's values, with the names, arguments and meaning of `torchvision.transforms.v2`.

They act on a whole batch, [rows, ...]. A transform that is random draws for all rows of the global batch before a rank
takes its own, so that a row looks the same however many ranks there are. A further transform is one more class here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


class Transform(Protocol):
    """What is applied to a field of a batch."""

    def draw(self, rows: int, generator: Generator) -> Tensor | None:
        """What is random, [rows, ...] on the CPU; None where nothing is."""

    def __call__(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        """`x` [rows, ...] transformed with those rows' part of what was drawn."""


class Normalize:
    """`(x - mean) / std` for each channel of images [rows, C, H, W]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or 0 in std:
            raise ValueError(f"Normalize needs a mean and a non-zero std for each channel, not {mean} and {std}")
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def draw(self, rows: int, generator: Generator) -> Tensor | None:
        return None

    def __call__(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        return (x - self.mean.to(x)) / self.std.to(x)


class RandomCrop:
    """A window of `size` at a place drawn for each image of [rows, C, H, W], with `padding` zeros around the image.

    `size` is one number or height and width; `padding` one number, or those of left and right and of top and bottom, or
    those of left, top, right and bottom. Raises `ValueError` where the padded image is smaller than the window.
    """

    def __init__(self, size: int | Sequence[int], padding: int | Sequence[int] | None = None) -> None:
        height, *width = [size] if isinstance(size, int) else size
        self.size = (height, *(width or [height]))
        left, *others = [padding or 0] if padding is None or isinstance(padding, int) else padding
        top, right, bottom = {0: [left] * 3, 1: [*others, left, *others], 3: others}[len(others)]
        self.padding = [left, right, top, bottom]

    def draw(self, rows: int, generator: Generator) -> Tensor | None:
        return torch.rand(rows, 2, generator=generator)

    def __call__(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        padded = F.pad(x, self.padding)
        height, width = self.size
        room = torch.tensor([padded.shape[-2] - height, padded.shape[-1] - width], device=x.device)
        if room.min() < 0:
            raise ValueError(f"RandomCrop of {height} x {width} from {padded.shape[-2]} x {padded.shape[-1]}")
        top, left = (drawn.to(x.device) * (room + 1)).long().unbind(1)
        y = (top[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
        z = (left[:, None] + torch.arange(width, device=x.device))[:, None, None, :]
        row = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device)[:, None, None]
        return padded[row, channel, y, z]


class RandomHorizontalFlip:
    """Each image of [rows, C, H, W] mirrored, left to right, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def draw(self, rows: int, generator: Generator) -> Tensor | None:
        return torch.rand(rows, generator=generator)

    def __call__(self, x: Tensor, drawn: Tensor | None) -> Tensor:
        assert drawn is not None
        return torch.where((drawn.to(x.device) < self.p).view(-1, 1, 1, 1), x.flip(-1), x)
