"""What each transform makes of an image's shape, and what it can't be given: torchvision's rules, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from tdsl.dsl.diagnostics import fail
from tdsl.dsl.kinds import Required
from tdsl.dsl.program import Call, Constant
from tdsl.dsl.signatures import TRANSFORMS

# [channels, height, width] of one image. None is a size that is not known, VARIES one that differs from row to row.
Dim = int | None
Dims = tuple[Dim, ...]
VARIES = -1
UNKNOWN: Dims = (None, None, None)
MEANING = {
    "size": "one number is height and width, or the shorter edge; two are height and width",
    "kernel_size": "one number is height and width; two are height and width",
    "padding": "two numbers are left and right, top and bottom; four are left, top, right, bottom",
}
FLOATS = frozenset({"float", "f64", "f32", "f16", "bf16"})
# Transforms after which an image may have another shape.
RESIZING = frozenset(
    ("Resize", "CenterCrop", "RandomCrop", "RandomResizedCrop", "RandomRotation", "Pad", "Grayscale", "ToTensor")
)
# What an array's dimension of channels is told by.
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Image:
    """What a transform is given: the shape, and the type of the values by the language's name."""

    shape: Dims
    dtype: str


@dataclass(frozen=True)
class _Given:
    """A call, its arguments with their defaults."""

    call: Call

    def __getitem__(self, name: str) -> Constant:
        default = next(arg.default for arg in TRANSFORMS[self.call.name].args if arg.name == name)
        return self.call.args.get(name, None if default is Required else default)

    def numbers(self, name: str) -> tuple[float, ...]:
        """An argument that is one number or several."""
        value = self[name]
        found = value if isinstance(value, tuple) else (value,)
        return tuple(each for each in found if isinstance(each, (int, float)))

    def counted(self, name: str, *lengths: int) -> tuple[int, ...]:
        """Whole numbers, of which there may be only so many."""
        found = self.numbers(name)
        if len(found) not in lengths:
            listed = f"{', '.join(map(str, lengths[:-1]))} or {lengths[-1]} numbers"
            self.refuse(f"`{name}` is {listed}, not {len(found)}", help=MEANING.get(name, ""))
        return tuple(map(int, found))

    def size(self, name: str = "size") -> tuple[int, int]:
        """Height and width, of which one number is both."""
        found = self.counted(name, 1, 2)
        return found[0], found[-1]

    def rising(self, name: str, low: float, high: float) -> None:
        """Refuse two numbers that are not a range within these limits."""
        found = self.numbers(name)
        if len(found) == 2 and not low <= found[0] <= found[1] <= high:
            within = f"{low:g} and {high:g}" if high < float("inf") else f"{low:g} and more"
            self.refuse(f"`{name}` is a range within {within}", help="write the smaller number first")

    def refuse(self, message: str, label: str = "", help: str = "") -> NoReturn:
        fail("E454", f"`{self.call.name}`: {message}", self.call.span, label, help=help)


def transformed(call: Call, image: Image) -> Image:
    """What the transform makes of an image. Raises `ProgramError` for one that it can't take."""
    given = _Given(call)
    if call.name == "ToTensor":
        return _to_tensor(given, image)
    if len(image.shape) != 3:
        help = 'declare images: `float[3, 32, 32]`; numbers are scaled in the field, as in `column("x") / 16`'
        given.refuse("needs images [channels, height, width]", f"the rows have the shape {shown(image.shape)}", help)
    return Image(_RULES[call.name](given, image), image.dtype)


def shown(shape: Dims) -> str:
    """A shape as text; what is not known as `?`."""
    return f"[{', '.join('?' if size in (None, VARIES) else str(size) for size in shape)}]"


def _to_tensor(given: _Given, image: Image) -> Image:
    """[H, W] and [H, W, C] get their channels in front."""
    shape = image.shape
    if len(shape) not in (2, 3):
        given.refuse("needs images", f"the rows have the shape {shown(shape)}", "reshape the columns in the field")
    if len(shape) == 2:
        shape = (1, *shape)
    elif shape[0] not in (None, *CHANNELS) and shape[2] in CHANNELS:
        shape = (shape[2], shape[0], shape[1])
    return Image(shape, "float" if image.dtype == "u8" else image.dtype)


# Rules ---------------------------------------------------------------------------------------------------------------


def _keeps(given: _Given, image: Image) -> Dims:
    return image.shape


def _colours(given: _Given, image: Image) -> Dims:
    """What is only defined of grey and of red, green and blue."""
    if image.shape[0] not in (None, 1, 3):
        given.refuse("needs images of 1 or 3 channels", f"these have {image.shape[0]}", "choose channels in the field")
    return image.shape


def _normalize(given: _Given, image: Image) -> Dims:
    channels, *rest = image.shape
    mean, std = given.numbers("mean"), given.numbers("std")
    if len(mean) != len(std):
        given.refuse(f"{len(mean)} means and {len(std)} deviations", help="give one of each for each channel")
    if channels is not None and len(mean) not in (1, channels):
        given.refuse(f"{len(mean)} means for images of {channels} channels",
                     help=f"give one mean and one deviation, or {channels} of each")  # fmt: skip
    if image.dtype not in FLOATS:
        help = "declare the field as `float`, or put `ToTensor()` first"
        given.refuse("needs floats", f"the values are {image.dtype}", help)
    return channels if channels is not None or len(mean) == 1 else len(mean), *rest


def _resize(given: _Given, image: Image) -> Dims:
    channels, height, width = image.shape
    size, longest = given.counted("size", 1, 2), given["max_size"]
    if len(size) == 2:
        if longest is not None:
            given.refuse("`max_size` goes with one number, the size of the shorter edge", help="take `max_size` out")
        return channels, *size
    if isinstance(longest, int) and longest <= size[0]:
        given.refuse(f"`max_size` is greater than the {size[0]} of the shorter edge", help="give it a larger number")
    if height == VARIES or width == VARIES:
        return channels, VARIES, VARIES
    if height is None or width is None:
        return channels, None, None
    long = int(size[0] * max(height, width) / min(height, width))
    short = size[0]
    if isinstance(longest, int) and long > longest:
        short, long = int(longest * short / long), longest
    return (channels, long, short) if width <= height else (channels, short, long)


def _cropped(given: _Given, image: Image) -> Dims:
    return image.shape[0], *given.size()


def _padding(given: _Given) -> tuple[int, int]:
    """Rows and columns that are added."""
    if given["padding"] is None:
        return 0, 0
    found = given.counted("padding", 1, 2, 4)
    left, top, right, bottom = found if len(found) == 4 else (found[0], found[-1], found[0], found[-1])
    return top + bottom, left + right


def _fill(given: _Given, image: Image) -> None:
    fill, channels = given["fill"], image.shape[0]
    if isinstance(fill, tuple) and channels is not None and len(fill) not in (1, channels):
        given.refuse(f"`fill` has {len(fill)} values for {channels} channels", help=f"give one number, or {channels}")


def _border(given: _Given, image: Image) -> tuple[int, int]:
    """Rows and columns that are added, by a border that the image has room for."""
    _fill(given, image)
    mode = str(given["padding_mode"])
    if mode != "constant" and isinstance(given["fill"], tuple):
        help = 'give one number, or `padding_mode="constant"`'
        given.refuse(f'`fill` has no effect with `padding_mode="{mode}"`', help=help)
    room = {"reflect": 1, "symmetric": 0}.get(mode)
    padding = given.counted("padding", 1, 2, 4) if given["padding"] is not None else (0,)
    across, down = max(padding[0::2]), max(padding[1::2] or padding)
    for size, most in ((image.shape[1], down), (image.shape[2], across)):
        if room is not None and size is not None and size != VARIES and most > size - room:
            given.refuse(f"a border of {most} can't be taken from images of {shown(image.shape[1:])}",
                         help="pad less, or with `padding_mode = \"edge\"`")  # fmt: skip
    return _padding(given)


def _pad(given: _Given, image: Image) -> Dims:
    rows, columns = _border(given, image)
    channels, height, width = image.shape
    return channels, _more(height, rows), _more(width, columns)


def _more(size: Dim, added: int) -> Dim:
    return size if size in (None, VARIES) else size + added


def _random_crop(given: _Given, image: Image) -> Dims:
    _, height, width = _pad(given, image)
    size = given.size()
    small = any(have not in (None, VARIES) and have < want for have, want in zip((height, width), size, strict=True))
    if small and not given["pad_if_needed"]:
        help = "crop less, or give `padding`, or `pad_if_needed=true`"
        given.refuse(f"a crop of {size[0]} x {size[1]} from images of {height} x {width}", help=help)
    return image.shape[0], *size


def _resized_crop(given: _Given, image: Image) -> Dims:
    given.rising("scale", 0, 1)
    given.rising("ratio", 0, float("inf"))
    return _cropped(given, image)


def _erasing(given: _Given, image: Image) -> Dims:
    given.rising("scale", 0, 1)
    given.rising("ratio", 0, float("inf"))
    value, channels = given["value"], image.shape[0]
    if isinstance(value, tuple) and channels is not None and len(value) not in (1, channels):
        given.refuse(f"`value` has {len(value)} numbers for {channels} channels", help=f"give one, or {channels}")
    return image.shape


def _rotation(given: _Given, image: Image) -> Dims:
    given.rising("degrees", -float("inf"), float("inf"))
    _fill(given, image)
    return (image.shape[0], VARIES, VARIES) if given["expand"] else image.shape


def _jitter(given: _Given, image: Image) -> Dims:
    for name in ("brightness", "contrast", "saturation"):
        given.rising(name, 0, float("inf"))
    given.rising("hue", -0.5, 0.5)
    hue = given.numbers("hue")
    if len(hue) == 1 and hue[0] > 0.5:
        given.refuse("`hue` is at most 0.5, half a turn", help="give it a smaller number")
    return _colours(given, image)


def _grayscale(given: _Given, image: Image) -> Dims:
    channels = given["num_output_channels"]
    if channels not in (1, 3):
        given.refuse(f"`num_output_channels` is 1 or 3, not {channels}", help="write `Grayscale()` for one channel")
    return int(str(channels)), *_colours(given, image)[1:]


def _blur(given: _Given, image: Image) -> Dims:
    kernel = given.size("kernel_size")
    if not all(size % 2 for size in kernel):
        given.refuse("`kernel_size` is odd, so that a pixel is in the middle", help=f"such as {kernel[0] | 1}")
    given.rising("sigma", 0, float("inf"))
    for have, size in zip(image.shape[1:], kernel, strict=True):
        if have not in (None, VARIES) and size // 2 >= have:
            what = f"a kernel of {kernel[0]} x {kernel[1]} is too large for images of {shown(image.shape[1:])}"
            given.refuse(what, help=f"at most {2 * have - 1} fits in {have}")
    return image.shape


def _augment(given: _Given, image: Image) -> Dims:
    bins, magnitude = given.numbers("num_magnitude_bins")[0], given.numbers("magnitude")[0]
    if bins < 2 or magnitude >= bins:
        help = "magnitudes are from 0 to `num_magnitude_bins` - 1"
        given.refuse(f"a magnitude of {magnitude} of {bins} bins", help=help)
    _fill(given, image)
    return _colours(given, image)


_RULES: Mapping[str, Callable[[_Given, Image], Dims]] = {
    "Resize": _resize,
    "CenterCrop": _cropped,
    "RandomCrop": _random_crop,
    "RandomResizedCrop": _resized_crop,
    "RandomHorizontalFlip": _keeps,
    "RandomVerticalFlip": _keeps,
    "RandomRotation": _rotation,
    "ColorJitter": _jitter,
    "RandomErasing": _erasing,
    "Grayscale": _grayscale,
    "GaussianBlur": _blur,
    "Normalize": _normalize,
    "Pad": _pad,
    "RandAugment": _augment,
}
