"""Folders of images, one for each class, whose images are read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdsl.runtime.columns import Column, stack
from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.extras import extra
from tdsl.runtime.sources.files import folder, named, resolve
from tdsl.runtime.table import Array, Table

# Those that torchvision's ImageFolder takes.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Pillow's modes of more than 8 bits a channel, which it would cut off at 255.
WIDE = ("I", "F")


def image_folder(
    base: Path, path: str, *, mode: str = "RGB", classes: Sequence[str] | None = None, allow_outside: bool = False
) -> Table:
    """Images in a folder for each class: columns `image` (u8 [C, H, W]) and `label`, the rank of the class.

    Classes are numbered as torchvision's `ImageFolder` does; hidden files and folders are left out. `mode` is what
    images are converted to: `RGB`, `L` (grey) or `RGBA`. `classes` are those of the dataset, where it has several
    folders: see `class_names`.
    """
    extra("pillow", path, module="PIL")
    root = folder(base, path, allow_outside)
    found = class_names(base, path, allow_outside=allow_outside)
    classes = found if classes is None else list(classes)
    for name in found:
        if name not in classes:
            help = f"the classes are {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}"
            raise DataError(f"its class `{name}` is none of the other folder's", file=path, help=help)
    outside = None if allow_outside else Path(base).resolve()
    files = [[os.path.relpath(file, root) for file in _images(root / name, outside)] for name in found]
    for name, images in zip(found, files, strict=True):
        if not images:
            raise DataError("has no image", file=f"{path}/{name}", help=f"images end in {' '.join(EXTENSIONS)}")
    labels = np.repeat([classes.index(name) for name in found], [len(images) for images in files])
    column = Images(root, named(base, root), [file for images in files for file in images], mode)
    columns: dict[str, Array | Column] = {"image": column, "label": labels.astype(np.int64)}
    return Table(columns, ((path, len(column)),), {"label": classes})


def image_files(base: Path, path: str, *, mode: str = "RGB", allow_outside: bool = False) -> Table:
    """Images without classes, the column `image` alone: of a folder and those within, a file, or a glob."""
    extra("pillow", path, module="PIL")
    at = Path(base).resolve() / path
    outside = None if allow_outside else Path(base).resolve()
    found = [Path(each) for each in _images(at, outside)] if at.is_dir() else resolve(base, path, allow_outside)
    if not found:
        raise DataError("has no image", file=path, help=f"images end in {' '.join(EXTENSIONS)}")
    root = at if at.is_dir() else found[0].parent
    column = Images(root, named(base, root), [os.path.relpath(file, root) for file in found], mode)
    return Table({"image": column}, ((path, len(column)),))


def class_names(base: Path, path: str, *, allow_outside: bool = False) -> list[str]:
    """The names of the folders in a folder, sorted: name i is that of label i."""
    found = sorted(entry.name for entry in _visible(folder(base, path, allow_outside)) if entry.is_dir())
    if not found:
        help = "put the images of each class into a folder of their own: `folder/cat/1.png`"
        raise DataError("has no folders of classes", file=path, help=help)
    return found


class Images(Column):
    """Image files as u8 [C, H, W]; their sizes may differ."""

    uniform = False

    def __init__(self, root: Path, name: str, files: list[str], mode: str) -> None:
        self.root = root
        self.name = name
        self.files = files
        self.mode = mode

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Tensor) -> Tensor:
        return stack(self, self.rows(indices), indices)

    def rows(self, indices: Tensor) -> list[Tensor]:
        return [self._image(row) for row in indices.tolist()]

    def where(self, row: int) -> tuple[str, int | None]:
        return f"{self.name}/{self.files[row]}", None

    def _image(self, row: int) -> Tensor:
        from PIL import Image

        try:
            with Image.open(self.root / self.files[row]) as image:
                if image.mode.partition(";")[0] in WIDE:
                    what = f"has more than 8 bits a channel (mode {image.mode})"
                    raise self.error(row, what, help="save it with 8 bits, so that it is clear how values are scaled")
                return pixels(image.convert(self.mode))
        except DataError:
            raise
        except OSError as error:
            raise self.error(row, f"can't be read: {error.strerror or 'it is no image, or is damaged'}") from None
        except Exception as error:  # decoders list no errors for damaged files, and raise a dozen kinds
            raise self.error(row, f"can't be decoded: {error}") from None


def pixels(image: Any) -> Tensor:
    """An image of Pillow as u8 [C, H, W]."""
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def _visible(at: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(at) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _images(at: Path | str, outside: Path | None) -> Iterator[str]:
    """The images of a folder, then those of the folders within; links lead nowhere outside of `outside`."""
    folders = []
    for entry in _visible(at):
        if outside is not None and entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(outside):
            raise DataError(
                f"lies outside of {outside}",
                file=entry.path,
                help="copy it into the folder of the program, or allow this with `--allow-outside`",
            )
        if entry.is_dir():
            folders.append(entry.path)
        elif entry.name.lower().endswith(EXTENSIONS):
            yield entry.path
    for each in folders:
        yield from _images(each, outside)
