"""Tensors whose rows several processes have, written by some number of them and read by any other."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tdsl.runtime import ranks, sharded_checkpoint, shards
from tdsl.runtime.run import Failure
from tdsl.runtime.shards import Piece

TENSORS = {
    "weight": torch.arange(35.0).reshape(7, 5),
    "bias": torch.arange(7.0),
    "few": torch.arange(2, dtype=torch.int64).reshape(2, 1),
    "low": torch.arange(6.0).reshape(3, 2).bfloat16(),
}
STATISTIC = torch.tensor(5)


def rows(value: Tensor, rank: int, count: int) -> slice:
    """As `fully_shard` divides them."""
    each = -(-len(value) // count)
    return slice(min(each * rank, len(value)), min(each * (rank + 1), len(value)))


def write(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    for rank in range(count):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "count", lambda: count)
        own: dict[str, Tensor | Piece] = {"statistic": STATISTIC}
        for name, value in TENSORS.items():
            part = rows(value, rank, count)
            own[name] = Piece(value[part], tuple(value.shape), part.start)
        shards.write(folder, "model", own)
        starts.append({"model": shards.starts(own)})
    (folder / shards.SHARDS).write_text(json.dumps(shards.index(starts)))


@pytest.mark.parametrize("written", [1, 2, 3, 5])
def test_rows_are_read_by_any_number_of_processes(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, written, monkeypatch)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == written
    whole = shards.read(tmp_path, "model")
    assert whole.keys() == {*TENSORS, "statistic"}
    assert all(torch.equal(whole[name], value) for name, value in TENSORS.items())
    assert torch.equal(whole["statistic"], STATISTIC)
    for count in (1, 2, 4, 9):
        for rank in range(count):

            def wanted(name: str, shape: tuple[int, ...], rank: int = rank, count: int = count) -> slice | None:
                return rows(TENSORS[name], rank, count) if name in TENSORS and shape == TENSORS[name].shape else None

            found = shards.read(tmp_path, "model", wanted)
            for name, value in TENSORS.items():
                assert found[name].dtype == value.dtype
                assert torch.equal(found[name], value[rows(value, rank, count)])


def piece(value: Tensor) -> dict[str, dict[str, Tensor | Piece]]:
    return {"model": {"a": Piece(value, tuple(value.shape), 0)}}


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = torch.arange(4.0)
    written = sharded_checkpoint.write(tmp_path, 1, tensors=piece(good), state={"ended": False}, program="# text")
    written.verify()
    assert torch.equal(written.weights()["a"], good)
    with pytest.raises(Failure, match="`a` of `model` is not finite after step 2"):
        sharded_checkpoint.write(tmp_path, 2, tensors=piece(good / 0), state={}, program="")

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(Failure, match=r"step-3 can't be written.*No space left"):
        sharded_checkpoint.write(tmp_path, 3, tensors=piece(good), state={}, program="")
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]


def test_what_does_not_fit_is_told() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(RuntimeError, match="missing: b; not known: c"):
        shards.put({"a": torch.ones(2), "c": torch.ones(1)}, state)
    with pytest.raises(RuntimeError, match=r"size mismatch for b: \(2,\) instead of \(3,\)"):
        shards.put({"a": torch.ones(2), "b": torch.ones(2)}, state)
