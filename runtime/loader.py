"""Batches of a split, in an order that depends on the seed, the epoch and the position alone.

Epoch `e` visits the rows in a permutation drawn from (seed, e), and what is random in batch `b` is drawn from
(seed, e, b). So the state of the data is the two numbers (epoch, batch): a run that is resumed goes on at the very
next batch without reading those before it, and no draw touches the global random state. Nor does it matter which
process reads a batch: with `workers`, processes of their own do, ahead of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from tdsl.runtime.columns import Field, Values
from tdsl.runtime.reader import Key, Reader, generator
from tdsl.runtime.statistics import Statistics
from tdsl.runtime.table import Fields
from tdsl.runtime.transforms import Transform
from tdsl.runtime.workers import Workers

# The part of a GPU's free memory that a split may take to stay there.
RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class Split:
    """The rows of `fields` (each [N, ...]) that a split has: those numbered in `indices`, or all.

    `origin` is the split that these are copies of, row by row.
    """

    fields: Mapping[str, Values]
    indices: Tensor
    origin: Split | None = None

    @classmethod
    def whole(cls, fields: Mapping[str, Values]) -> Split:
        """All rows."""
        return cls(fields, torch.arange(len(next(iter(fields.values())))))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def statistics(self) -> Statistics | None:
        """Those of the train split, where the fields were made with them."""
        return self.fields.statistics if isinstance(self.fields, Fields) else None


@dataclass(frozen=True)
class Batch:
    """Rows of every field, each an attribute: `batch.pixels` is [rows, 64].

    `size` counts the rows here, `total` those of the global batch, of which this may be one rank's share.
    """

    fields: Mapping[str, Tensor]
    total: int

    def __getattr__(self, name: str) -> Tensor:
        # Looked up in __dict__, as an unpickled or copied batch has no `fields` at first.
        fields = self.__dict__.get("fields", {})
        if name not in fields:
            raise AttributeError(f"the batch has no field {name!r}; its fields are {', '.join(fields)}")
        value: Tensor = fields[name]
        return value

    @property
    def size(self) -> int:
        return len(next(iter(self.fields.values())))

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on `device`."""
        return Batch({name: value.to(device, non_blocking=True) for name, value in self.fields.items()}, self.total)

    def chunk(self, parts: int) -> list[Batch]:
        """At most `parts` pieces of nearly the same size, none empty, whose rows together are this batch's."""
        if min(parts, self.size) <= 1:
            return [self]
        pieces = {name: value.tensor_split(min(parts, self.size)) for name, value in self.fields.items()}
        return [
            Batch(dict(zip(pieces, piece, strict=True)), self.total) for piece in zip(*pieces.values(), strict=True)
        ]


@dataclass(frozen=True)
class Batches:
    """A split, cut into batches of `batch_size` rows over all ranks.

    `len(batches)` is the number of batches an epoch, the same on every rank. `batches.epoch(e, start=k)` iterates
    batches k, k + 1, ... of epoch e, in constant time whatever k, `batches.steps(k, n)` all from the k-th of the first
    epoch to before the n-th, epoch after epoch. The last batch holds what is left, unless `drop_last`. Of each batch,
    rank r of `ranks` has the r-th part; parts differ by one row at most, so that a part can be empty where the last
    batch has fewer rows than there are ranks. No row is repeated: an epoch has each once.

    `resident` keeps the rows on `device`: `"auto"` where that is a GPU, they are held in memory and fit in half of its
    free memory, and there are no workers. Otherwise `workers` processes gather, decode and transform, each `prefetch`
    batches ahead. Batches and their order are the same without. A further iterator beside one that workers serve does
    without them.

    Raises `DataError` for a row that can't be read or transformed.
    """

    split: Split
    batch_size: int
    shuffle: bool = False
    drop_last: bool = False
    seed: int = 0
    transforms: Mapping[str, Sequence[Transform]] = field(default_factory=dict)
    device: torch.device | str = "cpu"
    rank: int = 0
    ranks: int = 1
    resident: bool | Literal["auto"] = "auto"
    workers: int = 0
    prefetch: int = 2
    _started: list[Workers] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"batch_size={self.batch_size}, rank={self.rank} of {self.ranks} ranks")
        if self.workers < 0 or self.prefetch < 1:
            raise ValueError(f"workers={self.workers}, prefetch={self.prefetch}")
        if self._stays():
            rows = {name: _taken(value, self.split.indices) for name, value in self.split.fields.items()}
            fields = {name: value.to(self.device) for name, value in rows.items()}
            object.__setattr__(self, "split", replace(Split.whole(fields), origin=self.split.origin or self.split))

    @property
    def rows(self) -> int:
        """Rows visited in an epoch."""
        return len(self) * self.batch_size if self.drop_last else len(self.split)

    def __len__(self) -> int:
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of epoch `epoch` (both from 0)."""
        return self._batches(self._keys(epoch, range(start, len(self))))

    def steps(self, start: int, end: int) -> Iterator[Batch]:
        """Batches `start` to `end` - 1 (from 0), counted through all epochs."""
        return self._batches(self._through(start, end))

    def _through(self, start: int, end: int) -> Iterator[Key]:
        while start < end:
            epoch, number = divmod(start, len(self))
            numbers = range(number, min(len(self), number + end - start))
            yield from self._keys(epoch, numbers)
            start += len(numbers)

    def _keys(self, epoch: int, numbers: Iterable[int]) -> Iterator[Key]:
        order = self.split.indices
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator(self.seed, epoch))]
        for number in numbers:
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            start, end = (len(rows) * rank // self.ranks for rank in (self.rank, self.rank + 1))
            yield Key(epoch, number, rows.numpy(), start, end)

    def _batches(self, keys: Iterator[Key]) -> Iterator[Batch]:
        for total, fields in self._read(keys):
            yield Batch({name: self._moved(value) for name, value in fields.items()}, total)

    def _read(self, keys: Iterator[Key]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        reader = Reader(self.split.fields, self.transforms, self.seed)
        if self.workers and not self._resident:
            if not self._started:
                self._started.append(Workers(reader, self.workers, self.prefetch, pin=self._cuda))
            if not self._started[0].busy:
                yield from self._started[0].read(keys)
                return
        for key in keys:
            yield len(key.rows), reader.read(key)

    @property
    def _cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    @property
    def _resident(self) -> bool:
        return any(isinstance(value, Tensor) and not value.is_cpu for value in self.split.fields.values())

    def _moved(self, value: Tensor) -> Tensor:
        if value.is_cpu and self._cuda and not value.is_pinned():
            value = value.pin_memory()
        return value.to(self.device, non_blocking=True)

    def _stays(self) -> bool:
        """Whether the rows are to be moved to the device for good."""
        device = torch.device(self.device)
        if device.type == "cpu" or self.resident is False:
            return False
        if self.resident is True:
            return True
        held = [value for value in self.split.fields.values() if isinstance(value, Tensor)]
        if device.type != "cuda" or self.workers or len(held) < len(self.split.fields):
            return False
        row = sum(value[:1].nbytes for value in held)
        return row * len(self.split) <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def _taken(value: Values, rows: Tensor) -> Tensor:
    return value.take(rows) if isinstance(value, Field) else value[rows.to(value.device)]
