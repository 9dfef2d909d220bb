"""The schema of a Parquet file, read from its footer.

Importing Arrow takes longer than a check may, and a check needs names and types alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tdsl.compiler.headers import Column, Damaged

# Parquet's physical types; those of bytes hold text.
PARQUET_KINDS = {0: "bool", 1: "int", 2: "int", 3: "other", 4: "float", 5: "float", 6: "text", 7: "text"}
# Dates and times are stored as integers, and decimals as integers or bytes.
PARQUET_CONVERTED = {5: "float", 6: "other", 7: "other", 8: "other", 9: "other", 10: "other"}


class Parquet:
    """The schema of a Parquet file, from its footer (Thrift's compact protocol, `FileMetaData` of parquet.thrift)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            metadata = _Thrift(_footer(file)).struct(until=3)
            self.columns: Mapping[str, Column] = dict(_schema(metadata[2]))
            self.count = int(metadata[3])
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, struct.error, RecursionError):
            raise Damaged("is not a Parquet file that can be read: its footer is damaged") from None
        if not self.count:
            raise Damaged("holds no rows")

    def rows(self) -> int:
        return self.count

    def _values(self, column: str) -> Any:
        """A column as Arrow has it."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self.file).read([column]).column(column)
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise Damaged(f"can't be read: {str(error)[:200]}") from None

    def texts(self, column: str) -> Iterator[str]:
        """The distinct texts of a column."""
        yield from (value for value in self._values(column).unique().to_pylist() if isinstance(value, str))

    def labels(self, column: str) -> tuple[int, int]:
        import pyarrow as pa
        from pyarrow import compute

        values = self._values(column)
        if not pa.types.is_integer(values.type) or values.null_count:
            raise Damaged(
                f"labels are integers, and column `{column}` holds others", help="choose a column of integers"
            )
        if not len(values):
            raise Damaged("holds fewer rows than its footer tells")
        bounds = compute.min_max(values).as_py()
        return bounds["min"], bounds["max"]


def _footer(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(size - 8, 0))
        end = opened.read()
        length = int.from_bytes(end[:4], "little")
        if size < 12 or end[4:] != b"PAR1" or length > size - 12:
            raise Damaged("is not a Parquet file, or is cut off")
        opened.seek(size - 8 - length)
        return opened.read(length)


def _schema(elements: list[dict[int, Any]]) -> Iterator[tuple[str, Column]]:
    """The top-level columns of a schema, which lists its tree depth first; lists and structs don't tell their shape."""
    at = 1
    for _ in range(elements[0][5]):
        element = elements[at]
        nested = element.get(5, 0) > 0
        kind = "other" if nested else PARQUET_CONVERTED.get(element.get(6, -1), PARQUET_KINDS[element.get(1, 3)])
        yield element[4].decode(), Column(_leaf(elements, at) if nested else kind, None if nested else ())
        at = _after(elements, at)


def _leaf(elements: list[dict[int, Any]], at: int) -> str:
    """The kind of the values in a list; a struct has several, which is another kind."""
    while elements[at].get(5, 0) == 1:
        at += 1
    return "other" if elements[at].get(5, 0) else PARQUET_KINDS[elements[at][1]]


def _after(elements: list[dict[int, Any]], at: int) -> int:
    """The place behind an element and all below it."""
    open_ = 1
    while open_:
        open_ += elements[at].get(5, 0) - 1
        at += 1
    return at


class _Thrift:
    """A reader of Thrift's compact protocol: structs as dicts by field number."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def struct(self, until: int | None = None) -> dict[int, Any]:
        """The fields of a struct, and none behind the field `until`."""
        fields: dict[int, Any] = {}
        number = 0
        while until is None or number < until:
            head = self._byte()
            if head == 0:
                break
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._take(8)
        if kind == 8:
            return self._take(self._varint())
        if kind in (9, 10):
            return self._list()
        if kind == 12:
            return self.struct()
        raise ValueError(f"no field of a schema has Thrift's type {kind}")

    def _list(self) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        if size > len(self.content):
            raise ValueError("a list longer than its file")
        return [self._value(head & 15) for _ in range(size)]

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def _take(self, size: int) -> bytes:
        if self.at + size > len(self.content):
            raise IndexError("past the end")
        self.at += size
        return self.content[self.at - size : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
