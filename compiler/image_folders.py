"""Folders of images, one for each class: which classes and files there are, without a look into the images."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO

from tdsl.compiler.headers import Column, Damaged

# Markers of a JPEG's frames: all of 0xC0 to 0xCF but for tables.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Those that torchvision's ImageFolder takes.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Channels of each mode of an image.
CHANNELS = {"RGB": 3, "L": 1, "RGBA": 4}
HELP = "put the images of each class into a folder of their own: `folder/cat/1.png`"


class ImageFolder:
    """The columns `image`, in the size of the first one where its header is known, and `label`, the class's rank."""

    def __init__(self, folder: Path, mode: str = "RGB") -> None:
        self.folder = folder
        self.classes = sorted(entry.name for entry in _visible(folder) if entry.is_dir())
        if not self.classes:
            raise Damaged("has no folders of classes", help=HELP)
        first = next(_images(folder / self.classes[0]), None)
        size = None if first is None else image_size(Path(first))
        shape = None if size is None else (CHANNELS[mode], *size)
        self.columns: Mapping[str, Column] = {"image": Column("int", shape, varies=True), "label": Column("int", ())}

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Images of each class."""
        counts = tuple(sum(1 for _ in _images(self.folder / name)) for name in self.classes)
        for name, count in zip(self.classes, counts, strict=True):
            if not count:
                raise Damaged(f"its class `{name}` has no image", help=f"images end in {' '.join(EXTENSIONS)}")
        return counts

    def rows(self) -> int:
        return sum(self.counts)

    def labels(self, column: str) -> tuple[int, int]:
        """The smallest and the largest label."""
        if column != "label":
            raise Damaged("images are no labels", help='the classes are `column("label")`')
        return 0, len(self.classes) - 1


def image_size(file: Path) -> tuple[int, int] | None:
    """Height and width, as the header of a PNG, JPEG or BMP tells them; None of another file."""
    with file.open("rb") as opened:
        start = opened.read(26)
        if start[:8] == b"\x89PNG\r\n\x1a\n" and len(start) >= 24:
            width, height = struct.unpack(">II", start[16:24])
            return height, width
        if start[:2] == b"BM" and len(start) == 26:
            width, height = struct.unpack("<ii", start[18:26])
            return abs(height), width
        return _jpeg_size(opened) if start[:2] == b"\xff\xd8" else None


def _jpeg_size(opened: IO[bytes]) -> tuple[int, int] | None:
    """The size that a frame's header tells (ITU T.81, B.2.2), behind segments that each tell their length."""
    opened.seek(2)
    while len(marker := opened.read(4)) == 4 and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # bytes may stand before a marker to fill up
            opened.seek(-3, os.SEEK_CUR)
            continue
        if marker[1] in FRAMES:
            frame = opened.read(5)
            height, width = struct.unpack(">HH", frame[1:]) if len(frame) == 5 else (0, 0)
            return (height, width) if height else None
        opened.seek(int.from_bytes(marker[2:], "big") - 2, os.SEEK_CUR)
    return None


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _images(folder: Path | str) -> Iterator[str]:
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _images(entry.path)
        elif entry.name.lower().endswith(EXTENSIONS):
            yield entry.path
