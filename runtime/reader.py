"""How the rows of a batch are read: gathered, then transformed by what is drawn from the batch's own stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor

from tdsl.runtime.columns import Field, Values
from tdsl.runtime.data_error import DataError
from tdsl.runtime.images import Images, Unfit, together
from tdsl.runtime.transforms import Transform


def generator(*key: int) -> Generator:
    """A generator of its own for each key, the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


class Key(NamedTuple):
    """Which batch: number `number` of an epoch. Of its `rows` over all ranks, those from `start` to `end` are read."""

    epoch: int
    number: int
    rows: npt.NDArray[np.int64]
    start: int
    end: int


@dataclass(frozen=True)
class Reader:
    """What reads batches: in this process, or in workers that it is sent to."""

    fields: Mapping[str, Values]
    transforms: Mapping[str, Sequence[Transform]]
    seed: int

    def read(self, key: Key) -> dict[str, Tensor]:
        """This rank's rows of every field. Raises `DataError` for a row that can't be read or transformed."""
        start, end = key.start, key.end
        if start == end:  # which has shapes and types nevertheless: those of some other row
            start, end = (start, end + 1) if end < len(key.rows) else (start - 1, end)
        rows = torch.from_numpy(key.rows[start:end])
        found: dict[str, Images] = {name: _gathered(value, rows) for name, value in self.fields.items()}
        stream = generator(self.seed, key.epoch, key.number)
        for name, chain in self.transforms.items():
            for transform in chain:
                drawn = transform.draw(len(key.rows), stream)
                try:
                    found[name] = transform(found[name], None if drawn is None else drawn[start:end])
                except Unfit as error:
                    raise _misfit(self.fields[name], name, int(rows[error.at]), str(error)) from None
        whole = {name: _whole(self.fields[name], value, rows) for name, value in found.items()}
        return {name: value[: key.end - key.start] for name, value in whole.items()}


def _gathered(value: Values, rows: Tensor) -> Images:
    if isinstance(value, Field):
        return value.take(rows) if value.uniform else together(value.rows(rows))
    return value[rows.to(value.device, non_blocking=True)]


def _whole(value: Values, found: Images, rows: Tensor) -> Tensor:
    """Rows as one tensor, of the shape that the field is declared with."""
    if isinstance(value, Field) and value.resized:
        for row, each in zip(rows.tolist(), found, strict=True):
            value.check(row, tuple(each.shape))
    assert isinstance(found, Tensor)
    return found


def _misfit(value: Values, name: str, row: int, message: str) -> DataError:
    if isinstance(value, Field):
        return value.error(row, message)
    return DataError(message, file="the data", row=row + 1, field=name)


class Failed(NamedTuple):
    """What went wrong in a worker."""

    error: Exception


class Rows:
    """What a worker has: a batch, or `Failed`, for each key. (`torch.utils.data` calls this a dataset.)"""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitem__(self, key: Key) -> dict[str, Tensor] | Failed:
        try:
            return self.reader.read(key)
        except (DataError, OSError) as error:  # as they are: elsewhere they would be told as text
            return Failed(error)


def same(value: Any) -> Any:
    """A batch as it is read: it needs no collation."""
    return value
