"""What indices and views make of the columns of a field: proved as a program is checked, and true as it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tdsl.compiler.probe import probe
from tdsl.dsl.resolve import load
from tests.helpers import tdsl

SHAPES = {"series": (50,), "image": (3, 4, 5), "number": ()}
COLUMNS = {
    name: np.arange(6 * int(np.prod(shape)), dtype=np.float32).reshape(6, *shape) for name, shape in SHAPES.items()
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rows")
    np.savez(found / "rows.npz", **COLUMNS)  # type: ignore[arg-type]
    return found


def program(value: str, shape: tuple[int, ...]) -> str:
    return f'data D {{\n    source = npz("rows.npz")\n    field x: float{list(shape)} = {value}\n}}\n'


def told(text: str, folder: Path) -> list[str]:
    """The errors of a program, each with its label and its cure."""
    _, reporter = load(folder / "p.model", text=text, probe=probe)
    return [f"{each.code} {each.message}; {each.label}; {each.help}" for each in reporter.errors]


PROVED = (
    'column("series")[:, :48]', 'column("series")[:, 1:]', 'column("series")[..., 3:9]', 'column("series")[:, -7:-1]',
    'column("series")[:, ::7]', 'column("series")[:, 40:90]', 'column("series")[:, 7]', 'column("series")[:, none, 2:]',
    'column("image")[:, 1]', 'column("image")[:, :, 1:3, -2]', 'column("image")[..., 0]', 'column("image")[:, 2:9][:, 0]',
    'column("image").flatten(-3)', 'column("image").flatten(-2, -1)', 'column("image").flatten(-3, end_dim=-2)',
    'column("image").flatten(start_dim=-2)', 'column("image").transpose(-1, -3)', 'column("image").movedim(-3, -1)',
    'column("image").movedim(-1, -3)', 'column("image").reshape(6, 10)', '(column("image") / 2).flatten(-2)[:, 1, 3:]',
    'column("number")[:, none]',
)  # fmt: skip


@pytest.mark.parametrize("value", PROVED)
def test_the_shape_of_a_row_is_pytorchs(value: str, folder: Path) -> None:
    text = value.replace("none", "None").replace("reshape(", "reshape(-1, ")
    shape = tuple(eval(text, {"column": lambda name: torch.tensor(COLUMNS[name])}).shape[1:])
    assert told(program(value, shape), folder) == []
    (found,) = told(program(value, (*shape, 9)), folder)
    assert found.startswith(f"E406 `x` is declared as float{[*shape, 9]}, and its columns give {list(shape)} a row")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('column("series")[:48]', "a value for each row; its columns give [50] a row; the first place"),
        ('column("series")[0]', "a value for each row"),
        ('column("series")[none]', "a value for each row"),
        ('column("series")[:, 50]', "no place 50 among 50; ; the places are 0 to 49"),
        ('column("series")[:, -51]', "no place -51 among 50"),
        ('column("series")[:, 0, 0]', "an index of 3 places into 2 dimensions, the rows' included"),
        ('column("series").flatten(-2)', "a row has no dimension -2; its columns give [50] a row"),
        ('column("image").transpose(-1, -4)', "a row has no dimension -4"),
        ('column("number").flatten(-1)', "a row has no dimension -1; its columns give [] a row; a row is one number"),
        ('column("series").reshape(7, 7)', "50 values do not make up [7, 7]"),
    ],
)
def test_what_a_row_does_not_have(value: str, message: str, folder: Path) -> None:
    (found,) = told(program(value, (3,)), folder)
    assert found.startswith("E406 ")
    assert message in found


@pytest.mark.parametrize(
    "value",
    [
        'column("series")[column("series") > 0]', 'column("image").reshape(-1, 20)', 'column("series")[:, tensor([0, 2])]',
        'column("absent")[:, :48]',
    ],
)  # fmt: skip
def test_of_what_is_not_known_no_shape_is_told(value: str, folder: Path) -> None:
    assert all("E402" in each for each in told(program(value, (9, 9)), folder))


@pytest.mark.parametrize(
    ("value", "mixes"),
    [
        ("flatten(-3)", False), ("flatten(-2, -1)", False), ("flatten(start_dim=-3)", False), ("flatten()", True),
        ("flatten(1)", True), ("flatten(end_dim=-1)", True), ("flatten(-2, 3)", True), ("transpose(0, 1)", True),
    ],
)  # fmt: skip
def test_views_whose_dimensions_are_counted_from_the_end_mix_no_rows(value: str, mixes: bool, folder: Path) -> None:
    shape = (60,) if "3" in value else (3, 20)
    (folder / "v.model").write_text(program(f'column("image").{value}', shape))
    found = tdsl("check", "v.model", cwd=folder)
    assert (found.returncode, "E455" in found.stderr) == ((2, True) if mixes else (0, False)), found.stderr
