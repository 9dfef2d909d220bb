"""Data files read into tables of columns.

Every reader takes the folder that paths are relative to and a path or a glob, whose files are read in sorted order,
one below the other. A path may leave the folder, by `..`, a link or as an absolute path, only with `allow_outside`.
All raise `DataError` for what can't be read.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdsl.runtime.data_error import DataError
from tdsl.runtime.table import Array, Table

__all__ = ["DataError", "Table", "csv", "idx", "npy", "npz", "parquet", "text"]

# Element types of the IDX format, by the third byte of its header; all are big-endian.
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# A block as large as the file, so that a column's type is inferred from all of its rows.
LARGEST_BLOCK = 2**31 - 1


def csv(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """Comma-separated values with a header; an empty cell is a missing value, and blank lines are skipped."""
    return _read(base, path, allow_outside, _csv)


def parquet(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """An Apache Parquet file; a column of equally long lists has them as its rows."""
    return _read(base, path, allow_outside, _parquet)


def npz(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """NumPy arrays by name, all with the same number of rows."""
    return _read(base, path, allow_outside, _npz)


def npy(base: Path, path: str, *, allow_outside: bool = False) -> Table:
    """One NumPy array, as the column `data`; a structured array has its own columns."""
    return _read(base, path, allow_outside, _npy)


def idx(base: Path, images: str, labels: str | None = None, *, allow_outside: bool = False) -> Table:
    """MNIST's format, compressed or not: columns `image` [1, H, W] and, where there are labels, `label`."""
    table = _read(base, images, allow_outside, _images)
    if labels is None:
        return table
    named = _read(base, labels, allow_outside, _labels)
    if named.rows != table.rows:
        raise DataError(
            f"{named.rows} labels for the {table.rows} images of {images}",
            file=labels,
            help="name the labels file that belongs to these images",
        )
    return Table({**table.data, **named.data}, table.files)


def text(base: Path, path: str, *, window: int = 256, allow_outside: bool = False) -> Table:
    """Text by characters, cut into windows: columns `tokens` and `targets` [window], the targets one position on.

    A character's number is its rank among the file's distinct characters in code point order. Windows do not overlap;
    the characters behind the last full one are left out.
    """
    files = resolve(base, path, allow_outside)
    codes = np.frombuffer("".join(map(_decode, files)).encode("utf-32-le"), dtype="<u4")
    rows = (len(codes) - 1) // window
    if rows < 1:
        raise DataError(
            f"{len(codes)} characters are too few for a window of {window} and its targets",
            file=path,
            help=f"a window of at most {max(len(codes) - 1, 1)} fits",
        )
    tokens = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    columns = {"tokens": tokens[: rows * window], "targets": tokens[1 : rows * window + 1]}
    return Table({name: column.reshape(rows, window) for name, column in columns.items()}, ((path, rows),))


# Files ---------------------------------------------------------------------------------------------------------------


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
        if not allow_outside and not each.resolve().is_relative_to(base):
            raise DataError(
                f"lies outside of {base}",
                file=path,
                help="copy it into the folder of the program, or allow this with `--allow-outside`",
            )
    return found


def _read(base: Path, path: str, allow_outside: bool, reader: Callable[[Path, str], Mapping[str, Array]]) -> Table:
    root = Path(base).resolve()
    parts = []
    for file in resolve(base, path, allow_outside):
        name = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
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


def _decode(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 (byte {error.start})", file=file.name, help="save it as UTF-8") from None


# Readers -------------------------------------------------------------------------------------------------------------


def _csv(file: Path, name: str) -> Mapping[str, Array]:
    import pyarrow as pa
    from pyarrow import csv as reader

    size = file.stat().st_size
    if size == 0:
        raise DataError("is empty", file=name)

    def read(threads: bool) -> Any:
        options = reader.ReadOptions(use_threads=threads, block_size=min(size + 1, LARGEST_BLOCK))
        return reader.read_csv(file, read_options=options)

    try:
        table = read(True)
    except pa.ArrowInvalid:
        try:
            table = read(False)  # tells the row
        except pa.ArrowInvalid as error:
            raise _malformed(str(error), name) from None
    return _arrow_columns(table, name)


def _malformed(message: str, name: str) -> DataError:
    """Arrow's complaint, with its line counted from the header turned into a data row."""
    found = re.fullmatch(r"(?:CSV parse error: )?(?:Row #(\d+): )?(.*)", message, re.DOTALL)
    line, what = found.groups() if found else (None, message)
    what = what[:1].lower() + what[1:].splitlines()[0][:200] if what else message
    return DataError(what, file=name, row=int(line) - 1 if line else None)


def _parquet(file: Path, name: str) -> Mapping[str, Array]:
    import pyarrow as pa
    from pyarrow import parquet as reader

    try:
        table = reader.ParquetFile(file).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"is not a Parquet file that can be read: {str(error)[:200]}", file=name) from None
    return _arrow_columns(table, name)


def _arrow_columns(table: Any, name: str) -> Mapping[str, Array]:
    try:
        names = table.column_names
    except UnicodeDecodeError:
        raise DataError("its header is not UTF-8", file=name, help="save the file as UTF-8") from None
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"has several columns of the name `{column}`", file=name, help="rename all but one")
    return {column: _arrow(table.column(at), name, column) for at, column in enumerate(names)}


def _arrow(array: Any, name: str, column: str) -> Array:
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _arrow(array.dictionary_decode(), name, column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _arrow_lists(array, name, column)
    if pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    if pa.types.is_boolean(kind) and array.null_count:
        array = array.cast(pa.uint8()).cast(pa.float64())
    found: Array = array.to_numpy(zero_copy_only=False)
    return found


def _arrow_lists(array: Any, name: str, column: str) -> Array:
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~(lengths == lengths[:1])) if len(lengths) else lengths
    if len(wrong):
        row, length = int(wrong[0]), lengths[wrong[0]]
        what = "is missing" if math.isnan(length) else f"has {int(length)} values, and row 1 has {int(lengths[0])}"
        raise DataError(f"its list {what}", file=name, row=row + 1, field=column)
    values = _arrow(array.flatten(), name, column)
    return values.reshape(len(array), -1, *values.shape[1:])


def _npz(file: Path, name: str) -> Mapping[str, Array]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: np.asarray(arrays[key]) for key in arrays.files}
    except OSError:
        raise
    except Exception as error:  # NumPy lists no errors for damaged files, and raises a dozen kinds
        raise _not_numpy(error, name, "an .npz") from None


def _npy(file: Path, name: str) -> Mapping[str, Array]:
    try:
        array = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        raise _not_numpy(error, name, "an .npy") from None
    if not isinstance(array, np.ndarray):
        raise DataError("holds several arrays", file=name, help="read it with `npz(...)`")
    if array.dtype.names:
        return {key: array[key] for key in array.dtype.names}
    return {"data": array}


def _not_numpy(error: Exception, name: str, kind: str) -> DataError:
    if "allow_pickle" in str(error):
        return DataError(
            "holds Python objects, or is no NumPy file",
            file=name,
            help="save arrays of numbers; arrays of objects are not read, as that could run code",
        )
    return DataError(f"is not {kind} file, or is damaged: {error}", file=name)


def _images(file: Path, name: str) -> Mapping[str, Array]:
    array = _idx(file, name)
    return {"image": array[:, None] if array.ndim == 3 else array}


def _labels(file: Path, name: str) -> Mapping[str, Array]:
    return {"label": _idx(file, name)}


def _idx(file: Path, name: str) -> Array:
    content = _inflate(file, name)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise DataError("is not an IDX file: its first bytes are none of the format's", file=name)
    dtype, dims = np.dtype(IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * dims
    if not dims or len(content) < start:
        raise DataError("is not an IDX file: its header is too short", file=name)
    shape: tuple[int, ...] = struct.unpack(f">{dims}I", content[4:start])
    expected, found = math.prod(shape) * dtype.itemsize, len(content) - start
    if expected != found:
        raise DataError(f"its header tells {list(shape)}, {expected} bytes of values, and {found} follow", file=name)
    values: npt.NDArray[Any] = np.frombuffer(content, dtype, offset=start)
    return values.reshape(shape)


def _inflate(file: Path, name: str) -> bytes:
    content = file.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"is a damaged gzip file: {error}", file=name, help="fetch or compress it again") from None
