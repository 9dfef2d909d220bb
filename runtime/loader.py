"""Batches of a split, in an order that depends on the seed, the epoch and the position alone.

Epoch `e` visits the rows in a permutation drawn from (seed, e), and what is random in batch `b` is drawn from
(seed, e, b). So the state of the data is the two numbers (epoch, batch): a run that is resumed goes on at the very
next batch without reading those before it, and no draw touches the global random state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tdsl.runtime.columns import Field, Values
from tdsl.runtime.transforms import Transform

# The part of a GPU's free memory that a split may take to stay there.
RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class Split:
    """The rows of `fields` (each [N, ...]) that a split has: those numbered in `indices`, or all."""

    fields: Mapping[str, Values]
    indices: Tensor

    @classmethod
    def whole(cls, fields: Mapping[str, Values]) -> Split:
        """All rows."""
        return cls(fields, torch.arange(len(next(iter(fields.values())))))

    def __len__(self) -> int:
        return len(self.indices)


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
        pieces = {name: value.tensor_split(min(parts, max(self.size, 1))) for name, value in self.fields.items()}
        return [
            Batch(dict(zip(pieces, piece, strict=True)), self.total) for piece in zip(*pieces.values(), strict=True)
        ]


@dataclass(frozen=True)
class Batches:
    """A split, cut into batches of `batch_size` rows over all ranks.

    `len(batches)` is the number of batches an epoch, the same on every rank. `batches.epoch(e, start=k)` iterates
    batches k, k + 1, ... of epoch e, in constant time whatever k. The last batch holds what is left, unless
    `drop_last`. Of each batch, rank r of `ranks` has the r-th part; parts differ by one row at most, so that a part can
    be empty where the last batch has fewer rows than there are ranks. No row is repeated: an epoch has each once.

    `resident` keeps the rows on `device`: `"auto"` where that is a GPU and they fit in half of its free memory.
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

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"batch_size={self.batch_size}, rank={self.rank} of {self.ranks} ranks")
        if _stays(self.split, torch.device(self.device), self.resident):
            fields = {
                name: _take(value, self.split.indices).to(self.device) for name, value in self.split.fields.items()
            }
            object.__setattr__(self, "split", Split.whole(fields))

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
        order = self.split.indices
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=_generator(self.seed, epoch))]
        for number in range(start, len(self)):
            yield self._batch(order, epoch, number)

    def _batch(self, order: Tensor, epoch: int, number: int) -> Batch:
        rows = order[number * self.batch_size : (number + 1) * self.batch_size]
        mine = slice(len(rows) * self.rank // self.ranks, len(rows) * (self.rank + 1) // self.ranks)
        fields = {name: self._gather(value, rows[mine]) for name, value in self.split.fields.items()}
        generator = _generator(self.seed, epoch, number)
        for name, chain in self.transforms.items():
            for transform in chain:
                drawn = transform.draw(len(rows), generator)
                fields[name] = transform(fields[name], None if drawn is None else drawn[mine])
        return Batch(fields, len(rows))

    def _gather(self, value: Values, rows: Tensor) -> Tensor:
        found = _take(value, rows)
        if found.is_cpu and torch.device(self.device).type == "cuda":
            found = found.pin_memory()
        return found.to(self.device, non_blocking=True)


def _take(value: Values, rows: Tensor) -> Tensor:
    return value.take(rows) if isinstance(value, Field) else value[rows.to(value.device, non_blocking=True)]


def _generator(*key: int) -> torch.Generator:
    """A generator of its own for each key, the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def _stays(split: Split, device: torch.device, resident: bool | Literal["auto"]) -> bool:
    if device.type == "cpu" or resident is False:
        return False
    if resident is True:
        return True
    held = [value for value in split.fields.values() if isinstance(value, Tensor)]
    if len(held) < len(split.fields):
        return False
    row = sum(value[:1].nbytes for value in held)
    return device.type == "cuda" and row * len(split) <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
