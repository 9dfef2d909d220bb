"""Weights that a user has, from wherever: loaded, or told why they can't be."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tdsl.compiler.emit.project import Options, emit, write
from tdsl.runtime import checkpoint
from tdsl.runtime.run import Failure
from tests.helpers import compiled, tdsl
from tests.running import importable
from tests.training_runs import Run, finish

PROGRAM = """module Net(dim: int = 8) {
    enter = Linear(3, dim)
    batch = BatchNorm1d(dim)
    back  = Linear(dim, 3)
    again = Linear(dim, 3, weight=back.weight)
    forward(x: float[B, 3]) -> float[B, 3] {
        h = batch(enter(x))
        return back(h) + again(h)
    }
}
data Points {
    source = csv("points.csv")
    field x: float[3]  = columns("p*")
    field label: int[] = column("label")
}
train net {
    model = Net()
    data  = Points
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer = SGD(lr=0.1)
    epochs = 2
    batch_size = 4
    INIT
}
"""


class Net(nn.Module):
    """The same in PyTorch."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.enter, self.batch = nn.Linear(3, dim), nn.BatchNorm1d(dim)
        self.back, self.again = nn.Linear(dim, 3), nn.Linear(dim, 3)


def project(folder: Path, name: str, init: str = "") -> Path:
    """The project of the program; `init` is what it begins with, the text of a string or of a call."""
    value = init if "(" in init else f'"{init}"'
    unit = compiled(PROGRAM.replace("INIT", f"init_from = {value}" if init else ""), name=folder / "net.model")
    write(emit(unit, Options("net", root=str(folder))), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program, its data, and a run."""
    found = tmp_path_factory.mktemp("loading")
    (found / "points.csv").write_text("p0,p1,p2,label\n" + "1,2,3,0\n1,2,4,1\n0,1,0,2\n5,2,3,1\n" * 2)
    (found / "net.model").write_text(PROGRAM.replace("INIT", ""))
    finish(project(found, "emitted"), found / "run")
    return found


def model(folder: Path, **options: Any) -> nn.Module:
    with importable(folder / "emitted"):
        found: nn.Module = runpy.run_path(str(folder / "emitted/checkpoint.py"))["load"](out=folder / "run", **options)
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "run/checkpoints/step-4/model.safetensors")


@pytest.mark.parametrize("given", ["run", "run/checkpoints/step-4", "run/checkpoints/step-4/model.safetensors"])
def test_a_run_a_checkpoint_and_its_file_begin_another(given: str, folder: Path, tmp_path: Path) -> None:
    fresh = model(folder, which="none")
    checkpoint.load_weights(folder / given, fresh)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in weights(folder).items())


def test_weights_of_plain_pytorch_begin_a_run(folder: Path) -> None:
    """In half precision, and with each name of what is shared, as `state_dict` has it."""
    net = Net()
    net.again.weight = net.back.weight
    save_file({k: v.clone() for k, v in net.state_dict().items()}, folder / "plain.safetensors")
    finish(project(folder, "plain", "plain.safetensors"), folder / "first", "--set", "optimizer.lr=0.0")
    found = load_file(folder / "first/checkpoints/step-4/model.safetensors")
    assert torch.equal(found["enter.weight"], net.enter.weight)
    assert torch.equal(found["again.weight"], net.back.weight)
    assert not torch.equal(found["batch.running_mean"], net.batch.running_mean)


def test_a_new_head_begins_as_it_is_initialised(folder: Path) -> None:
    """Whatever its shape in the file; what else the file has under a glob is not missed in the model."""
    given = {**weights(folder), "back.weight": torch.zeros(5, 8), "back.bias": torch.zeros(5), "more": torch.ones(1)}
    save_file({name: value for name, value in given.items() if "again" not in name}, folder / "body.safetensors")
    emitted = project(folder, "new_head", 'weights("body.safetensors", without=["back", "again*", "more"])')
    finish(emitted, folder / "second", "--set", "optimizer.lr=0.0")
    found = load_file(folder / "second/checkpoints/step-4/model.safetensors")
    assert torch.equal(found["enter.weight"], given["enter.weight"])
    assert found["again.weight"].shape == (3, 8)
    assert found["again.weight"].any()
    assert not torch.equal(found["again.bias"], given["again.bias"])


def test_a_tied_weight_comes_by_the_name_that_is_not_left_out(folder: Path) -> None:
    fresh = model(folder, which="none")
    checkpoint.load_weights(folder / "run", fresh, without=("again",))
    assert torch.equal(fresh.get_parameter("back.weight"), weights(folder)["again.weight"])


def test_a_body_and_a_head_come_from_two_files(folder: Path) -> None:
    given = weights(folder)
    for name, has in (
        ("head", lambda key: key[:5] in ("back.", "again")),
        ("body", lambda key: key[:5] in "enter, batch"),
    ):
        save_file({key: value for key, value in given.items() if has(key)}, folder / f"{name}_part.safetensors")
    fresh = model(folder, which="none")
    checkpoint.load_weights(folder / "body_part.safetensors", fresh, without=("back", "again"))
    checkpoint.load_weights(folder / "head_part.safetensors", fresh, without=("enter", "batch"))
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in given.items())


def test_what_is_not_left_out_has_to_fit(folder: Path) -> None:
    given = {**weights(folder), "enter.weight": torch.zeros(9, 3)}
    save_file(given, folder / "wide.safetensors")
    with pytest.raises(Failure, match=r"of shape \[9, 3\] for \[8, 3\]") as told:
        checkpoint.load_weights(folder / "wide.safetensors", model(folder, which="none"), without=("back",))
    assert "without" not in told.value.help  # a part of a module fits, and leaving it out would lose that
    with pytest.raises(Failure, match='"hed" of `without` matches no weight') as told:
        checkpoint.load_weights(folder / "wide.safetensors", model(folder, which="none"), without=("hed",))


def test_another_head_has_its_cure(folder: Path) -> None:
    given = {name: value for name, value in weights(folder).items() if not name.startswith(("back", "again"))}
    save_file({**given, "head.weight": torch.zeros(5, 8)}, folder / "other_head.safetensors")
    with pytest.raises(Failure) as told:
        checkpoint.load_weights(folder / "other_head.safetensors", model(folder, which="none"))
    assert 'without=["back", "again", "head"]' in told.value.help


def _pickled(folder: Path) -> Path:
    torch.save(Net().state_dict(), folder / "a.pt")
    return folder / "a.pt"


def _cut(folder: Path) -> Path:
    (folder / "cut.safetensors").write_bytes((folder / "run/checkpoints/step-4/model.safetensors").read_bytes()[:-40])
    return folder / "cut.safetensors"


def _wrapped(folder: Path) -> Path:
    save_file({f"module.{name}": value.clone() for name, value in weights(folder).items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


def _foreign(folder: Path) -> Path:
    save_file(nn.Sequential(nn.Linear(2, 2)).state_dict(), folder / "f.safetensors")
    return folder / "f.safetensors"


def _other(folder: Path) -> Path:
    found = {name: value for name, value in weights(folder).items() if name != "enter.bias"}
    save_file({**found, "enter.weight": torch.zeros(4, 3), "head": torch.zeros(1)}, folder / "o.safetensors")
    return folder / "o.safetensors"


def _damaged(folder: Path) -> Path:
    step = folder / "bad/step-4"
    step.mkdir(parents=True, exist_ok=True)
    for file in (folder / "run/checkpoints/step-4").iterdir():
        (step / file.name).write_bytes(
            file.read_bytes()[:-1] if file.name == "model.safetensors" else file.read_bytes()
        )
    return step


@pytest.mark.parametrize(
    ("make", "told", "status"),
    [
        (lambda folder: folder / "x/../none.safetensors", "there is no file `.*/none.safetensors`", 2),
        (lambda folder: folder, "is no checkpoint", 2),
        (_pickled, "a.pt` is a pickle, which is never read here(.|\n)*save_file", 2),
        (_cut, "cut.safetensors` is no safetensors file, or is damaged", 2),
        (_damaged, "`model.safetensors` is damaged", 2),
        (
            _wrapped,
            "their names begin with `module.`, as those of a model that is wrapped do(.|\n)*`tdsl diff .*w.safetensors",
            1,
        ),
        (
            _foreign,
            "they lack `enter.weight`, `enter.bias`, `batch.weight`, `batch.bias` and 6 more; they have `0.bias`, "
            "`0.weight`, which it has not",
            1,
        ),
        (
            _other,
            r"they lack `enter.bias`; they have `head`, which it has not; they have `enter.weight` of shape \[4, 3\] "
            r"for \[8, 3\]",
            1,
        ),
    ],
)
def test_what_is_not_the_model_is_told(make: Any, told: str, status: int, folder: Path) -> None:
    path = make(folder)
    with pytest.raises(Failure, match=told):
        checkpoint.load_weights(path, model(folder, which="none"))
    if make is not _damaged:  # which its manifest tells
        ran = tdsl("diff", path, "net.model", cwd=folder)
        assert (ran.returncode, "Traceback" in ran.stderr) == (status, False), ran.stdout + ran.stderr


def test_a_run_that_can_not_begin_says_why(folder: Path) -> None:
    run = Run(project(folder, "wrong", "none.safetensors"), folder / "wrong-run")
    assert run.wait() == 1
    assert "error: there is no file" in run.text
    assert "Traceback" not in run.text


def test_a_run_is_compared_by_its_newest_checkpoint(folder: Path) -> None:
    ran = tdsl("diff", folder / "run", "net.model", cwd=folder)
    assert (ran.returncode, ran.stdout) == (0, "10 of 10 weights of the program load\n")


def test_models_go_to_other_devices(folder: Path) -> None:
    for which in ("best", "last", "none", str(folder / "run/checkpoints/step-2")):
        there = model(folder, which=which, device="meta")
        assert {value.device.type for value in there.state_dict().values()} == {"meta"}
        assert not there.training
    found = model(folder)
    assert all(torch.equal(found.state_dict()[name], value) for name, value in weights(folder).items())
    assert not torch.equal(model(folder, which="none").state_dict()["enter.weight"], weights(folder)["enter.weight"])
    with pytest.raises(Failure, match="is no checkpoint"):
        model(folder, which="newest")
