"""What transforms of images share: one image or many, what is drawn for each, sizes, padding, and torchvision.

A batch of images is one tensor, [rows, C, H, W], or a list of [C, H, W] while they differ in size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from tdsl.runtime.data_error import DataError

Images = Tensor | list[Tensor]
Sides = tuple[int, int, int, int]
Fill = float | Sequence[float]


class Unfit(ValueError):
    """An image that a transform can't take; `at` is its place in the batch, from 0."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


class ImageTransform:
    """A transform of images, which draws `draws` numbers from 0 to 1 for each.

    A class has `image`, for one image and the numbers drawn for it, or `batch`, for images of one size at a time.
    """

    draws = 0

    def draw(self, rows: int, generator: Generator) -> Tensor | None:
        """What is random, [rows, draws] on the CPU; None where nothing is."""
        return torch.rand(rows, self.draws, generator=generator, dtype=torch.float64) if self.draws else None

    def __call__(self, x: Images, drawn: Tensor | None) -> Images:
        """The images transformed, each with the numbers drawn for it."""
        if isinstance(x, Tensor):
            return self.batch(x, drawn)
        found = []
        for at, image in enumerate(x):
            try:
                found += list(self.batch(image[None], None if drawn is None else drawn[at : at + 1]))
            except Unfit as error:
                raise Unfit(at, str(error)) from None
        return together(found)

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        """[rows, C, H, W] transformed, image by image."""
        numbers = [[]] * len(x) if drawn is None else drawn.tolist()
        found = []
        for at, (image, drawn_for_it) in enumerate(zip(x, numbers, strict=True)):
            try:
                found.append(self.image(image, drawn_for_it))
            except (TypeError, ValueError) as error:
                raise Unfit(at, str(error)) from None
        return together(found)

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        """One image, [C, H, W], transformed."""
        raise NotImplementedError


def together(images: list[Tensor]) -> Images:
    """One tensor where all have one shape."""
    return torch.stack(images) if len({image.shape for image in images}) == 1 else images


@cache
def vision() -> Any:
    """The functions of `torchvision.transforms.v2`, imported where they are first used."""
    try:
        from torchvision.transforms.v2 import functional
    except (ImportError, RuntimeError) as error:  # one that was built for another torch misses operators
        help = "`pip install torchvision`, in the version that belongs to this torch"
        what = f"is needed for these transforms, and can't be imported: {str(error).splitlines()[0]}"
        raise DataError(what, file="torchvision", help=help) from None
    return functional


def between(low: float, high: float, drawn: float) -> float:
    """A number drawn evenly from 0 to 1, from `low` to `high`."""
    return low + (high - low) * drawn


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, of which one number is both."""
    first, *rest = (size,) if isinstance(size, int) else size
    return first, *(rest or [first])  # type: ignore[return-value]


def sides(padding: int | Sequence[int] | None) -> Sides:
    """Padding at left, top, right and bottom, of one number, two (left and right, top and bottom) or four."""
    left, *others = (padding or 0,) if padding is None or isinstance(padding, int) else padding
    top, right, bottom = {0: (left, left, left), 1: (*others, left, *others), 3: others}[len(others)]
    return left, top, right, bottom


def padded(x: Tensor, padding: Sides, fill: Fill = 0, mode: str = "constant") -> Tensor:
    """[..., C, H, W] with a border of `fill`, one value or one for each channel, or of the image itself."""
    if not any(padding):
        return x
    left, top, right, bottom = padding
    if mode == "constant" and not isinstance(fill, Sequence):
        return F.pad(x, (left, right, top, bottom), value=float(fill))
    height, width = x.shape[-2:]
    least = max(top, bottom, left, right) if mode == "edge" else 0
    room = {"reflect": 1, "symmetric": 0}.get(mode, -least)
    if max(top, bottom) > height - room or max(left, right) > width - room:
        raise ValueError(f"padding {mode} of {list(padding)} is more than an image of {height} x {width} has")
    found: Tensor = vision().pad(x, list(padding), fill, mode)
    return found


def window(drawn: Sequence[float], image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The top left corner of a window of `size` in an image, all places being as likely."""
    return int(drawn[0] * (image[0] - size[0] + 1)), int(drawn[1] * (image[1] - size[1] + 1))


def rectangle(
    drawn: Sequence[float], area: float, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[float, float]:
    """The longer-or-shorter edges of a rectangle that has a share `scale` of an area, and an aspect of `ratio`.

    Returns the square roots of area times aspect and of area by aspect, as torchvision draws them.
    """
    target = area * between(scale[0], scale[1], drawn[0])
    aspect = math.exp(between(math.log(ratio[0]), math.log(ratio[1]), drawn[1]))
    return math.sqrt(target * aspect), math.sqrt(target / aspect)
