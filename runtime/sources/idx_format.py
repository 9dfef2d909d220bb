"""The IDX format of MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.files import read
from tdsl.runtime.table import Array, Table

# Element types of the IDX format, by the third byte of its header; all are big-endian.
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(base: Path, images: str, labels: str | None = None, *, allow_outside: bool = False) -> Table:
    """MNIST's format, compressed or not: columns `image` [1, H, W] and, where there are labels, `label`."""
    table = read(base, images, allow_outside, _images)
    if labels is None:
        return table
    named = read(base, labels, allow_outside, _labels)
    if named.rows != table.rows:
        raise DataError(
            f"{named.rows} labels for the {table.rows} images of {images}",
            file=labels,
            help="name the labels file that belongs to these images",
        )
    return Table({**table.data, **named.data}, table.files, apart={"label": named.files})


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
