"""Columns of data files, and the fields that are made of them, checked value by value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tdsl.runtime.columns import Column, Field, Held, Numbered, Values, place
from tdsl.runtime.conversion import IGNORED, Limit, converted, no_category, type_name
from tdsl.runtime.data_error import DataError
from tdsl.runtime.statistics import Statistics

__all__ = ["Array", "DataError", "Fields", "Table"]

Array = npt.NDArray[Any]
# Names of files, each with how many rows it has.
Files = tuple[tuple[str, int], ...]

# What stands for the missing values of a column: a number, or what tells one of its name and its values.
Filling = float | Callable[[str, "Tensor | Column"], "Tensor | None"]

# What torch computes with in place of the unsigned types that it can only store.
WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


@dataclass(frozen=True)
class Table:
    """Columns by name, each [rows, ...], in the order of the file; `files` names the files and how many rows each has.

    `names` has what the numbers of a column stand for, where the source tells: the names of classes, say. `apart` has
    the files of the columns that lie in files of their own, as labels do beside images.
    Arrays are held in memory; the rows of a `Column` are read when they are asked for, and so are fields made of it.
    What does not fit raises a `DataError` that names file, row and field.
    """

    data: Mapping[str, Array | Column]
    files: Files
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    apart: Mapping[str, Files] = field(default_factory=dict)
    # The columns that were asked for since a field was made: those of the next.
    _asked: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.files)

    def column(self, name: str, *, missing: Filling | None = None) -> Tensor | Column:
        """The column `name`, [rows, ...], in the file's own dtype, with `missing` in place of NaN.

        A number, or a function such as `Statistics.mean`, which gives one for each element of a row.
        """
        found = self._column(name)
        return found if missing is None else self._filled(name, found, missing)

    def _column(self, name: str) -> Tensor | Column:
        if name not in self.data:
            raise self._unknown(name, "column")
        array = self.data[name]
        self._asked.append(name)
        if isinstance(array, Column):
            return array
        return torch.from_numpy(np.require(self._numbers(name, array), requirements=["C", "W"]))

    def _filled(self, name: str, value: Tensor | Column, missing: Filling) -> Tensor | Column:
        number = missing(name, value) if callable(missing) else torch.tensor(float(missing), dtype=torch.float64)
        if number is None:
            raise self._unfitted(name)
        file = self._files(name)[0][0]
        if torch.isnan(number).any():
            what, help = "has no value in the train split, and so no mean", "fill it with a number: `missing=0`"
            raise DataError(what, file=file, field=name, help=help)
        if isinstance(value, Tensor) and not value.is_floating_point():
            return value
        found: Tensor | Column = torch.where(torch.isnan(value), number, value.double())  # type: ignore[arg-type]
        return found

    def columns(self, *patterns: str, missing: Filling | None = None) -> Tensor | Column:
        """The columns that the globs match, stacked in the order of the file: [rows, columns, ...]; see `column`."""
        names = [name for pattern in patterns for name in self._matching(pattern)]
        parts = [self.column(name, missing=missing) for name in names]
        held = [(name, part) for name, part in zip(names, parts, strict=True) if isinstance(part, Tensor)]
        for name, part in held:
            if part.shape != held[0][1].shape:
                raise DataError(
                    f"has rows of shape {list(part.shape[1:])}, and `{held[0][0]}` of {list(held[0][1].shape[1:])}",
                    file=self._files(name)[0][0],
                    field=name,
                    help="columns of one field have the same shape",
                )
        return torch.stack(parts, dim=1)  # type: ignore[arg-type]

    def standardized(self, name: str, value: Tensor | Column, statistics: Statistics) -> Tensor | Column:
        """`value` [rows, ...] of the field `name` less its mean, divided by its standard deviation, in float64.

        Both are those of the train split, of each element of a row. Raises `DataError` where there are none.
        """
        found = statistics.scale(name, value)
        if found is None:
            raise self._unfitted(name)
        mean, std = found
        files = self._files(*self._asked)
        if not (torch.isfinite(mean) & torch.isfinite(std)).all():
            what = "has no value in the train split" if torch.isnan(mean).any() else "has values that are too large"
            help = "it is standardized by their mean and standard deviation: correct the columns, or leave them out"
            raise DataError(what, file=files[0][0], field=name, help=help)
        if isinstance(value, Tensor) and value.shape[1:] != mean.shape:
            what = f"has rows of shape {list(value.shape[1:])}, and those that it was trained on {list(mean.shape)}"
            raise DataError(what, file=files[0][0], field=name, help="give it the same columns, or train anew")
        scaled: Tensor | Column = (value.double() - mean[None]) / std[None]
        return scaled

    def _unfitted(self, name: str) -> DataError:
        help = "it is new in the program, or has another name: train anew"
        return DataError("the checkpoint has no statistics of it", file=self.files[0][0], field=name, help=help)

    def numbered(self, name: str, values: Sequence[str] | Sequence[int]) -> Table:
        """The table with the values of the column `name` numbered by their places in a list.

        Raises `DataError` for a value that is not in it.
        """
        if name not in self.data:
            raise self._unknown(name, "column")
        array = self.data[name]
        if isinstance(array, Column) and isinstance(values[0], str):
            what, help = "is read row by row, as numbers", "write whole numbers as its categories"
            raise DataError(what, file=self._files(name)[0][0], field=name, help=help)
        numbers = Numbered(array, values) if isinstance(array, Column) else self._places(name, array, values)
        return replace(self, data={**self.data, name: numbers}, names={**self.names, name: [*map(str, values)]})

    def _places(self, name: str, array: Array, values: Sequence[str] | Sequence[int]) -> Array:
        places = {value: i for i, value in enumerate(values)}
        flat = (np.char.decode(array) if array.dtype.kind == "S" else array).reshape(-1).tolist()
        numbers = np.asarray([places.get(value, -1) for value in flat], np.int64)
        if len(wrong := np.flatnonzero(numbers < 0)):
            first = int(wrong[0])
            files, row = self._files(name), first * len(array) // len(flat)
            raise _at(files, row, name, *no_category(flat[first], values))
        return numbers.reshape(array.shape)

    def values(self, name: str) -> Array:
        """The column `name` as it stands in the file, text included."""
        if name not in self.data:
            raise self._unknown(name, "column")
        array = self.data[name]
        return array.take(torch.arange(len(array))).numpy() if isinstance(array, Column) else array

    def field(
        self,
        name: str,
        value: Tensor | Column,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        *,
        classes: int | None = None,
        entries: int | None = None,
        ignored: int | None = IGNORED,
        resized: bool = False,
    ) -> Values:
        """`value` as the field `name`: [rows, *shape] of `dtype`.

        Values that `dtype` can't hold are errors: NaN, a fraction in an integer, a number out of range. With `classes`
        so are labels outside of 0 to `classes` - 1, except for the one that the loss has `ignored` (None: for none),
        with `entries` numbers outside of 0 to `entries` - 1, which are looked up in a table. `resized` says that its
        rows have `shape` only once they are transformed.
        """
        files = self._files(*self._asked)
        self._asked.clear()
        limit = Limit.of(classes, entries, ignored)
        if isinstance(value, Column) or (resized and tuple(value.shape[1:]) != shape):
            column = value if isinstance(value, Column) else Held(value, files)
            field = Field(name, column, dtype, shape, limit=limit, resized=resized)
            field.rows(torch.zeros(1, dtype=torch.int64))  # a wrong declaration is told before the run begins
            return field
        if tuple(value.shape) != (self.rows, *shape):
            found = f"rows of shape {list(value.shape[1:])}" if value.shape[:1] == (self.rows,) else f"{value.shape}"
            raise DataError(
                f"has {found}, and is declared as {type_name(dtype, shape)}",
                file=files[0][0],
                field=name,
                help=f"declare it as {type_name(dtype, tuple(value.shape[1:]))}, or reshape the columns",
            )
        return converted(value, dtype, shape, limit, lambda row, what, help: _at(files, row, name, what, help))

    def _files(self, *columns: str) -> Files:
        """The files that columns lie in; of columns from several those of the table."""
        found = {self.apart.get(name, self.files) for name in columns}
        return found.pop() if len(found) == 1 else self.files

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

    def _numbers(self, name: str, array: Array) -> Array:
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
            raise _at(self._files(name), int(large[0]), name, "does not fit in 64 bits with a sign", "scale the column")

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
        return _at(self._files(name), row, name, what, "fields hold numbers: correct or encode the column")


class Fields(dict[str, Values]):
    """The fields of every row of a table, by name, and the `statistics` that they were made with.

    A copy that another process gets has neither those nor the `table`.
    """

    def __init__(self, table: Table, fields: Mapping[str, Values], statistics: Statistics | None = None) -> None:
        super().__init__(fields)
        self.table = table
        self.statistics = statistics

    def __reduce__(self) -> tuple[type[dict[str, Values]], tuple[dict[str, Values]]]:
        return dict, (dict(self),)


def _at(files: Files, row: int, field: str, message: str, help: str) -> DataError:
    """The error of a row (from 0, of the whole table), told by its file and its row there."""
    file, number = place(files, row)
    return DataError(message, file=file, row=number, field=field, help=help)


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
