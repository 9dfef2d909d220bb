"""Checkpoints: written whole or not at all, damage noticed, the one before used instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tdsl.runtime import checkpoint, checkpoint_tool, files, optim, streams
from tdsl.runtime.progress import Meter
from tdsl.runtime.run import Failure
from tdsl.runtime.training import Best, EarlyStopping


class Tied(nn.Module):
    """Two layers that share their weight, a buffer that is not contiguous, a part of another, and batch statistics."""

    line: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)
        self.down = nn.Linear(4, 4)
        self.down.weight = self.up.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("grid", torch.arange(12.0).reshape(3, 4).T)
        self.register_buffer("line", torch.arange(12.0))
        self.register_buffer("part", self.line[2:5])

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.norm(self.up(x)))
        return found


def written(folder: Path, step: int, model: nn.Module | None = None, **state: Any) -> checkpoint.Checkpoint:
    model = model or Tied()
    tensors = {"random": {"torch": torch.get_rng_state()}}
    return checkpoint.write(
        folder, step, models={"model": model}, tensors=tensors, state={"best": {}, **state}, program="module M() { }\n"
    )


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    model(torch.randn(5, 4))
    found = written(tmp_path, 7, model, note="é")
    found.verify()
    checkpoint.load_model_weights(found, other)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert other.down.weight is other.up.weight
    assert found.state == {"step": 7, "best": {}, "note": "é"}
    assert (found.path / "program.model").read_text() == "module M() { }\n"
    assert not [path for path in found.path.iterdir() if path.suffix not in (".safetensors", ".json", ".model")]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "random.safetensors", "state.json", "program.model", "manifest.json"]
)
def test_damage_is_noticed_and_the_checkpoint_before_is_used(
    damage: Callable[[Path], None], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, 1)
    damage(written(tmp_path, 2).path / name)
    found = checkpoint.latest_good(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "warning" in capsys.readouterr().err
    with pytest.raises(Failure, match=r"step-2"):
        checkpoint.at(tmp_path / "step-2")
    damage(tmp_path / "step-1" / name)
    with pytest.raises(Failure, match="every checkpoint"):
        checkpoint.latest_good(tmp_path)


def test_where_there_is_none() -> None:
    assert checkpoint.latest_good(Path("nowhere")) is None
    with pytest.raises(Failure, match="no checkpoint"):
        checkpoint.find(Path("nowhere"))


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    written(tmp_path, 1)
    model = Tied()
    model.up.bias.data[2] = float("nan")
    with pytest.raises(Failure, match=r"`up.bias` of `model` is not finite after step 2"):
        written(tmp_path, 2, model)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        (path / "a").write_text("a")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_folder(tmp_path / "step-1", fill)
    assert not list(tmp_path.iterdir())


def test_what_a_kill_has_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".step-3.tmp").mkdir()
    (tmp_path / ".step-1.old").mkdir()
    (tmp_path / ".log.tmp").write_text("")
    written(tmp_path, 2)
    checkpoint.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        written(tmp_path, step, best={"step": 2})
        checkpoint.prune(tmp_path, 2, 2)
    assert [each.step for each in checkpoint.listed(tmp_path)] == [6, 5, 2]
    assert checkpoint.find(tmp_path, "best").step == 2
    assert checkpoint.find(tmp_path, "last").step == 6
    truncate(tmp_path / "step-2" / "state.json")
    assert checkpoint.find(tmp_path, "best").step == 6


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    found = written(tmp_path, 1)
    with pytest.raises(Failure, match="of another model"):
        checkpoint.load_model_weights(found, nn.Linear(4, 4))
    save_file({"weight": torch.zeros(1)}, tmp_path / "a b.safetensors")
    with pytest.raises(Failure) as told:
        checkpoint.load_weights(tmp_path / "a b.safetensors", Tied())
    assert told.value.help == f"`tdsl diff '{tmp_path}/a b.safetensors' PROGRAM` tells it weight by weight"
    (tmp_path / "w.safetensors").write_text("not one")
    with pytest.raises(Failure, match="no safetensors file"):
        checkpoint.load_weights(tmp_path / "w.safetensors", Tied())
    with pytest.raises(Failure, match="no file"):
        checkpoint.load_weights(tmp_path / "v.safetensors", Tied())


OPTIMIZERS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.AdamW, {"betas": (0.8, 0.9)}),
    (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    (torch.optim.Adagrad, {}),
    (torch.optim.Adadelta, {}),
    (torch.optim.Adamax, {}),
    (torch.optim.NAdam, {}),
    (torch.optim.RAdam, {}),
    (optim.Lion, {}),
]


@pytest.mark.parametrize(("kind", "args"), OPTIMIZERS, ids=[kind.__name__ for kind, _ in OPTIMIZERS])
def test_an_optimizer_goes_on_from_safetensors_and_json(
    kind: type[Optimizer], args: dict[str, Any], tmp_path: Path
) -> None:
    def make() -> tuple[nn.Module, Optimizer]:
        torch.manual_seed(0)
        model = Tied()
        groups = optim.groups({"model": model}, {"*.bias": {"weight_decay": 0.25}})
        return model, kind(groups, **args)

    def train(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
        data = torch.randn(4, 8, 4, generator=torch.Generator().manual_seed(seed))
        for x in data:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    model, optimizer = make()
    train(model, optimizer, 1)
    tensors, rest = checkpoint.flat_optimizer(optimizer)
    found = checkpoint.write(
        tmp_path, 4, models={"model": model}, tensors={"optimizer": tensors}, state={"optimizer": rest}, program=""
    )
    other, again = make()
    checkpoint.load_model_weights(found, other)
    checkpoint.restore_optimizer(again, found.tensors("optimizer"), found.state["optimizer"])
    train(model, optimizer, 2)
    train(other, again, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_means_are_weighted_by_rows_and_outlive_a_checkpoint() -> None:
    meter, other = Meter(), Meter()
    meter.add({"loss": torch.tensor(1.0)}, 3)
    other.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    other.add({"loss": torch.tensor(5.0)}, 1)
    assert other.means() == {"loss": 2.0}


def test_isolated_streams_leave_the_others_as_they_were() -> None:
    streams.seed_all(1)
    expected = torch.rand(3)
    streams.seed_all(1)
    with streams.isolated(5):
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("mode", "values", "expected"), [("min", (3, 2, 2.5), 2), ("max", (0.1, 0.3, float("nan")), 0.3)]
)
def test_the_best_value(mode: str, values: tuple[float, ...], expected: float) -> None:
    best = Best("val/loss", mode)
    for step, value in enumerate(values):
        best.update({"val/loss": value}, step)
    assert best.value == expected
    assert best.step == 1


def test_patience_ends_a_run() -> None:
    stopping = EarlyStopping(Best("val/loss", "min"), patience=2, min_delta=0.1)
    assert [stopping.update({"val/loss": value}, 0) for value in (1.0, 0.95, 0.8, 0.75, 0.72)] == [
        False, False, False, False, True,
    ]  # fmt: skip


def test_the_tool_lists_verifies_and_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    model = Tied()
    written(folder, 3, model, best={"step": 3})
    assert checkpoint_tool.main("m", tmp_path, ["list"]) == 0
    assert "step-3" in capsys.readouterr().out
    assert checkpoint_tool.main("m", tmp_path, ["convert", str(tmp_path / "w.safetensors")]) == 0
    assert torch.equal(load_file(tmp_path / "w.safetensors")["up.bias"], model.up.bias)
    assert checkpoint_tool.main("m", tmp_path, ["verify"]) == 0
    for elsewhere in (["--out", str(tmp_path), "list"], ["list", "--out", str(tmp_path)]):
        capsys.readouterr()
        assert checkpoint_tool.main("m", tmp_path / "none", elsewhere) == 0
        assert "step-" in capsys.readouterr().out
    flip_a_bit(folder / "step-3" / "model.safetensors")
    assert checkpoint_tool.main("m", tmp_path, ["verify"]) == 1
    assert "`model.safetensors` is damaged" in capsys.readouterr().out
