"""Lines of JSON, against Python's own parser; what is wrong with them is told with its line, and by check and run alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tdsl.compiler.probe import ProbeError, probe
from tdsl.runtime import sources
from tdsl.runtime.sources import DataError


def write(folder: Path, *lines: object) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_rows_are_what_python_reads(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [
        {"x": draw.normal(size=(2, 3)).tolist(), "label": int(draw.integers(10)), "flag": bool(i % 2), "name": f"é{i}"}
        for i in range(300)
    ]
    lines = [json.dumps(row) + ("\n" if i % 7 == 0 else "") for i, row in enumerate(rows)]
    write(tmp_path, *lines)
    table = sources.jsonl(tmp_path, "a.jsonl")
    assert table.column("x").tolist() == [row["x"] for row in rows]
    assert table.column("label").tolist() == [row["label"] for row in rows]
    assert table.column("flag").dtype == torch.bool
    assert table.values("name").tolist() == [row["name"] for row in rows]
    found = probe("jsonl", {"path": "a.jsonl"}, tmp_path)
    kinds = {name: (column.kind, column.shape) for name, column in found.columns.items()}
    assert kinds == {"x": ("float", (2, 3)), "label": ("int", ()), "flag": ("bool", ()), "name": ("text", ())}
    assert (found.rows, found.num_classes("label")) == (300, 10)


def test_integers_and_floats_mix_and_a_lacking_key_is_missing(tmp_path: Path) -> None:
    write(tmp_path, {"x": 1, "y": 1}, {"x": 2.5}, {"y": None, "x": 3})
    table = sources.jsonl(tmp_path, "a.jsonl")
    assert table.column("x").tolist() == [1, 2.5, 3]
    with pytest.raises(DataError) as found:
        table.field("y", table.column("y"), torch.float32, ())
    assert (found.value.row, found.value.field) == (2, "y")
    columns = probe("jsonl", {"path": "a.jsonl"}, tmp_path).columns
    assert [column.kind for column in columns.values()] == ["float", "float"]


@pytest.mark.parametrize(
    ("lines", "row", "told"),
    [
        (['{"x": 1}', "", '{"x": 2'], 2, "line 3 is not JSON"),
        (['{"x": 1}', "[1]"], 2, "line 2 is no object"),
        (['{"x": 1}', "3"], 2, "line 2 is no object"),
        (['{"x": 1} {"x": 2'], 1, "line 1 is not JSON"),
        ([], None, "is empty"),
        (['{"x": [1, 2]}', '{"x": [1]}'], 2, "values"),
        (['{"x": [[1, 2], [3, 4]]}', '{"x": [[1, 2], [3]]}'], 2, "values"),
        (['{"x": [1, 2]}', "{}"], 2, "missing"),
        (["[" * 100_000], 1, "line 1 is not JSON"),
    ],
)
def test_damage_is_located(tmp_path: Path, lines: list[str], row: int | None, told: str) -> None:
    write(tmp_path, *lines)
    with pytest.raises(DataError, match=told) as found:
        sources.jsonl(tmp_path, "a.jsonl")
    assert (found.value.file, found.value.row) == ("a.jsonl", row)
    with pytest.raises(ProbeError) as checked:
        probe("jsonl", {"path": "a.jsonl"}, tmp_path)
    assert checked.value.file == "a.jsonl"
    if told.startswith("line"):
        assert (checked.value.message, checked.value.row) == (found.value.message, found.value.row)


def test_a_kind_that_changes_names_both_rows(tmp_path: Path) -> None:
    write(tmp_path, {"x": 1}, {"x": None}, {"x": "two"})
    with pytest.raises(DataError, match="is text in line 3, and was a number in row 1") as found:
        sources.jsonl(tmp_path, "a.jsonl")
    assert (found.value.row, found.value.field) == (3, "x")


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\n{"x": "\xff"}\n')
    with pytest.raises(DataError, match="UTF-8"):
        sources.jsonl(tmp_path, "a.jsonl")
    with pytest.raises(ProbeError, match="line 2 is not UTF-8"):
        probe("jsonl", {"path": "a.jsonl"}, tmp_path)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    (tmp_path / "b.jsonl").write_text('{"x": 3}\n')
    assert sources.jsonl(tmp_path, "*.jsonl").column("x").tolist() == [1, 2, 3]
    assert probe("jsonl", {"path": "*.jsonl"}, tmp_path).rows == 3
