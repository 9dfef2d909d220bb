"""Columns whose rows are read when they are asked for: images, tokens of a large file, rows of a dataset in Python.

What a program says of such a column (`column("image") / 255`) is noted and computed for the rows that are asked for.
Field expressions act on each row by itself, so that gives the numbers that computing all rows at once would.

A column can be read from several threads at once, and it can be pickled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tdsl.runtime.conversion import Limit, converted, no_category, type_name
from tdsl.runtime.data_error import DataError

# Names of files, and how many rows each has.
Files = tuple[tuple[str, int], ...]
OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


class Column(ABC):
    """`len(column)` rows on the CPU; operators, methods and functions of tensors make further columns of it."""

    # Whether all rows have one shape. Where not, `take` finds out.
    uniform: bool = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: Tensor) -> Tensor:
        """The rows of those numbers (int64 [k]), [k, ...]. Raises `DataError` for rows that can't be read."""

    def rows(self, indices: Tensor) -> list[Tensor]:
        """The rows of those numbers, each on its own, as their shapes may differ."""
        return list(self.take(indices).unbind(0))

    @abstractmethod
    def where(self, row: int) -> tuple[str, int | None]:
        """The file that row (from 0) is from, and its number there (from 1); None where the file is the row."""

    def error(self, row: int, message: str, *, field: str | None = None, help: str | None = None) -> DataError:
        """What is wrong with a row (from 0)."""
        file, number = self.where(row)
        return DataError(message, file=file, row=number, field=field, help=help)

    # torch finds this in place of a tensor's own.
    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Column:
        return Computed(function, tuple(args), kwargs or {})

    def __getattr__(self, name: str) -> Any:
        method = None if name.startswith("_") else getattr(Tensor, name, None)
        if not callable(method):
            raise AttributeError(name)
        return lambda *args, **kwargs: Computed(method, (self, *args), kwargs)

    def __getitem__(self, index: Any) -> Column:
        return Computed(Tensor.__getitem__, (self, index), {})

    def __iter__(self) -> Iterator[Tensor]:
        raise TypeError("a column has no rows of its own: `take` reads them")

    def __neg__(self) -> Column:
        return Computed(torch.neg, (self,), {})


def _operator(name: str) -> Callable[[Column, Any], Column]:
    method = getattr(Tensor, name)
    return lambda self, other: Computed(method, (self, other), {})


for _name in (*OPERATORS, *COMPARISONS):
    setattr(Column, f"__{_name}__", _operator(f"__{_name}__"))
for _name in OPERATORS:
    setattr(Column, f"__r{_name}__", _operator(f"__r{_name}__"))
Column.__hash__ = object.__hash__  # type: ignore[method-assign]


class Held(Column):
    """Rows of a tensor; `files` names the files that they are from, and how many rows each has."""

    def __init__(self, values: Tensor, files: Files) -> None:
        self.values = values
        self.files = files

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Tensor) -> Tensor:
        return self.values[indices]

    def where(self, row: int) -> tuple[str, int | None]:
        return place(self.files, row)


class Numbered(Column):
    """The places that a column's values have in a list."""

    def __init__(self, column: Column, values: Sequence[str] | Sequence[int]) -> None:
        self.column = column
        self.values = values
        self.uniform = column.uniform

    def __len__(self) -> int:
        return len(self.column)

    def take(self, indices: Tensor) -> Tensor:
        found = self.column.take(indices)
        found = found if found.is_floating_point() else found.long()  # the unsigned types compare with none
        same = found[..., None] == torch.tensor(self.values)
        wrong = torch.nonzero(~same.any(-1))
        if len(wrong):
            message, help = no_category(found[tuple(wrong[0])].item(), self.values)
            raise self.error(int(indices[wrong[0, 0]]), message, help=help)
        return same.int().argmax(-1)

    def where(self, row: int) -> tuple[str, int | None]:
        return self.column.where(row)


class Computed(Column):
    """What `function` makes of columns, and of tensors that have all rows of those."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.function = function
        self.args = args
        self.kwargs = dict(kwargs)
        self.sources = list(_columns([args, self.kwargs]))
        self.uniform = all(column.uniform for column in self.sources)

    def __len__(self) -> int:
        return len(self.sources[0])

    def take(self, indices: Tensor) -> Tensor:
        if not self.uniform:
            return stack(self, self.rows(indices), indices)
        value: Tensor = self._compute(lambda column: column.take(indices), indices)
        return value

    def rows(self, indices: Tensor) -> list[Tensor]:
        if self.uniform:
            return super().rows(indices)
        # Each column once, as its rows may be dear.
        read = {id(column): column.rows(indices) for column in self.sources}
        return [
            self._compute(lambda column, place=place: read[id(column)][place][None], index)[0]  # type: ignore[misc]
            for place, index in enumerate(indices[:, None])
        ]

    def _compute(self, read: Callable[[Column], Tensor], indices: Tensor) -> Any:
        def rows(value: Any) -> Any:
            if isinstance(value, Column):
                return read(value)
            if isinstance(value, Tensor) and value.ndim and len(value) == len(self):
                return value[indices]
            if isinstance(value, (list, tuple)):
                return type(value)(map(rows, value))
            return value

        return self.function(*rows(self.args), **{name: rows(value) for name, value in self.kwargs.items()})

    def where(self, row: int) -> tuple[str, int | None]:
        return self.sources[0].where(row)


class Field(Column):
    """A column as the field `name`: rows of `shape` and `dtype`, each value checked when it is read.

    `resized` says that transforms come before the rows have their `shape`: until then only their dimensions are
    counted, and whoever transforms them calls `check`.
    """

    def __init__(
        self,
        name: str,
        value: Column,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        *,
        limit: Limit | None = None,
        resized: bool = False,
    ) -> None:
        self.name = name
        self.value = value
        self.dtype = dtype
        self.shape = shape
        self.limit = limit
        self.resized = resized
        self.uniform = not resized

    def __len__(self) -> int:
        return len(self.value)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return torch.empty(0, dtype=self.dtype).element_size() * torch.Size(self.shape).numel()

    def take(self, indices: Tensor) -> Tensor:
        if self.resized or not self.value.uniform:
            return stack(self, self.rows(indices), indices)
        with self._named():
            value = self.value.take(indices)
        if len(indices):
            self._check_shape(int(indices[0]), tuple(value.shape[1:]))
        return self._converted(value, indices)

    def rows(self, indices: Tensor) -> list[Tensor]:
        if not self.resized and self.value.uniform:
            return list(self.take(indices).unbind(0))
        with self._named():
            values = self.value.rows(indices)
        return [self._row(value, index) for value, index in zip(values, indices[:, None], strict=True)]

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of rows that can't be read name the field, too."""
        try:
            yield
        except DataError as error:
            error.field = error.field or self.name
            raise

    def _row(self, value: Tensor, index: Tensor) -> Tensor:
        self._check_shape(int(index), tuple(value.shape))
        return self._converted(value[None], index)[0]

    def _check_shape(self, row: int, found: tuple[int, ...]) -> None:
        if not self.resized:
            self.check(row, found)
        elif len(found) != len(self.shape):
            raise self._other_shape(row, found)

    def check(self, row: int, found: tuple[int, ...]) -> None:
        """Raise `DataError` where row number `row` (from 0) has another shape than declared."""
        if found != self.shape:
            raise self._other_shape(row, found)

    def _other_shape(self, row: int, found: tuple[int, ...]) -> DataError:
        declared = type_name(self.dtype, self.shape)
        help = f"declare it as {type_name(self.dtype, found)}"
        if len(found) == len(self.shape) == 3:
            image = f"[{', '.join(map(str, self.shape[1:]))}]"
            help += f", or bring images to one size: `transform {self.name} = [Resize({image})]`"
        return self.error(row, f"has the shape {list(found)}, and is declared as {declared}", help=help)

    def _converted(self, value: Tensor, indices: Tensor) -> Tensor:
        def complain(row: int, message: str, help: str) -> DataError:
            return self.error(int(indices[row]), message, help=help)

        return converted(value, self.dtype, self.shape, self.limit, complain)

    def where(self, row: int) -> tuple[str, int | None]:
        return self.value.where(row)

    def error(self, row: int, message: str, *, field: str | None = None, help: str | None = None) -> DataError:
        return super().error(row, message, field=field or self.name, help=help)


# What a field of a split is: all rows in memory, or rows that are read when they are asked for.
Values = Tensor | Field


def stack(column: Column, rows: list[Tensor], indices: Tensor) -> Tensor:
    """Rows as one tensor; `DataError` for the first whose shape is not that of those before it."""
    for row, index in zip(rows, indices.tolist()):
        if row.shape != rows[0].shape:
            first, second = list(rows[0].shape), list(row.shape)
            help = "bring the rows to one size with a transform, such as `Resize([224, 224])`"
            raise column.error(index, f"has the shape {second}, and others have {first}", help=help)
    return torch.stack(rows) if rows else torch.empty(0)


def place(files: Files, row: int) -> tuple[str, int]:
    """The file of a row (from 0, of all files), and its number there (from 1)."""
    for file, rows in files:
        if row < rows:
            return file, row + 1
        row -= rows
    raise IndexError(row)


def _columns(value: Any) -> Iterator[Column]:
    if isinstance(value, Column):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _columns(item)
    elif isinstance(value, dict):
        yield from _columns(list(value.values()))
