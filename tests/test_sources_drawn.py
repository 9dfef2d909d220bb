"""Random rows, and tensors of safetensors files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tdsl.compiler.probe import ProbeError, probe
from tdsl.runtime import sources
from tdsl.runtime.sources import DataError

TENSORS = {
    "x": torch.arange(24.0).reshape(4, 2, 3),
    "half": torch.arange(4).bfloat16() / 4,
    "label": torch.tensor([0, 3, 1, 2], dtype=torch.int16),
    "flag": torch.tensor([True, False, True, True]),
}


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(torch.float32, (3, 4)), (torch.bfloat16, ()), (torch.int64, (5,)), (torch.uint8, ()), (torch.bool, (2,))],
)
def test_fields_are_drawn_in_their_type(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    table = sources.synthetic(rows=500, classes=7, seed=3)
    value = table.field("x", (table.columns("p*") / 16).float()[:, 0], dtype, shape)
    assert isinstance(value, torch.Tensor)
    assert value.dtype == dtype
    assert value.shape == (500, *shape)
    if not dtype.is_floating_point and dtype != torch.bool:
        assert set(value.flatten().tolist()) == set(range(7))
    again = sources.synthetic(rows=500, classes=7, seed=3).field("x", table.column("x"), dtype, shape)
    assert torch.equal(value, again)
    other = sources.synthetic(rows=500, classes=7, seed=4).field("x", table.column("x"), dtype, shape)
    assert not torch.equal(value, other)
    assert not torch.equal(value, table.field("y", table.column("x"), dtype, shape))


def test_labels_stay_below_the_classes() -> None:
    table = sources.synthetic(rows=100, classes=1000)
    assert table.field("label", table.column("label"), torch.int8, ()).max() <= 127
    assert table.field("label", table.column("label"), torch.int64, (), classes=3).max() == 2
    numbered = table.numbered("kind", ["a", "b", "c", "d"])
    assert numbered.field("kind", numbered.column("kind"), torch.int64, ()).max() == 3
    assert numbered.field("label", numbered.column("label"), torch.int64, ()).max() > 900
    assert table.values("label").shape == (100,)


def test_tensors_are_those_that_were_saved(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors", metadata={"made": "here"})
    table = sources.safetensors(tmp_path, "a.safetensors")
    for name, tensor in TENSORS.items():
        assert torch.equal(table.column(name), tensor.float() if name == "half" else tensor)
    found = probe("safetensors", {"path": "a.safetensors"}, tmp_path)
    kinds = {name: (column.kind, column.shape) for name, column in found.columns.items()}
    assert kinds == {"x": ("float", (2, 3)), "half": ("float", ()), "label": ("int", ()), "flag": ("bool", ())}
    assert (found.rows, found.num_classes("label")) == (4, 4)
    with pytest.raises(ProbeError, match="integers"):
        found.num_classes("x")


def test_damaged_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    bad = [
        b"",
        b"abc",
        whole[:-1],
        whole + b"0",
        whole[:40],
        b"\xff" * 8 + whole[8:],
        whole.replace(b"shape", b"shabe"),
    ]
    for content in bad:
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(DataError, match=r"^a\.safetensors: is "):
            sources.safetensors(tmp_path, "a.safetensors")
        with pytest.raises(ProbeError, match=r"^a\.safetensors: is "):
            probe("safetensors", {"path": "a.safetensors"}, tmp_path)


def test_tensors_of_other_lengths_are_no_columns(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3, 2), "y": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="column `y` has 2 rows, and `x` has 3"):
        sources.safetensors(tmp_path, "a.safetensors")
    with pytest.raises(ProbeError, match="column `y` has 2 rows, and `x` has 3"):
        probe("safetensors", {"path": "a.safetensors"}, tmp_path)
