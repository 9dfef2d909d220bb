"""Random rows, so that a program can be tried before its data are there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Generator, Tensor

from tdsl.runtime.columns import Column, Values
from tdsl.runtime.conversion import IGNORED
from tdsl.runtime.statistics import Statistics
from tdsl.runtime.table import Array, Filling, Table


class Anything(Column):
    """A column of any name, with which a field's expression can be written; of `categories`, if it is numbered."""

    def __init__(self, length: int, categories: int | None = None) -> None:
        self.length, self.categories = length, categories

    def __len__(self) -> int:
        return self.length

    def take(self, indices: Tensor) -> Tensor:
        raise TypeError("the values of synthetic rows are those of their fields")

    def where(self, row: int) -> tuple[str, int | None]:
        return "synthetic", row + 1


@dataclass(frozen=True)
class Synthetic(Table):
    """Rows whose fields are drawn in the type that they declare, whatever their expressions say.

    `categories` has how many those of a column are.
    """

    classes: int = 10
    seed: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)

    def column(self, name: str, *, missing: Filling | None = None) -> Tensor | Column:
        return Anything(self.rows, self.categories.get(name))

    def columns(self, *patterns: str, missing: Filling | None = None) -> Tensor | Column:
        return Anything(self.rows)

    def standardized(self, name: str, value: Tensor | Column, statistics: Statistics) -> Tensor | Column:
        return value

    def numbered(self, name: str, values: Sequence[str] | Sequence[int]) -> Synthetic:
        return replace(self, categories={**self.categories, name: len(values)})

    def values(self, name: str) -> Array:
        return np.asarray(torch.randint(self.classes, (self.rows,), generator=self._generator(name)))

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
        size, generator = (self.rows, *shape), self._generator(name)
        if dtype.is_floating_point:
            return torch.rand(size, generator=generator).to(dtype)
        counts = [self.classes, classes, entries, value.categories if isinstance(value, Anything) else None]
        most = 2 if dtype == torch.bool else torch.iinfo(dtype).max
        high = min([most, *(count for count in counts if count)])
        return torch.randint(high, size, generator=generator, dtype=torch.int64).to(dtype)

    def _generator(self, name: str) -> Generator:
        digest = hashlib.blake2b(f"{self.seed} {name}".encode(), digest_size=8).digest()
        return Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def synthetic(*, rows: int = 1000, classes: int = 10, seed: int = 0) -> Synthetic:
    """`rows` rows of random values in each field's declared type: floats from 0 to 1, integers below `classes`.

    A field draws from `seed` and its name alone.
    """
    return Synthetic({}, (("synthetic", rows),), classes=classes, seed=seed)
