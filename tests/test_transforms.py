"""Transforms of images beside torchvision's: the same result of what was drawn, drawn from the same distribution."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdsl.dsl import kinds, signatures
from tdsl.runtime import colors, transforms
from tdsl.runtime.data_error import DataError
from tdsl.runtime.images import ImageTransform, Unfit
from tests import stub_torchvision
from tests.helpers import ROOT, environment

DRAWS = 1500


@pytest.fixture(scope="module")
def v2() -> ModuleType:
    return stub_torchvision.transforms()


def images(rows: int = 6, channels: int = 3, height: int = 20, width: int = 26, *, u8: bool = False) -> Tensor:
    x = torch.rand(rows, channels, height, width, generator=torch.Generator().manual_seed(1))
    return (x * 255).byte() if u8 else x


def drawn(transform: ImageTransform, rows: int) -> Tensor | None:
    return transform.draw(rows, torch.Generator().manual_seed(2))


def made(name: str, args: dict[str, Any]) -> ImageTransform:
    found: ImageTransform = getattr(transforms, name)(**args)
    return found


# What torchvision computes of the parameters that were drawn; nothing where nothing is drawn.
def _crop(mine: Any, u: list[float], x: Tensor) -> dict[str, Any]:
    left, top, right, bottom = mine.border(*x.shape[-2:])
    height, width = x.shape[-2] + top + bottom, x.shape[-1] + left + right
    place = int(u[0] * (height - mine.size[0] + 1)), int(u[1] * (width - mine.size[1] + 1))
    return {"needs_crop": True, "needs_pad": True, "padding": [left, top, right, bottom], "top": place[0],
            "left": place[1], "height": mine.size[0], "width": mine.size[1]}  # fmt: skip


def _resized(mine: Any, u: list[float], x: Tensor) -> dict[str, Any]:
    return dict(zip(("top", "left", "height", "width"), mine.place(u, *x.shape[-2:]), strict=True))


def _erased(mine: Any, u: list[float], x: Tensor) -> dict[str, Any]:
    place = mine.place(u, *x.shape[-2:])
    if place is None:
        return {"v": None}
    i, j, h, w = place
    return {"i": i, "j": j, "h": h, "w": w, "v": mine._values(u[1], len(x), h, w)}


def _jittered(mine: Any, u: list[float], x: Tensor) -> dict[str, Any]:
    names = ["brightness", "contrast", "saturation", "hue"]
    changes = dict(mine.changes(u))
    order = sorted(range(4), key=lambda at: u[at])
    return {"fn_idx": torch.tensor(order), **{f"{name}_factor": changes.get(name) for name in names}}


PARAMETERS: dict[str, Callable[[Any, list[float], Tensor], dict[str, Any]]] = {
    "RandomCrop": _crop,
    "RandomResizedCrop": _resized,
    "RandomErasing": _erased,
    "ColorJitter": _jittered,
    "RandomRotation": lambda mine, u, x: {"angle": mine.angle(u)},
    "GaussianBlur": lambda mine, u, x: {"sigma": [mine.sigma(u)] * 2},
}

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("Resize", {"size": 12}),
    ("Resize", {"size": [33]}),
    ("Resize", {"size": [7, 40], "interpolation": "bicubic"}),
    ("Resize", {"size": [7, 40], "antialias": False}),
    ("Resize", {"size": 18, "max_size": 20, "interpolation": "nearest"}),
    ("Resize", {"size": (15, 15), "interpolation": "nearest-exact"}),
    ("CenterCrop", {"size": 9}),
    ("CenterCrop", {"size": [15, 40]}),
    ("CenterCrop", {"size": (41, 7)}),
    ("CenterCrop", {"size": [33, 35]}),
    ("Pad", {"padding": 3}),
    ("Pad", {"padding": [1, 2], "fill": 0.5}),
    ("Pad", {"padding": [1, 2, 3, 4], "fill": (0.1, 0.2, 0.3)}),
    ("Pad", {"padding": 3, "padding_mode": "edge"}),
    ("Pad", {"padding": [1, 2, 3, 4], "padding_mode": "reflect"}),
    ("Pad", {"padding": 5, "padding_mode": "symmetric"}),
    ("Grayscale", {}),
    ("Grayscale", {"num_output_channels": 3}),
    ("RandomCrop", {"size": [8, 11], "padding": 2}),
    ("RandomCrop", {"size": 30, "pad_if_needed": True, "fill": (0.1, 0.2, 0.3)}),
    ("RandomCrop", {"size": 16, "padding": [1, 2, 3, 4], "padding_mode": "reflect"}),
    ("RandomResizedCrop", {"size": 10}),
    ("RandomResizedCrop", {"size": (9, 14), "scale": (0.5, 0.9), "ratio": (1.0, 3.0), "interpolation": "nearest"}),
    ("RandomResizedCrop", {"size": 8, "scale": (0.9, 1.0), "ratio": (4.0, 5.0), "antialias": False}),
    ("RandomRotation", {"degrees": 40}),
    ("RandomRotation", {"degrees": (10, 80), "interpolation": "bilinear", "center": [3, 4], "fill": 0.7}),
    ("ColorJitter", {"brightness": 0.5, "contrast": (0.2, 1.9), "saturation": 0.8, "hue": 0.3}),
    ("ColorJitter", {"contrast": 2.0, "hue": (-0.1, 0.4)}),
    ("RandomErasing", {"p": 0.8}),
    ("RandomErasing", {"p": 1.0, "value": (0.1, 0.2, 0.3), "scale": (0.2, 0.9), "inplace": True}),
    ("RandomErasing", {"p": 1.0, "value": "random", "ratio": (0.2, 0.5)}),
    ("GaussianBlur", {"kernel_size": 5}),
    ("GaussianBlur", {"kernel_size": [3, 7], "sigma": 1.3}),
    ("GaussianBlur", {"kernel_size": [9, 1], "sigma": (0.5, 4.0)}),
]


@pytest.mark.parametrize("u8", [False, True], ids=["float", "u8"])
@pytest.mark.parametrize(("name", "args"), CALLS, ids=lambda value: str(value))
def test_a_result_is_torchvisions_for_what_was_drawn(v2: ModuleType, name: str, args: dict[str, Any], u8: bool) -> None:
    x = images(u8=u8)
    mine, theirs = made(name, args), getattr(v2, name)(**args)
    numbers = drawn(mine, len(x))
    for at, (image, out) in enumerate(zip(x.clone(), mine(x.clone(), numbers), strict=True)):
        u = [] if numbers is None else numbers[at].tolist()
        parameters = PARAMETERS.get(name, lambda *_: {})(mine, u, image)
        assert torch.equal(out, theirs.transform(image.clone(), parameters))


@pytest.mark.parametrize("name", ["RandomHorizontalFlip", "RandomVerticalFlip"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_share_p_of_images_is_flipped(v2: ModuleType, name: str, p: float) -> None:
    x = torch.rand(2000, 1, 2, 3)
    flip = made(name, {"p": p})
    found = flip(x, drawn(flip, len(x)))
    assert isinstance(found, Tensor)
    flipped = (found != x).flatten(1).any(1)
    assert abs(flipped.double().mean() - p) < 0.03
    assert torch.equal(found[flipped], getattr(v2, name)(p=1.0)(x[flipped]))
    assert torch.equal(found[~flipped], x[~flipped])


@pytest.mark.parametrize("u8", [False, True], ids=["float", "u8"])
@pytest.mark.parametrize("operation", colors.AUGMENTATIONS)
@pytest.mark.parametrize("options", [{}, {"fill": 0.5, "interpolation": "bilinear", "magnitude": 30}], ids=str)
def test_each_operation_of_rand_augment_is_torchvisions(
    v2: ModuleType, operation: str, options: dict[str, Any], u8: bool
) -> None:
    mine, theirs = transforms.RandAugment(1, **options), v2.RandAugment(1, **options)
    image = images(u8=u8)[0]
    at = (list(colors.AUGMENTATIONS).index(operation) + 0.5) / len(colors.AUGMENTATIONS)
    for sign in (0.2, 0.8):
        ((name, magnitude),) = mine.steps([at, sign], *image.shape[-2:])
        magnitudes, signed = theirs._AUGMENTATION_SPACE[operation]
        found = magnitudes(theirs.num_magnitude_bins, *image.shape[-2:])
        expected = 0.0 if found is None else float(found[theirs.magnitude])
        assert (name, round(magnitude) if name == "Posterize" else magnitude) == (
            operation,
            -expected if signed and sign <= 0.5 else expected,
        )
        applied = theirs._apply_image_or_video_transform(
            image, operation, expected if magnitude >= 0 else -expected, theirs.interpolation, theirs._fill
        )
        assert torch.equal(mine.image(image, [at, sign]), applied)


def test_the_operations_of_rand_augment_are_torchvisions(v2: ModuleType) -> None:
    assert list(colors.AUGMENTATIONS) == list(v2.RandAugment._AUGMENTATION_SPACE)
    for bins in range(2, 40):
        theirs = v2.RandAugment._AUGMENTATION_SPACE["Posterize"][0](bins, 1, 1)
        for magnitude in range(bins):
            mine = transforms.RandAugment(1, magnitude, bins)
            ((_, found),) = mine.steps([10.5 / 14, 0.0], 1, 1)
            assert round(found) == int(theirs[magnitude])


def test_to_tensor_scales_bytes_and_puts_channels_in_front(v2: ModuleType) -> None:
    from torchvision.transforms import functional

    image = (torch.rand(20, 26, 3) * 255).byte()
    to_tensor = transforms.ToTensor()
    for array in (image, image[..., 0], image[..., :1]):
        expected = functional.to_tensor(array.numpy())
        assert torch.equal(to_tensor(array[None], None)[0], expected)
        assert torch.equal(to_tensor([array], None)[0], expected)
    channels_first = image.movedim(-1, 0)[None]
    assert torch.equal(to_tensor(channels_first, None)[0], functional.to_tensor(image.numpy()))
    floats = torch.rand(2, 3, 4, 5)
    assert torch.equal(to_tensor(floats, None), floats)


@pytest.mark.parametrize("inplace", [False, True])
def test_normalize(v2: ModuleType, inplace: bool) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = v2.Normalize(mean, std)(images())
    torch.testing.assert_close(transforms.Normalize(mean, std, inplace)(images(), None), expected)


# Distributions -------------------------------------------------------------------------------------------------------


def apart(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest distance of two samples' distribution functions (Kolmogorov and Smirnov)."""
    both = np.sort(np.concatenate([mine, theirs]))
    steps = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (mine, theirs)]
    return float(np.abs(steps[0] - steps[1]).max())


DISTRIBUTIONS: list[tuple[str, dict[str, Any]]] = [
    ("RandomCrop", {"size": [8, 11], "padding": 2}),
    ("RandomCrop", {"size": 30, "pad_if_needed": True}),
    ("RandomResizedCrop", {"size": 10}),
    ("RandomResizedCrop", {"size": 10, "scale": (0.5, 0.9), "ratio": (1.0, 3.0)}),
    ("RandomRotation", {"degrees": (10, 80)}),
    ("RandomErasing", {"p": 1.0}),
    ("RandomErasing", {"p": 1.0, "scale": (0.3, 0.9), "ratio": (0.2, 1.0)}),
    ("ColorJitter", {"brightness": 0.5, "contrast": (0.2, 1.9), "saturation": 1.4, "hue": 0.3}),
    ("GaussianBlur", {"kernel_size": 5, "sigma": (0.5, 4.0)}),
]


@pytest.mark.parametrize(("name", "args"), DISTRIBUTIONS, ids=str)
def test_what_is_drawn_has_torchvisions_distribution(v2: ModuleType, name: str, args: dict[str, Any]) -> None:
    image = images()[0]
    mine, theirs = made(name, args), getattr(v2, name)(**args)
    numbers = drawn(mine, DRAWS)
    assert numbers is not None
    ours = [_numbers(PARAMETERS[name](mine, u, image)) for u in numbers.tolist()]
    torch.manual_seed(3)
    wanted = [_numbers(theirs.make_params([image])) for _ in range(DRAWS)]
    assert ours[0].keys() == wanted[0].keys()
    for parameter in ours[0]:
        # Two samples of 1,500 are further apart than 0.08 once in ten thousand times.
        assert apart([u[parameter] for u in ours], [u[parameter] for u in wanted]) < 0.08, parameter


def _numbers(parameters: dict[str, Any]) -> dict[str, float]:
    """Parameters as numbers: the order of changes by its rank; whether anything is erased."""
    found: dict[str, float] = {}
    for key, value in parameters.items():
        if key in ("needs_crop", "needs_pad", "padding"):
            continue
        if key == "fn_idx":
            found[key] = int("".join(map(str, value.tolist())))
        elif key == "v":
            found["erases"] = value is not None
        else:
            found[key] = value[0] if isinstance(value, list) else value
    if not found.get("erases", True):
        return {"erases": 0.0, "i": 0, "j": 0, "h": 0, "w": 0}
    return dict(sorted(found.items()))


def test_rand_augment_draws_every_operation_as_often(v2: ModuleType) -> None:
    augment = transforms.RandAugment(num_ops=3)
    numbers = drawn(augment, 2000)
    assert numbers is not None
    steps = [step for u in numbers.tolist() for step in augment.steps(u, 20, 26)]
    assert len(steps) == 6000
    for name, augmentation in colors.AUGMENTATIONS.items():
        magnitudes = [magnitude for found, magnitude in steps if found == name]
        assert abs(len(magnitudes) / 6000 - 1 / 14) < 0.015
        negative = sum(magnitude < 0 for magnitude in magnitudes) / len(magnitudes)
        assert abs(negative - 0.5 * augmentation.signed) < 0.1


# Images of several sizes, and those that do not fit ------------------------------------------------------------------


EVERY: list[tuple[str, dict[str, Any]]] = [
    *CALLS,
    ("RandomHorizontalFlip", {}),
    ("RandomVerticalFlip", {}),
    ("RandAugment", {}),
    ("Normalize", {"mean": (0.5,), "std": (0.5,)}),
    ("ToTensor", {}),
]


@pytest.mark.parametrize(("name", "args"), EVERY, ids=lambda value: str(value))
def test_an_image_looks_the_same_alone_and_among_others_of_other_sizes(
    v2: ModuleType, name: str, args: dict[str, Any]
) -> None:
    several = [images(1, height=20, width=26)[0], images(1, height=24, width=19)[0], images(1, height=20, width=20)[0]]
    transform = made(name, args)
    numbers = drawn(transform, 3)
    together = transform([each.clone() for each in several], numbers)
    for at, image in enumerate(several):
        alone = transform(image.clone()[None], None if numbers is None else numbers[at : at + 1])
        assert torch.equal(alone[0], together[at])
    if isinstance(together, Tensor):
        assert len({each.shape for each in together}) == 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "args"), EVERY, ids=lambda value: str(value))
def test_an_image_looks_the_same_in_every_batch(v2: ModuleType, name: str, args: dict[str, Any], threads: int) -> None:
    x = images(70)
    transform = made(name, args)
    numbers = drawn(transform, len(x))
    whole = transform(x.clone(), numbers)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for start, end in ((0, 1), (1, 70), (30, 33)):
            part = transform(x[start:end].clone(), None if numbers is None else numbers[start:end])
            assert all(map(torch.equal, part, whole[start:end]))
    finally:
        torch.set_num_threads(before)


def test_a_rotation_that_expands_gives_images_of_several_sizes(v2: ModuleType) -> None:
    x = images()
    rotation, resize = transforms.RandomRotation(90, expand=True), transforms.Resize((8, 9))
    turned = rotation(x, drawn(rotation, len(x)))
    assert isinstance(turned, list)
    assert len({each.shape for each in turned}) > 1
    whole = resize(turned, None)
    assert isinstance(whole, Tensor)
    assert whole.shape == (6, 3, 8, 9)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (transforms.RandomCrop(21), "21 x 21 from 20 x 26"),
        (transforms.Pad(20, padding_mode="reflect"), "more than an image of 20 x 26 has"),
        (transforms.Pad(21, padding_mode="symmetric"), "more than an image of 20 x 26 has"),
    ],
)
def test_an_image_that_does_not_fit_is_named(transform: ImageTransform, message: str) -> None:
    if isinstance(transform, transforms.Pad):
        stub_torchvision.transforms()  # which pads with the image itself
    fitting, other = images(1, height=60, width=60)[0], images(1)[0]
    with pytest.raises(Unfit, match=message) as found:
        transform([fitting, other], drawn(transform, 2))
    assert found.value.at == 1


def test_every_transform_of_the_language_is_there_with_its_arguments(v2: ModuleType) -> None:
    import inspect

    for name, signature in signatures.TRANSFORMS.items():
        if name == "Compose":
            continue
        mine = inspect.signature(getattr(transforms, name)).parameters
        assert list(mine) == [arg.name for arg in signature.args]
        for arg in signature.args:
            default = mine[arg.name].default
            assert (default is inspect.Parameter.empty) == (arg.default is kinds.Required)
            if arg.default is not kinds.Required:
                assert default == arg.default
                assert inspect.signature(getattr(v2, name)).parameters[arg.name].default == arg.default


def test_without_torchvision_what_needs_it_says_so() -> None:
    code = """
import sys, torch
sys.modules["torchvision"] = None
from tdsl.runtime.data_error import DataError
from tdsl.runtime.transforms import *
x = torch.rand(2, 3, 8, 8)
for plain in (CenterCrop(4), Pad(1), RandomCrop(4), RandomErasing(), RandomHorizontalFlip(), ToTensor()):
    plain(x, plain.draw(2, torch.Generator()))
try:
    Resize(4)(x, None)
except DataError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.startswith("torchvision: is needed"), ran.stderr
    assert "pip install torchvision" in ran.stdout
    assert issubclass(DataError, Exception)
