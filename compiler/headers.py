"""Headers of data files, read with the standard library: NumPy and Arrow take longer to import than a check may."""

from __future__ import annotations

import csv
import json
import math
import operator
import re
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tdsl.dsl.facts import other_delimiter

if TYPE_CHECKING:
    from zipfile import ZipFile

Result = TypeVar("Result")

# Records that a column's type is guessed from.
SAMPLE = 100
# NumPy's kinds of element types.
NUMPY_KINDS = {"f": "float", "i": "int", "u": "int", "b": "bool", "U": "text", "S": "text", "O": "other"}
INTEGERS = {("i", 1): "b", ("i", 2): "h", ("i", 4): "i", ("i", 8): "q"} | {
    ("u", 1): "B",
    ("b", 1): "B",
    ("u", 2): "H",
    ("u", 4): "I",
    ("u", 8): "Q",
}
# Element types of the IDX format: NumPy's letter and the size in bytes.
IDX_TYPES = {0x08: ("u", 1), 0x09: ("i", 1), 0x0B: ("i", 2), 0x0C: ("i", 4), 0x0D: ("f", 4), 0x0E: ("f", 8)}


@dataclass(frozen=True)
class Column:
    """`kind` is `int`, `float`, `bool`, `text` or `other`; `shape` that of one row, None where it is not told.

    `varies` says that it is that of the first row, and that others may have other sizes.
    """

    kind: str
    shape: tuple[int, ...] | None = ()
    varies: bool = False


class Damaged(Exception):
    """A file that is not what it should be; `row` counts from 1, without headers."""

    def __init__(self, message: str, row: int | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.row = row
        self.help = help


def decode(file: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(f"is not UTF-8 (byte {error.start})", help="save it as UTF-8") from None


def integers(content: bytes, letter: str, size: int, big_endian: bool) -> array[int]:
    """The integers of a buffer of NumPy's type `letter``size`."""
    if (letter, size) not in INTEGERS:
        raise Damaged("labels are integers, and this column holds others", help="choose a column of integers")
    values = array(INTEGERS[letter, size])
    values.frombytes(content)
    if big_endian != (sys.byteorder == "big"):
        values.byteswap()
    return values


# Comma-separated values ----------------------------------------------------------------------------------------------


class Csv:
    """The header and the first records of a CSV file, with `delimiter` between its values."""

    def __init__(self, file: Path, delimiter: str = ",") -> None:
        self.file = file
        self.delimiter = delimiter
        with self._open() as opened:
            records = self._records(opened)
            self.names = next(records, [])
            sample = list(islice(records, SAMPLE))
        if not self.names:
            raise Damaged("is empty")
        for name in self.names:
            if self.names.count(name) > 1:
                raise Damaged(f"has several columns of the name `{name}`", help="rename all but one")
        if not sample:
            raise Damaged("holds no rows")
        for row, record in enumerate(sample, 1):
            self._check(row, record)
        columns = zip(*sample, strict=True)
        self.columns: Mapping[str, Column] = {
            name: Column(_kind(cells)) for name, cells in zip(self.names, columns, strict=True)
        }

    def _open(self) -> IO[str]:
        return open(self.file, encoding="utf-8-sig", newline="")

    def _records(self, opened: IO[str]) -> Iterator[list[str]]:
        row = 0
        try:
            for record in csv.reader(opened, delimiter=self.delimiter):
                if record:
                    yield record
                    row += 1
        except UnicodeDecodeError:
            raise Damaged("is not UTF-8", max(row, 1), "save the file as UTF-8") from None
        except csv.Error as error:
            raise Damaged(str(error), max(row, 1)) from None

    def _check(self, row: int, record: list[str]) -> None:
        if len(record) != len(self.names):
            delimiter = other_delimiter(self.names, self.delimiter)
            help = (
                delimiter
                and f"its header is one column, {json.dumps(self.names[0], ensure_ascii=False)}: write `{delimiter}`"
            )
            raise Damaged(f"has {len(record)} values for {len(self.names)} columns", row, help)

    def rows(self) -> int:
        return sum(1 for _ in self._cells(self.names[0]))

    def labels(self, column: str) -> tuple[int, int]:
        """The smallest and the largest label."""
        smallest, largest = math.inf, -math.inf
        for row, cell in enumerate(self._cells(column), 1):
            try:
                value = int(cell)
            except ValueError:
                raise Damaged(
                    f"column `{column}` has {cell!r:.40}, which is no label", row, "number labels from 0"
                ) from None
            smallest, largest = min(smallest, value), max(largest, value)
        return int(smallest), int(largest)

    def texts(self, column: str) -> Iterator[str]:
        """The cells of a column."""
        return self._cells(column)

    def _cells(self, column: str) -> Iterator[str]:
        """The cells of a column; without quotes a record is a line, which saves parsing the cells before it."""
        at, last = self.names.index(column), len(self.names) - 1
        content, delimiter = self.file.read_bytes(), self.delimiter.encode()
        if b'"' in content or b"\r" in content.replace(b"\r\n", b""):
            with self._open() as opened:
                for row, record in enumerate(islice(self._records(opened), 1, None), 1):
                    self._check(row, record)
                    yield record[at]
            return
        lines = filter(None, content.splitlines())
        next(lines)
        for row, line in enumerate(lines, 1):
            if line.count(delimiter) != last:
                self._check(row, line.decode("utf-8", "replace").split(self.delimiter))
            cell = line[line.rfind(delimiter) + 1 :] if at == last else line.split(delimiter, at + 1)[at]
            yield cell.decode("utf-8", "replace")


# How a missing number is written, as Arrow reads a csv file; an empty cell is one, too.
MISSING = frozenset(
    ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL", "NaN",
     "n/a", "nan", "null")
)  # fmt: skip


def _kind(cells: tuple[str, ...]) -> str:
    """The narrowest kind that holds every cell; empty ones, and such as `NA`, are missing numbers."""
    present = [cell for each in cells if (cell := each.strip()) and cell not in MISSING]
    if present and {cell.lower() for cell in present} <= {"true", "false"}:
        return "bool"
    for kind, parse in (("int", int), ("float", float)):
        try:
            for cell in present:
                parse(cell)
        except ValueError:
            continue
        return kind if len(present) == len(cells) else "float"
    return "text"


# NumPy ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Array:
    """The header of an array."""

    descr: Any
    shape: tuple[int, ...]
    fortran: bool

    @property
    def column(self) -> Column:
        return Column(NUMPY_KINDS.get(self.element[0], "other"), self.shape[1:])

    @property
    def element(self) -> tuple[str, int]:
        """NumPy's letter and the size in bytes of an element; no letter where it is no plain number."""
        found = re.fullmatch(r"[<>|=]([a-zA-Z?])(\d*)", self.descr) if isinstance(self.descr, str) else None
        return (found[1], int(found[2] or 0)) if found else ("", 0)


def _array(opened: IO[bytes]) -> Array:
    import ast

    magic = opened.read(8)
    if magic[:6] != b"\x93NUMPY" or len(magic) < 8:
        raise Damaged("is not a NumPy file")
    width = "<H" if magic[6] == 1 else "<I"
    try:
        (length,) = struct.unpack(width, opened.read(struct.calcsize(width)))
        header = ast.literal_eval(opened.read(min(length, 1 << 16)).decode("utf-8").strip())
        shape = tuple(map(operator.index, header["shape"]))
        return Array(header["descr"], shape, bool(header["fortran_order"]))
    except (struct.error, ValueError, SyntaxError, KeyError, TypeError, UnicodeDecodeError, MemoryError):
        raise Damaged("is not a NumPy file: its header can't be read") from None


def _bounds(opened: IO[bytes], header: Array) -> tuple[int, int]:
    """The smallest and the largest of the integers that follow an array's header."""
    letter, size = header.element
    content = opened.read()
    if len(content) != math.prod(header.shape) * size:
        raise Damaged("is cut off: there are fewer values than its header tells")
    values = integers(content, letter, size, header.descr[:1] == ">")
    return min(values), max(values)


class Npy:
    """The header of an .npy file: one array, or the columns of a structured one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with file.open("rb") as opened:
            self.header = _array(opened)
        if not self.header.shape or not self.header.shape[0]:
            raise Damaged("holds no rows")
        try:
            self.columns: Mapping[str, Column] = dict(self._columns())
        except (ValueError, TypeError):
            raise Damaged("is not a NumPy file: its header can't be read") from None

    def _columns(self) -> Iterator[tuple[str, Column]]:
        if not isinstance(self.header.descr, list):
            yield "data", self.header.column
            return
        for name, descr, *shape in self.header.descr:
            yield name, Array(descr, (0, *(shape[0] if shape else ())), False).column

    def rows(self) -> int:
        return self.header.shape[0]

    def labels(self, column: str) -> tuple[int, int]:
        if isinstance(self.header.descr, list):
            raise Damaged("labels of a structured array are not counted", help="give the number of classes itself")
        with self.file.open("rb") as opened:
            return _bounds(opened, _array(opened))


class Npz:
    """The headers of the arrays in an .npz file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.headers = {name: self._read(name, _array) for name in self._names()}
        if not self.headers:
            raise Damaged("holds no arrays")
        counts = {name: header.shape[0] if header.shape else 0 for name, header in self.headers.items()}
        first = next(iter(counts))
        for name, count in counts.items():
            if count != counts[first]:
                raise Damaged(f"column `{name}` has {count} rows, and `{first}` has {counts[first]}")
        if not counts[first]:
            raise Damaged("holds no rows")
        self.columns: Mapping[str, Column] = {name: header.column for name, header in self.headers.items()}

    def _names(self) -> list[str]:
        with self._archive("is not an .npz file, or is damaged") as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

    def _read(self, name: str, look: Callable[[IO[bytes]], Result]) -> Result:
        with self._archive(f"its array `{name}` is damaged") as archive, archive.open(f"{name}.npy") as opened:
            return look(opened)

    @contextmanager
    def _archive(self, complaint: str) -> Iterator[ZipFile]:
        from zipfile import ZipFile

        try:
            with ZipFile(self.file) as archive:
                yield archive
        except (OSError, Damaged):
            raise
        except Exception:  # zipfile lists no errors for damaged files, and raises a dozen kinds
            raise Damaged(complaint) from None

    def rows(self) -> int:
        return int(next(iter(self.headers.values())).shape[0])

    def labels(self, column: str) -> tuple[int, int]:
        return self._read(column, lambda opened: _bounds(opened, _array(opened)))


# IDX -----------------------------------------------------------------------------------------------------------------


class Idx:
    """The header of an IDX file, whose values are the column `name`; grey images get a channel in front."""

    def __init__(self, file: Path, name: str) -> None:
        self.file = file
        start = self._read(4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in IDX_TYPES or not start[3]:
            raise Damaged("is not an IDX file: its first bytes are none of the format's")
        self.letter, self.size = IDX_TYPES[start[2]]
        self.start = 4 + 4 * start[3]
        sizes = self._read(self.start)[4:]
        if len(sizes) < 4 * start[3]:
            raise Damaged("is not an IDX file: its header is too short")
        self.shape: tuple[int, ...] = struct.unpack(f">{start[3]}I", sizes)
        if not self.shape[0]:
            raise Damaged("holds no rows")
        row = self.shape[1:]
        channel = (1, *row) if name == "image" and len(row) == 2 else row
        self.columns: Mapping[str, Column] = {name: Column(NUMPY_KINDS[self.letter], channel)}

    def _read(self, size: int = -1) -> bytes:
        import gzip

        with self.file.open("rb") as opened:
            packed = opened.read(2) == b"\x1f\x8b"
        try:
            with gzip.open(self.file) if packed else self.file.open("rb") as content:
                return content.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Damaged(f"is a damaged gzip file: {error}", help="fetch or compress it again") from None

    def rows(self) -> int:
        return self.shape[0]

    def labels(self, column: str) -> tuple[int, int]:
        content = self._read()[self.start :]
        if len(content) != math.prod(self.shape) * self.size:
            raise Damaged(f"its header tells {list(self.shape)} values, and {len(content)} bytes follow")
        values = integers(content, self.letter, self.size, big_endian=True)
        return min(values), max(values)
