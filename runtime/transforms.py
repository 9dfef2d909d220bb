"""Transforms of a field's values, with the names, arguments and meaning of `torchvision.transforms.v2`.

They act on a whole batch of images, [rows, C, H, W], or on a list of images of several sizes. A transform that is
random draws for all rows of the global batch before a rank takes its own, and for each row by itself: so a row looks
the same however many ranks and workers there are. A further transform is one more class, here or in `colors.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from tdsl.runtime.colors import ColorJitter, GaussianBlur, Grayscale, RandAugment
from tdsl.runtime.images import (
    Fill,
    Images,
    ImageTransform,
    Unfit,
    between,
    padded,
    pair,
    rectangle,
    sides,
    vision,
    window,
)

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "GaussianBlur",
    "Grayscale",
    "Images",
    "Normalize",
    "Pad",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Resize",
    "ToTensor",
    "Transform",
    "Unfit",
]

# How often a rectangle is drawn anew that does not fit in its image.
ATTEMPTS = 10
# Numbers that tell an array's dimension of channels from the others.
CHANNELS = (1, 3, 4)


class Transform(Protocol):
    """What is applied to a field of a batch."""

    def draw(self, rows: int, generator: Generator) -> Tensor | None:
        """What is random, [rows, ...] on the CPU; None where nothing is."""

    def __call__(self, x: Images, drawn: Tensor | None) -> Images:
        """`x` transformed with those rows' part of what was drawn. Raises `Unfit` for a row that can't be."""


# Values --------------------------------------------------------------------------------------------------------------


class Normalize(ImageTransform):
    """`(x - mean) / std` for each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        if len(mean) != len(std) or 0 in std:
            raise ValueError(f"Normalize needs a mean and a non-zero std for each channel, not {mean} and {std}")
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)
        self.inplace = inplace

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        if self.inplace:
            return x.sub_(self.mean.to(x)).div_(self.std.to(x))
        return (x - self.mean.to(x)) / self.std.to(x)


class ToTensor(ImageTransform):
    """Bytes as floats from 0 to 1, [rows, C, H, W] of [rows, H, W] and [rows, H, W, C].

    What has 1, 3 or 4 in front is taken to have its channels there already.
    """

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        if x.ndim == 3:
            x = x[:, None]
        elif x.shape[1] not in CHANNELS and x.shape[-1] in CHANNELS:
            x = x.movedim(-1, 1).contiguous()
        return x.float() / 255 if x.dtype == torch.uint8 else x


class RandomErasing(ImageTransform):
    """With probability `p`, `value` in place of a random rectangle: one number, one for each channel, or `"random"`.

    The rectangle has a share `scale` of the image's area and a height by width of `ratio`.
    """

    draws = 2 + 4 * ATTEMPTS

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: Fill | str = 0.0,
        inplace: bool = False,
    ) -> None:
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.value = value
        self.inplace = inplace

    def place(self, drawn: Sequence[float], height: int, width: int) -> tuple[int, int, int, int] | None:
        """Top, left, height and width of what is erased; None where nothing is."""
        if drawn[0] >= self.p:
            return None
        for at in range(2, self.draws, 4):
            h, w = map(round, rectangle(drawn[at : at + 2], height * width, self.scale, self.ratio))
            if h < height and w < width:
                return *window(drawn[at + 2 : at + 4], (height, width), (h, w)), h, w
        return None

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        place = self.place(drawn, *x.shape[-2:])
        if place is None:
            return x
        top, left, height, width = place
        x = x if self.inplace else x.clone()
        x[:, top : top + height, left : left + width] = self._values(drawn[1], len(x), height, width).to(x)
        return x

    def _values(self, seed: float, channels: int, height: int, width: int) -> Tensor:
        if isinstance(self.value, str):
            generator = Generator().manual_seed(int(seed * 2**53))
            return torch.randn(channels, height, width, generator=generator)
        return torch.tensor(self.value, dtype=torch.float32).view(-1, 1, 1)


# Size and place ------------------------------------------------------------------------------------------------------


class Resize(ImageTransform):
    """To a height and a width; of one number the shorter edge, and then `max_size` limits the longer one."""

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: str = "bilinear",
        max_size: int | None = None,
        antialias: bool = True,
    ) -> None:
        self.size = [size] if isinstance(size, int) else list(size)
        self.interpolation = interpolation
        self.max_size = max_size
        self.antialias = antialias

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        options = {"interpolation": self.interpolation, "max_size": self.max_size, "antialias": self.antialias}
        found: Tensor = vision().resize(x, self.size, **options)
        return found


class CenterCrop(ImageTransform):
    """The middle of the image, with zeros around one that is smaller."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair(size)

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        (height, width), (rows, columns) = self.size, x.shape[-2:]
        down, right = max(height - rows, 0), max(width - columns, 0)
        x = padded(x, (right // 2, down // 2, (right + 1) // 2, (down + 1) // 2))
        # Halves are rounded to even numbers, as torchvision's places are.
        top, left = round((x.shape[-2] - height) / 2), round((x.shape[-1] - width) / 2)
        return x[..., top : top + height, left : left + width]


class Pad(ImageTransform):
    """A border: `padding` is one number, those of left and right and of top and bottom, or left, top, right, bottom."""

    def __init__(self, padding: int | Sequence[int], fill: Fill = 0, padding_mode: str = "constant") -> None:
        self.padding = sides(padding)
        self.fill = fill
        self.padding_mode = padding_mode

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        try:
            return padded(x, self.padding, self.fill, self.padding_mode)
        except ValueError as error:
            raise Unfit(0, str(error)) from None


class RandomCrop(ImageTransform):
    """A window of `size` at a place drawn for each image, with `padding` around it, as `Pad` has it.

    With `pad_if_needed` an image that is smaller is padded on both sides by what it lacks.
    """

    draws = 2

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: Fill = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size = pair(size)
        self.padding = sides(padding)
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode

    def border(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The padding of an image of `height` x `width`. Raises `ValueError` where it is too small with it."""
        left, top, right, bottom = self.padding
        down = max(self.size[0] - height - top - bottom, 0)
        across = max(self.size[1] - width - left - right, 0)
        if (down or across) and not self.pad_if_needed:
            whole = f"{height + top + bottom} x {width + left + right}"
            raise ValueError(f"RandomCrop of {self.size[0]} x {self.size[1]} from {whole}")
        return left + across, top + down, right + across, bottom + down

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        assert drawn is not None
        try:
            found = padded(x, self.border(*x.shape[-2:]), self.fill, self.padding_mode)
        except ValueError as error:
            raise Unfit(0, str(error)) from None
        height, width = self.size
        room = torch.tensor([found.shape[-2] - height, found.shape[-1] - width])
        top, left = (drawn * (room + 1)).long().to(x.device).unbind(1)
        y = (top[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
        z = (left[:, None] + torch.arange(width, device=x.device))[:, None, None, :]
        row = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device)[:, None, None]
        return found[row, channel, y, z]


class RandomResizedCrop(ImageTransform):
    """A piece with a share `scale` of the image's area and a width by height of `ratio`, brought to `size`."""

    draws = 4 * ATTEMPTS

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: str = "bilinear",
        antialias: bool = True,
    ) -> None:
        self.size = pair(size)
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation
        self.antialias = antialias

    def place(self, drawn: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the piece; the largest in the middle where none that was drawn fits."""
        for at in range(0, self.draws, 4):
            w, h = map(round, rectangle(drawn[at : at + 2], height * width, self.scale, self.ratio))
            if 0 < w <= width and 0 < h <= height:
                return *window(drawn[at + 2 : at + 4], (height, width), (h, w)), h, w
        w, h = width, height
        if width / height < min(self.ratio):
            h = round(width / min(self.ratio))
        elif width / height > max(self.ratio):
            w = round(height * max(self.ratio))
        return (height - h) // 2, (width - w) // 2, h, w

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        place = self.place(drawn, *x.shape[-2:])
        options = {"interpolation": self.interpolation, "antialias": self.antialias}
        found: Tensor = vision().resized_crop(x, *place, list(self.size), **options)
        return found


class RandomHorizontalFlip(ImageTransform):
    """Each image mirrored, left to right, with probability `p`."""

    draws = 1
    dim = -1

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        assert drawn is not None
        return torch.where((drawn.to(x.device) < self.p).view(-1, 1, 1, 1), x.flip(self.dim), x)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Each image mirrored, top to bottom, with probability `p`."""

    dim = -2


class RandomRotation(ImageTransform):
    """Turned counter-clockwise by an angle from `degrees`, of which one number is from minus it on.

    `center` is x and y from the top left corner. With `expand` the image grows to hold all of what is turned.
    """

    draws = 1

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: str = "nearest",
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Fill = 0,
    ) -> None:
        self.degrees = degrees if isinstance(degrees, Sequence) else (-degrees, degrees)
        self.options = {"interpolation": interpolation, "expand": expand, "center": center, "fill": fill}

    def angle(self, drawn: Sequence[float]) -> float:
        """In degrees."""
        return between(self.degrees[0], self.degrees[1], drawn[0])

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        found: Tensor = vision().rotate(x, self.angle(drawn), **self.options)
        return found
