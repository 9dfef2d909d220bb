"""The header of a safetensors file: https://huggingface.co/docs/safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from tdsl.compiler.headers import Column, Damaged, integers

# Its names of types: the kind, and NumPy's letter and size of integers.
TYPES = {"BOOL": ("bool", "b", 1), "U8": ("int", "u", 1), "I8": ("int", "i", 1), "I16": ("int", "i", 2)}
TYPES |= {"U16": ("int", "u", 2), "I32": ("int", "i", 4), "U32": ("int", "u", 4), "I64": ("int", "i", 8)}
TYPES |= {"U64": ("int", "u", 8)}
# A header larger than this is none.
LARGEST = 100 << 20


class Safetensors:
    """The tensors of a file, each a column, all with the same number of rows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.start, self.tensors = _header(file)
        if not self.tensors:
            raise Damaged("holds no tensors")
        counts = {name: shape[0] if shape else 0 for name, (_, shape, _) in self.tensors.items()}
        most, first = max((count, name) for name, count in counts.items())
        for name, count in counts.items():
            if count != most:
                raise Damaged(f"column `{name}` has {count} rows, and `{first}` has {most}")
        if not most:
            raise Damaged("holds no rows")
        self.columns: Mapping[str, Column] = {
            name: Column(TYPES.get(kind, ("float",))[0], shape[1:]) for name, (kind, shape, _) in self.tensors.items()
        }

    def rows(self) -> int:
        return next(iter(self.tensors.values()))[1][0]

    def labels(self, column: str) -> tuple[int, int]:
        """The smallest and the largest label."""
        kind, _, (begin, end) = self.tensors[column]
        _, letter, size = TYPES.get(kind, ("float", "f", 4))
        with self.file.open("rb") as opened:
            opened.seek(self.start + begin)
            values = integers(opened.read(end - begin), letter, size, big_endian=False)
        return min(values), max(values)


Tensors = dict[str, tuple[str, tuple[int, ...], tuple[int, int]]]


def _header(file: Path) -> tuple[int, Tensors]:
    """Where the values begin, and of each tensor its type, its shape and where it lies."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(LARGEST, size - 8):
                raise ValueError
            entries = json.loads(opened.read(length))
        entries.pop("__metadata__", None)
        tensors = {
            name: (str(entry["dtype"]), tuple(map(int, entry["shape"])), _extent(*entry["data_offsets"]))
            for name, entry in entries.items()
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged("is not a safetensors file: its header can't be read") from None
    if 8 + length + max((end for *_, (_, end) in tensors.values()), default=0) != size:
        raise Damaged("is cut off, or is damaged: its header tells of another size")
    return 8 + length, tensors


def _extent(begin: int, end: int) -> tuple[int, int]:
    if not 0 <= int(begin) <= int(end):
        raise ValueError
    return int(begin), int(end)
