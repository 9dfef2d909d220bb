"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace the text of a file at once."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.rename(path)
    sync(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` appear at once with what `fill` writes; one that was there is replaced."""
    aside = begin_folder(path)
    try:
        fill(aside)
        end_folder(path)
    except BaseException:
        drop_folder(path)
        raise


def begin_folder(path: Path) -> Path:
    """An empty folder aside, which `end_folder` makes `path` of, or `drop_folder` removes."""
    aside = _aside(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def end_folder(path: Path) -> None:
    """Make the folder `path` appear at once as it is aside; one that was there is replaced."""
    aside = _aside(path)
    for file in aside.iterdir():
        sync(file)
    sync(aside)
    remove_folder(path)
    aside.rename(path)
    sync(path.parent)


def drop_folder(path: Path) -> None:
    """Remove what is aside."""
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def remove_folder(path: Path) -> None:
    """Remove a folder; where that is cut short, none of that name is left."""
    if path.exists():
        aside = path.with_name(f".{path.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a write or removal that was cut short has left in a folder."""
    for path in folder.glob(".*"):
        if path.name.endswith((".tmp", ".old")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
