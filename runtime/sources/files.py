"""Where data files are, and how tables are made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tdsl.runtime.data_error import DataError
from tdsl.runtime.table import Array, Table


def resolve(base: Path, path: str, allow_outside: bool = False) -> list[Path]:
    """The files that a path or a glob names, sorted; at least one."""
    base = Path(base).resolve()
    named = base / path
    if named.is_file():
        found = [named]
    elif re.search(r"[*?[]", path) and not Path(path).is_absolute():
        found = sorted(each for each in base.glob(path) if each.is_file())
    else:
        found = []
    if not found:
        what = "is a folder, not a file" if named.is_dir() else f"no such file in {base}"
        raise DataError(what, file=path, help="paths are relative to the folder of the program")
    for each in found:
        _within(each, base, path, allow_outside)
    return found


def folder(base: Path, path: str, allow_outside: bool = False) -> Path:
    """The folder that a path names."""
    found = inside(base, path, allow_outside)
    if not found.is_dir():
        what = "is a file, not a folder" if found.is_file() else f"no such folder in {Path(base).resolve()}"
        raise DataError(what, file=path, help="paths are relative to the folder of the program")
    return found


def inside(base: Path, path: str, allow_outside: bool = False) -> Path:
    """A path from the program's folder, which it does not leave; nothing need be there."""
    base = Path(base).resolve()
    _within(base / path, base, path, allow_outside)
    return base / path


def _within(file: Path, base: Path, path: str, allow_outside: bool) -> None:
    if not allow_outside and not file.resolve().is_relative_to(base):
        raise DataError(
            f"lies outside of {base}",
            file=path,
            help="copy it into the folder of the program, or allow this with `--allow-outside`",
        )


def named(base: Path, file: Path) -> str:
    """What errors call a file: its path from `base`, where it lies there."""
    root = Path(base).resolve()
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)


def read(base: Path, path: str, allow_outside: bool, reader: Callable[[Path, str], Mapping[str, Array]]) -> Table:
    """One table of the files of a path, each read by `reader(file, name)`."""
    parts = []
    for file in resolve(base, path, allow_outside):
        name = named(base, file)
        try:
            parts.append(_part(reader(file, name), name))
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}", file=name) from None
    return parts[0] if len(parts) == 1 else _below(parts)


def _part(columns: Mapping[str, Array], name: str) -> Table:
    counts = {column: len(array) if array.ndim else 0 for column, array in columns.items()}
    rows = max(counts.values(), default=0)
    for column, count in counts.items():
        if count != rows:
            first = next(each for each in counts if counts[each] == rows)
            raise DataError(f"column `{column}` has {count} rows, and `{first}` has {rows}", file=name)
    if rows == 0:
        raise DataError("holds no rows", file=name)
    return Table(columns, ((name, rows),))


def _below(parts: list[Table]) -> Table:
    """One table of several files that have the same columns."""
    first = parts[0]
    for part in parts[1:]:
        for name in first.data.keys() ^ part.data.keys():
            lacking = part if name in first.data else first
            other = first if lacking is part else part
            raise DataError(f"has no column `{name}`, which {other.files[0][0]} has", file=lacking.files[0][0])
        for name in first.data:
            if part.values(name).shape[1:] != first.values(name).shape[1:]:
                raise DataError(
                    f"column `{name}` has rows of shape {list(part.values(name).shape[1:])}, "
                    f"and those of {first.files[0][0]} have {list(first.values(name).shape[1:])}",
                    file=part.files[0][0],
                )
    columns = {name: _stack([part.values(name) for part in parts]) for name in first.data}
    return Table(columns, tuple(part.files[0] for part in parts))


def _stack(arrays: list[Array]) -> Array:
    """Arrays end to end; as objects where some hold text, so that no number becomes text."""
    if len({array.dtype.kind in "OSUMm" for array in arrays}) > 1:
        arrays = [array.astype(object) for array in arrays]
    return np.concatenate(arrays)
