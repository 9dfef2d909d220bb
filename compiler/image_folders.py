"""Folders of images, one for each class: which classes and files there are, without a look into the images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from tdsl.compiler.headers import Column, Damaged

# Those that torchvision's ImageFolder takes.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
HELP = "put the images of each class into a folder of their own: `folder/cat/1.png`"


class ImageFolder:
    """The columns `image`, whose size the files alone know, and `label`, the rank of the class."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.classes = sorted(entry.name for entry in _visible(folder) if entry.is_dir())
        if not self.classes:
            raise Damaged("has no folders of classes", help=HELP)
        self.columns: Mapping[str, Column] = {"image": Column("int", None), "label": Column("int", ())}

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


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _images(folder: Path | str) -> Iterator[str]:
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _images(entry.path)
        elif entry.name.lower().endswith(EXTENSIONS):
            yield entry.path
