"""Transforms of what colours images have, and `RandAugment`, with torchvision's meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tdsl.runtime.images import Fill, Images, ImageTransform, between, pair, vision

Range = tuple[float, float]


class Grayscale(ImageTransform):
    """Grey, in one channel or in three that are equal."""

    def __init__(self, num_output_channels: int = 1) -> None:
        self.channels = num_output_channels

    def batch(self, x: Tensor, drawn: Tensor | None) -> Images:
        found: Tensor = vision().rgb_to_grayscale(x, self.channels)
        return found


class ColorJitter(ImageTransform):
    """Brightness, contrast, saturation and hue changed by random factors, in a random order.

    A number `b` is a factor from 1 - b to 1 + b, a pair the factor's range; of the hue they are what is added, at most
    0.5 either way.
    """

    draws = 8

    def __init__(
        self,
        brightness: float | Sequence[float] | None = None,
        contrast: float | Sequence[float] | None = None,
        saturation: float | Sequence[float] | None = None,
        hue: float | Sequence[float] | None = None,
    ) -> None:
        self.ranges: Mapping[str, Range | None] = {
            "brightness": _range(brightness, 1.0),
            "contrast": _range(contrast, 1.0),
            "saturation": _range(saturation, 1.0),
            "hue": _range(hue, 0.0),
        }

    def changes(self, drawn: Sequence[float]) -> list[tuple[str, float]]:
        """What is changed by how much, in order."""
        order = sorted(range(4), key=lambda at: drawn[at])
        named = list(self.ranges.items())
        return [
            (name, between(*limits, drawn[4 + at])) for at in order for name, limits in named[at : at + 1] if limits
        ]

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        for name, factor in self.changes(drawn):
            x = getattr(vision(), f"adjust_{name}")(x, factor)
        return x


def _range(value: float | Sequence[float] | None, center: float) -> Range | None:
    """The range of a factor; None where it is always the one that changes nothing."""
    if value is None:
        return None
    if not isinstance(value, Sequence):
        value = (max(center - value, 0.0) if center else -value, center + value)
    low, high = value
    return None if low == high == center else (float(low), float(high))


class GaussianBlur(ImageTransform):
    """Blurred by a Gaussian of a standard deviation from the range `sigma`, cut off at `kernel_size`."""

    draws = 1

    def __init__(self, kernel_size: int | Sequence[int], sigma: float | Sequence[float] = (0.1, 2.0)) -> None:
        height, width = pair(kernel_size)
        self.kernel_size = [height, width]
        self.range = (sigma[0], sigma[-1]) if isinstance(sigma, Sequence) else (sigma, sigma)

    def sigma(self, drawn: Sequence[float]) -> float:
        """In pixels."""
        return between(*self.range, drawn[0])

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        found: Tensor = vision().gaussian_blur(x, self.kernel_size, [self.sigma(drawn)] * 2)
        return found


# RandAugment ---------------------------------------------------------------------------------------------------------


class Augmentation(NamedTuple):
    """One operation: the magnitudes of the weakest and the strongest bin for an image of a height and width.

    `apply` takes torchvision's functions, the image, the magnitude, and the options of what moves pixels.
    """

    ends: Callable[[int, int], Range]
    signed: bool
    apply: Callable[[Any, Tensor, float, Mapping[str, Any]], Tensor]


def _affine(f: Any, x: Tensor, options: Mapping[str, Any], **changes: Any) -> Tensor:
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    found: Tensor = f.affine(x, **{**still, **changes}, **options)
    return found


def _shears(along: int) -> Augmentation:
    def apply(f: Any, x: Tensor, magnitude: float, options: Mapping[str, Any]) -> Tensor:
        degrees = math.degrees(math.atan(magnitude))
        return _affine(f, x, options, shear=[0.0, degrees] if along else [degrees, 0.0], center=[0, 0])

    return Augmentation(lambda height, width: (0.0, 0.3), True, apply)


def _translates(along: int) -> Augmentation:
    def apply(f: Any, x: Tensor, magnitude: float, options: Mapping[str, Any]) -> Tensor:
        return _affine(f, x, options, translate=[0, int(magnitude)] if along else [int(magnitude), 0])

    return Augmentation(lambda height, width: (0.0, 150.0 / 331.0 * (height if along else width)), True, apply)


def _adjusts(name: str) -> Augmentation:
    return Augmentation(
        lambda height, width: (0.0, 0.9), True, lambda f, x, m, _: getattr(f, f"adjust_{name}")(x, 1 + m)
    )


def _plain(name: str) -> Augmentation:
    return Augmentation(lambda height, width: (0.0, 0.0), False, lambda f, x, m, _: getattr(f, name)(x))


def _solarized(f: Any, x: Tensor, magnitude: float, options: Mapping[str, Any]) -> Tensor:
    largest = 1.0 if x.is_floating_point() else float(torch.iinfo(x.dtype).max)
    found: Tensor = f.solarize(x, largest * magnitude)
    return found


# torchvision's, in its order.
AUGMENTATIONS: Mapping[str, Augmentation] = {
    "Identity": Augmentation(lambda h, w: (0.0, 0.0), False, lambda f, x, m, _: x),
    "ShearX": _shears(0),
    "ShearY": _shears(1),
    "TranslateX": _translates(0),
    "TranslateY": _translates(1),
    "Rotate": Augmentation(lambda h, w: (0.0, 30.0), True, lambda f, x, m, options: f.rotate(x, angle=m, **options)),
    "Brightness": _adjusts("brightness"),
    "Color": _adjusts("saturation"),
    "Contrast": _adjusts("contrast"),
    "Sharpness": _adjusts("sharpness"),
    "Posterize": Augmentation(lambda h, w: (8.0, 4.0), False, lambda f, x, m, _: f.posterize(x, round(m))),
    "Solarize": Augmentation(lambda h, w: (1.0, 0.0), False, _solarized),
    "AutoContrast": _plain("autocontrast"),
    "Equalize": _plain("equalize"),
}


class RandAugment(ImageTransform):
    """`num_ops` operations, each one of fourteen, of strength `magnitude` of `num_magnitude_bins`, of a random sign.

    Source: Cubuk et al., RandAugment (arXiv:1909.13719), as torchvision has it.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        interpolation: str = "nearest",
        fill: Fill | None = None,
    ) -> None:
        self.draws = 2 * num_ops
        self.magnitude = magnitude
        self.bins = num_magnitude_bins
        self.options = {"interpolation": interpolation, "fill": fill}

    def steps(self, drawn: Sequence[float], height: int, width: int) -> list[tuple[str, float]]:
        """The operations and their magnitudes, in order."""
        found = []
        for which, sign in zip(drawn[::2], drawn[1::2], strict=True):
            name, augmentation = list(AUGMENTATIONS.items())[int(which * len(AUGMENTATIONS))]
            magnitude = float(torch.linspace(*augmentation.ends(height, width), self.bins)[self.magnitude])
            found.append((name, -magnitude if augmentation.signed and sign <= 0.5 else magnitude))
        return found

    def image(self, x: Tensor, drawn: list[float]) -> Tensor:
        for name, magnitude in self.steps(drawn, *x.shape[-2:]):
            x = AUGMENTATIONS[name].apply(vision(), x, magnitude, self.options)
        return x
