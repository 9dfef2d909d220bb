"""Rows of data as people look at them: where they are from, and each field as a number, a text or a small picture."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tdsl.runtime.columns import Column, Field, Values, place
from tdsl.runtime.data_error import DataError
from tdsl.runtime.loader import Split
from tdsl.runtime.table import Array, Fields, Table

# Edges of a picture, in pixels.
SMALLEST, LARGEST = 4, 72
# Rows in which a field's values are compared with a column's.
COMPARED = 64
# Channels of what is taken for an image.
GREY, COLOURS = 1, (3, 4)
MOST_LETTERS, MOST_NUMBERS = 160, 6


def describe(split: Split, position: int, names: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """The row at a position of a split: its `file`, its `row` there (from 1; None where the file is the row), `fields`.

    `names` has what the numbers of fields stand for. A field is `{"text": ...}` or
    `{"image": "data:image/png;base64,..."}`. What can't be read again is left out.
    """
    origin = split.origin or split
    index = int(origin.indices[position])
    table = table_of(origin)
    file, row = _where(origin.fields, table, index)
    shown = {name: _shown(value, index, (names or {}).get(name)) for name, value in origin.fields.items()}
    return {"file": file, "row": row, "fields": {name: value for name, value in shown.items() if value is not None}}


def table_of(split: Split) -> Table | None:
    """What the fields of a split were made of."""
    fields = (split.origin or split).fields
    return fields.table if isinstance(fields, Fields) else None


def field_names(split: Split) -> dict[str, Sequence[str]]:
    """What the numbers of fields stand for, where the source tells that of a column: the names of classes, say."""
    origin, table = split.origin or split, table_of(split)
    found = {} if table is None else {name: _names(value, table) for name, value in origin.fields.items()}
    return {name: names for name, names in found.items() if names is not None}


def _names(value: Values, table: Table) -> Sequence[str] | None:
    """The names of the column whose numbers a field has.

    A program may number them anew, and another column's may be like them in some rows: many are compared.
    """
    if not table.names or len(value.shape) > (1 if isinstance(value, Field) else 2):  # images have no names
        return None
    rows = torch.linspace(0, len(value) - 1, min(len(value), COMPARED)).long()
    try:
        own = value.take(rows) if isinstance(value, Field) else value[rows.to(value.device)].cpu()
    except (DataError, OSError):
        return None
    for column, names in table.names.items():
        if column in table.data and _same(own, table.data[column], rows):
            return names
    return None


def _same(own: Tensor, column: Array | Column, rows: Tensor) -> bool:
    """Whether a field has a column's integers in these rows."""
    try:
        other = np.asarray(column.take(rows) if isinstance(column, Column) else column[rows.numpy()])
    except (DataError, OSError):
        return False
    same = other.dtype.kind in "iu" and other.size == own.numel()
    return same and own.reshape(-1).tolist() == other.reshape(-1).tolist()


def _where(fields: Mapping[str, Values], table: Table | None, index: int) -> tuple[str, int | None]:
    lazy = next((value for value in fields.values() if isinstance(value, Field)), None)
    if lazy is not None:
        return lazy.where(index)
    return place(table.files, index) if table is not None else ("the data", index + 1)


def _shown(value: Values, index: int, names: Sequence[str] | None) -> dict[str, str] | None:
    try:
        row = value.rows(torch.tensor([index]))[0] if isinstance(value, Field) else value[index].cpu()
    except (DataError, OSError):
        return None
    if row.ndim == 3 and row.shape[0] in (GREY, *COLOURS) and min(row.shape[1:]) >= SMALLEST:
        return {"image": picture(row)}
    return {"text": _numbers(row) if names is None else _letters(row, names)}


def _letters(row: Tensor, names: Sequence[str]) -> str:
    """Tokens as text, or the name of a class beside its number."""
    if row.ndim:
        return excerpt([names[token] for token in row.reshape(-1)[: MOST_LETTERS + 1].tolist()])
    label = int(row)
    return f"{label} ({names[label]})" if 0 <= label < len(names) else f"{label}"  # -100 is no class


def excerpt(tokens: Sequence[str]) -> str:
    """The first characters of a text."""
    text = "".join(tokens).replace("\n", "↵")
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _numbers(row: Tensor) -> str:
    flat = row.reshape(-1)
    shown = ", ".join(
        f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in flat[:MOST_NUMBERS].tolist()
    )
    if len(flat) <= MOST_NUMBERS:
        return shown
    return f"{shown}, … ({' × '.join(map(str, row.shape))} numbers)"


# Pictures -----------------------------------------------------------------------------------------------------------


def picture(image: Tensor) -> str:
    """An image [C, H, W] as a small PNG in a data URL: bytes as they are, other values from the lowest to the highest.

    Values from 0 to 1 are kept as they are, too.
    """
    pixels = image.float().nan_to_num(0.0, 0.0, 0.0)
    low, high = float(pixels.min()), float(pixels.max())
    if image.dtype == torch.uint8:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    pixels = _small((pixels - low) / (high - low if high > low else 1.0))
    data = (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return f"data:image/png;base64,{base64.b64encode(png(data)).decode()}"


def _small(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[1:]
    factor = LARGEST / max(height, width)
    if factor >= 1:
        return pixels
    size = [max(1, math.floor(edge * factor)) for edge in (height, width)]
    return F.interpolate(pixels[None], size=size, mode="area")[0]


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A PNG file of bytes [H, W, C], C being 1 (grey), 3 (RGB) or 4 (RGBA); section 11 of the PNG specification."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    kind = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
