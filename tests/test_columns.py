"""Columns that are read when they are asked for, against the same expressions over tensors that hold all rows."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tdsl.runtime.columns import Column, Field, Held
from tdsl.runtime.data_error import DataError
from tdsl.runtime.table import Table

VALUES = torch.arange(24.0).reshape(6, 4)
FILES = (("a", 2), ("b", 4))
SOME = torch.tensor([5, 0, 3])


class Ragged(Column):
    """Row i is [1, i + 1]."""

    uniform = False

    def __len__(self) -> int:
        return 4

    def take(self, indices: Tensor) -> Tensor:
        raise AssertionError("its rows differ in size")

    def rows(self, indices: Tensor) -> list[Tensor]:
        return [torch.full((1, i + 1), float(i)) for i in indices.tolist()]

    def where(self, row: int) -> tuple[str, int | None]:
        return f"{row}.png", None


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x / 16,
        lambda x: 1 - x,
        lambda x: -(2**x) % 5,
        lambda x: x[:, None, 1:3] * 2,
        lambda x: x.long() == 3,
        lambda x: torch.exp(x / 24).sum(-1),
        lambda x: torch.where(x > 3, x, 0.0),
        lambda x: torch.stack([x, x + 1], dim=1),
        lambda x: x * VALUES,
        lambda x: VALUES + x,
        lambda x: x.reshape(-1, 2, 2),
        lambda x: torch.nn.functional.relu(x - 5),
    ],
)
def test_rows_are_those_of_the_whole(make: Callable[[object], Tensor]) -> None:
    whole, column = make(VALUES), make(Held(VALUES, FILES))
    assert isinstance(column, Column)
    assert len(column) == 6
    assert torch.equal(column.take(SOME), whole[SOME])
    assert all(map(torch.equal, column.rows(SOME), whole[SOME]))
    assert torch.equal(pickle.loads(pickle.dumps(column)).take(SOME), whole[SOME])
    assert torch.equal(column.take(torch.tensor([], dtype=torch.int64)), whole[:0])


def test_rows_of_several_sizes_are_computed_one_by_one() -> None:
    column = (Ragged() + 1)[:, :, :2].float()
    assert [row.tolist() for row in column.rows(torch.tensor([2, 0]))] == [[[3, 3]], [[1]]]
    assert column.take(torch.tensor([1, 3])).tolist() == [[[2, 2]], [[4, 4]]]
    with pytest.raises(DataError, match=r"0\.png: has the shape \[1, 1\], and others have \[1, 2\]"):
        column.take(torch.tensor([1, 0]))


def test_a_field_is_converted_and_its_errors_located() -> None:
    table = Table({"x": Held(VALUES, FILES)}, FILES)
    field = table.field("x", table.column("x"), torch.int64, (4,), classes=20)
    assert isinstance(field, Field)
    assert field.row_bytes == 32
    assert field.take(SOME[1:]).dtype == torch.int64
    with pytest.raises(DataError) as found:
        field.take(SOME)
    assert (found.value.file, found.value.row, found.value.field) == ("b", 4, "x")
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)
    with pytest.raises(DataError, match=r"a, row 1, `y`: has the shape \[4\], and is declared as float\[5\]"):
        table.field("y", table.column("x") * 2, torch.float32, (5,))


def test_a_resized_field_leaves_its_shape_to_the_transforms() -> None:
    table = Table({"x": Ragged()}, (("images", 4),))
    field = table.field("x", table.column("x"), torch.float32, (1, 9), resized=True)
    assert [row.shape[1] for row in field.rows(torch.tensor([3, 1]))] == [4, 2]
    field.check(1, (1, 9))
    with pytest.raises(DataError, match=r"2\.png, `x`: has the shape \[1, 8\]"):
        field.check(2, (1, 8))
    with pytest.raises(DataError, match="declared as float"):
        table.field("x", table.column("x"), torch.float32, (9,), resized=True)
    held = table.field("y", VALUES[:4], torch.float32, (9,), resized=True)
    assert torch.equal(held.take(torch.tensor([2])), VALUES[2:3])
