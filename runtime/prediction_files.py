"""Files that predictions are written to, a row for each row that was read: csv, jsonl, parquet and npz, by ending.

    csv      a column for each number: `NAME`, or `NAME.0`, `NAME.1` and on where a row has several
    jsonl    an object a row; several numbers are a list, and numbers that are not finite are null
    parquet  a column a result; several numbers are a list of fixed size
    npz      an array a result, [rows, ...]

Each has `row`, the number of the row in the source that was read, from 1, and of images in files `file`. A file appears
when it is whole.
"""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tdsl.runtime.settings import UsageError

Array: TypeAlias = npt.NDArray[Any]
Columns: TypeAlias = Mapping[str, Array]
ROW, FILE = "row", "file"


class Writer(Protocol):
    """Writes arrays [rows, ...] by name, those of a batch at a time."""

    def add(self, columns: Columns) -> None: ...

    def close(self) -> None: ...


def check(path: Path) -> None:
    """Raise `UsageError` for a file that none of the formats is for, or that has no folder to be in."""
    if path.suffix not in WRITERS:
        raise UsageError(f"`{path.name}` names no format", f"the endings are {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder `{path.parent}`", "make it first, or choose another")


def write(
    path: Path, batches: Iterable[Mapping[str, Tensor]], indices: Tensor | None = None, files: Sequence[str] = ()
) -> int:
    """Write the results of each batch, tensors [B, ...] by name, in order; the number of rows is returned.

    `indices` [rows] has the places in the source, from 0, of rows that are not all of it; `files` the file of each row,
    where each has its own.
    """
    check(path)
    aside = path.with_name(f".{path.name}.new")
    rows = 0
    try:
        writer = WRITERS[path.suffix](aside)
        try:
            for batch in batches:
                columns = {name: _array(value) for name, value in batch.items()}
                count = len(next(iter(columns.values())))
                named = {FILE: np.array(files[rows : rows + count])} if files else {}
                places = np.arange(rows, rows + count) if indices is None else indices[rows : rows + count].numpy()
                writer.add({ROW: places + 1, **named, **columns})
                rows += count
        finally:
            writer.close()
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return rows


def _array(value: Tensor) -> Array:
    """On the CPU; bfloat16, which files do not have, as float32."""
    value = value.detach().cpu()
    found: Array = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return found


def _numbers(array: Array) -> list[Any]:
    """As Python's, with the fewest digits that tell the number in the array's own precision."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = array.astype(str).astype(np.float64)
    found: list[Any] = array.tolist()
    return found


class _Csv:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.writer = csv.writer(self.file)
        self.begun = False

    def add(self, columns: Columns) -> None:
        flat = {name: array.reshape(len(array), -1) for name, array in columns.items()}
        if not self.begun:
            self.writer.writerow([name for key, array in flat.items() for name in _header(key, array)])
            self.begun = True
        for row in zip(*map(_numbers, flat.values()), strict=True):
            self.writer.writerow([value for part in row for value in part])

    def close(self) -> None:
        self.file.close()


def _header(name: str, array: Array) -> list[str]:
    return [name] if array.shape[1] == 1 else [f"{name}.{i}" for i in range(array.shape[1])]


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, columns: Columns) -> None:
        for values in zip(*map(_numbers, columns.values()), strict=True):
            row = {name: _finite(value) for name, value in zip(columns, values, strict=True)}
            self.file.write(json.dumps(row, allow_nan=False) + "\n")

    def close(self) -> None:
        self.file.close()


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None

    def add(self, columns: Columns) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table({name: _arrow(array) for name, array in columns.items()})
        self.writer = self.writer or parquet.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _arrow(array: Array) -> Any:
    """[rows, ...] as lists of fixed size, in one another where there are several dimensions."""
    import pyarrow as pa

    found = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        found = pa.FixedSizeListArray.from_arrays(found, size)
    return found


class _Npz:
    """An archive has one array a name: all batches are kept until the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, list[Array]] = {}

    def add(self, columns: Columns) -> None:
        for name, array in columns.items():
            self.parts.setdefault(name, []).append(array)

    def close(self) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED) as archive:
            for name, parts in self.parts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.concatenate(parts), allow_pickle=False)


WRITERS: Mapping[str, Callable[[Path], Writer]] = {".csv": _Csv, ".jsonl": _Jsonl, ".parquet": _Parquet, ".npz": _Npz}
