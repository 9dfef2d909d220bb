"""Columns of data files, and the fields that are made of them, checked value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]

# The language's names of the types that a field may have.
DTYPES = {
    torch.float32: "float",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "int",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "bool",
}
# What torch computes with in place of the unsigned types that it can only store.
WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}
# The label that PyTorch's losses leave out (`ignore_index`).
IGNORED = -100


class DataError(Exception):
    """What is wrong with a data file: `file`, `row` (from 1, headers not counted), `field`, `message`, `help`."""

    def __init__(
        self, message: str, *, file: str, row: int | None = None, field: str | None = None, help: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.row = row
        self.field = field
        self.help = help

    def __str__(self) -> str:
        where = [self.file]
        where += [f"row {self.row}"] if self.row is not None else []
        where += [f"`{self.field}`"] if self.field is not None else []
        return f"{', '.join(where)}: {self.message}" + (f"\n  help: {self.help}" if self.help else "")


@dataclass(frozen=True)
class Table:
    """Columns by name, each [rows, ...], in the order of the file; `files` names the files and how many rows each has.

    What does not fit raises a `DataError` that names file, row and field.
    """

    data: Mapping[str, Array]
    files: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.files)

    def column(self, name: str) -> Tensor:
        """The column `name`, [rows, ...], in the file's own dtype."""
        if name not in self.data:
            raise self._unknown(name, "column")
        return torch.from_numpy(np.require(self._numbers(name), requirements=["C", "W"]))

    def columns(self, *patterns: str) -> Tensor:
        """The columns that the globs match, stacked in the order of the file: [rows, columns, ...]."""
        names = [name for pattern in patterns for name in self._matching(pattern)]
        parts = [self._numbers(name) for name in names]
        for name, part in zip(names, parts, strict=True):
            if part.shape != parts[0].shape:
                raise DataError(
                    f"has rows of shape {list(part.shape[1:])}, and `{names[0]}` of {list(parts[0].shape[1:])}",
                    file=self.files[0][0],
                    field=name,
                    help="columns of one field have the same shape",
                )
        return torch.from_numpy(np.stack(parts, axis=1))

    def values(self, name: str) -> Array:
        """The column `name` as it stands in the file, text included."""
        if name not in self.data:
            raise self._unknown(name, "column")
        return self.data[name]

    def field(
        self, name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], *, classes: int | None = None
    ) -> Tensor:
        """`value` as the field `name`: [rows, *shape] of `dtype`.

        Values that `dtype` can't hold are errors: NaN, a fraction in an integer, a number out of range. With `classes`
        so are labels outside of 0 to `classes` - 1, except for -100, which losses ignore.
        """
        if tuple(value.shape) != (self.rows, *shape):
            found = f"rows of shape {list(value.shape[1:])}" if value.shape[:1] == (self.rows,) else f"{value.shape}"
            raise DataError(
                f"has {found}, and is declared as {_type(dtype, shape)}",
                file=self.files[0][0],
                field=name,
                help=f"declare it as {_type(dtype, tuple(value.shape[1:]))}, or reshape the columns",
            )
        self._check(name, torch.isnan(value), value, "is NaN or missing", "remove the row, or fill in a value")
        converted = value.to(dtype)
        lost, what, help = _lost(value, converted)
        self._check(name, lost, value, f"{what} {_type(dtype, shape)}", help)
        if classes is not None:
            wrong = ((converted < 0) & (converted != IGNORED)) | (converted >= classes)
            self._check(name, wrong, value, f"is not one of the classes 0 to {classes - 1}", "correct the label")
        return converted

    def _check(self, name: str, wrong: Tensor, value: Tensor, what: str, help: str) -> None:
        if wrong.any():
            row = int(torch.nonzero(wrong)[0, 0])
            shown = value[row][wrong[row]].flatten()[0].item()
            raise self._at(row, name, f"{shown!r} {what}" if shown == shown else what, help)

    def _at(self, row: int, field: str, message: str, help: str) -> DataError:
        """The error of a row (from 0, of the whole table), told by its file and its row there."""
        for file, rows in self.files:
            if row < rows:
                return DataError(message, file=file, row=row + 1, field=field, help=help)
            row -= rows
        raise IndexError(row)

    def _matching(self, pattern: str) -> list[str]:
        found = [name for name in self.data if fnmatchcase(name, pattern)]
        if not found:
            raise self._unknown(pattern, "column that matches")
        return found

    def _unknown(self, name: str, what: str) -> DataError:
        close = get_close_matches(name, self.data, 1)
        listed = ", ".join(list(self.data)[:8]) + (", ..." if len(self.data) > 8 else "")
        help = f"did you mean `{close[0]}`?" if close else f"its columns are {listed}"
        return DataError(f"has no {what} `{name}`", file=self.files[0][0], help=help)

    def _numbers(self, name: str) -> Array:
        array = self.data[name]
        if array.dtype.name in WIDER:
            self._check_unsigned(name, array)
            return array.astype(WIDER[array.dtype.name])
        if array.dtype.kind == "O":
            array = self._from_objects(name, array)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise self._not_numbers(name, array)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _check_unsigned(self, name: str, array: Array) -> None:
        large = np.flatnonzero((array > np.iinfo(np.int64).max).reshape(len(array), -1).any(1))
        if len(large):
            raise self._at(int(large[0]), name, "does not fit in 64 bits with a sign", "scale the column")

    def _from_objects(self, name: str, array: Array) -> Array:
        """Numbers that are mixed with missing values; None becomes NaN."""
        if any(isinstance(value, (str, bytes)) for value in array.flat):
            return array
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError):
            return array

    def _not_numbers(self, name: str, array: Array) -> DataError:
        """The first value of a column that is no number; of a column without numbers, its first value."""
        row = next((i for i, value in enumerate(array) if not _is_number(value)), 0)
        what = f"{_shown(array[row])} is not a number"
        return self._at(row, name, what, "fields hold numbers: correct or encode the column")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, np.datetime64)


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"text that is not UTF-8 ({value[:20]!r})"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


def _type(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{DTYPES.get(dtype, dtype)}[{', '.join(map(str, shape))}]"


def _lost(value: Tensor, converted: Tensor) -> tuple[Tensor, str, str]:
    """Where the conversion lost the value, what happened to it, and a cure."""
    if converted.dtype.is_floating_point:
        lost = torch.isfinite(value) & ~torch.isfinite(converted)
        return lost, "is too large for", "scale the column, or declare a wider type"
    if converted.dtype == torch.bool:
        return (value != 0) & (value != 1), "is neither 0 nor 1, as needed for", "compare: `column(...) > 0`"
    fraction = value != value.round() if value.dtype.is_floating_point else torch.zeros_like(value, dtype=torch.bool)
    if (fraction & torch.isfinite(value)).any():
        return fraction & torch.isfinite(value), "has a fraction, and the type is", "round it, or declare a float type"
    info = torch.iinfo(converted.dtype)
    wide = value.double() if value.dtype.is_floating_point else value.long()
    # 2**63 - 1 has no float64: compared as floats, its neighbour 2**63 would pass.
    above = wide >= 2.0 ** (info.bits - (info.min < 0)) if wide.is_floating_point() else wide > info.max
    return (wide < info.min) | above, "is out of the range of", "declare a wider type"
