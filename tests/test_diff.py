"""`tdsl diff`: which weights load into a changed program; and that PyTorch's own loading agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tdsl.compiler.build.unit import ModuleMember
from tdsl.compiler.inspect import states
from tdsl.compiler.weights import likeness
from tdsl.runtime import checkpoint
from tdsl.runtime.run import Failure
from tests.helpers import compiled, tdsl
from tests.running import executed

NET = """module Block(dim: int) {
    norm = LayerNorm(dim)
    up   = Linear(dim, 2 * dim)
    down = Linear(2 * dim, dim)
    param gain: [dim] = ones()
    forward(x: float[B, dim]) -> float[B, dim] { return x + gain * down(gelu(up(norm(x)))) }
}
module Net(dim: int = 6, layers: int = 2, classes: int = 4) {
    enter  = Linear(3, dim)
    blocks = [Block(dim) for i in range(layers)]
    batch  = BatchNorm1d(dim)
    head   = Linear(dim, classes)
    forward(x: float[B, 3]) -> float[B, classes] { return head(batch(enter(x) |> blocks)) }
}
"""
RUN = """data Points {
    source = csv("points.csv")
    field x: float[3]  = columns("p*")
    field label: int[] = column("label")
}
train net {
    model = Net()
    data  = Points
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer = SGD()
    steps = 1
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program, and a checkpoint of its model."""
    found = tmp_path_factory.mktemp("diff")
    (found / "points.csv").write_text("p0,p1,p2,label\n" + "1,2,3,0\n1,2,3,1\n" * 4)
    (found / "net.model").write_text(NET + RUN)
    model = executed(NET, found / "first").Net()
    checkpoint.write(found, 1, models={"model": model}, tensors={}, state={}, program=NET + RUN)
    return found


def compare(folder: Path, text: str, status: int) -> dict[str, Any]:
    (folder / "changed.model").write_text(text + RUN)
    ran = tdsl("diff", "step-1", "changed.model", "--json", cwd=folder)
    assert ran.returncode == status, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["loads"] is (status == 0)
    return found


def of(found: dict[str, Any], what: str) -> dict[str, Any]:
    return {each["name"]: each for each in found["weights"] if each["what"] == what}


def test_the_names_and_shapes_are_those_of_pytorch(tmp_path: Path) -> None:
    unit = compiled(NET)
    model = executed(NET, tmp_path / "m").Net()
    found = {each.path: each.shape for each in states(unit, ModuleMember("Net", ()))}
    assert found == {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_all_load(folder: Path) -> None:
    found = compare(folder, NET.replace("gelu", "relu"), 0)
    assert len(of(found, "loads")) == len(found["weights"]) == 23
    ran = tdsl("diff", folder / "step-1", folder / "net.model")
    assert (ran.returncode, ran.stdout) == (0, "23 of 23 weights of the program load\n")


def test_another_shape_is_told_with_the_names_of_its_sizes(folder: Path) -> None:
    found = compare(folder, NET.replace("2 * dim", "3 * dim").replace("classes: int = 4", "classes: int = 5"), 1)
    wrong = of(found, "shape")
    assert sorted(wrong) == sorted(
        [*(f"blocks.{i}.{name}" for i in range(2) for name in ("up.weight", "up.bias", "down.weight")),
         "head.weight", "head.bias"]
    )  # fmt: skip
    assert wrong["blocks.0.up.weight"]["checkpoint"] == {"shape": [12, 6], "dims": ["2 * dim", "dim"]}
    assert wrong["blocks.0.up.weight"]["program"] == {"shape": [18, 6], "dims": ["3 * dim", "dim"]}
    assert wrong["head.bias"]["program"] == {"shape": [5], "dims": ["classes"]}
    told = tdsl("diff", "step-1", "changed.model", cwd=folder, COLUMNS="160").stdout
    assert "2 * dim = 12 x dim = 6" in told
    assert "15 of 23 weights of the program load" in told


def test_renamed_missing_and_left_over(folder: Path) -> None:
    text = NET.replace("norm ", "norm1 ").replace("norm(x)", "norm1(x)").replace("head", "output")
    text = (
        text.replace("    param gain: [dim] = ones()\n", "    scale = LayerNorm(dim)\n")
        .replace("gain * down", "scale(down")
        .replace("up(norm1(x))))", "up(norm1(x)))))")
    )
    found = compare(folder, text, 1)
    renamed = {name: each["was"] for name, each in of(found, "renamed").items()}
    assert renamed.items() >= {
        "blocks.0.norm1.weight": "blocks.0.norm.weight", "blocks.1.norm1.bias": "blocks.1.norm.bias",
        "output.weight": "head.weight", "output.bias": "head.bias",
    }.items()  # fmt: skip
    assert {"blocks.0.scale.weight", "blocks.0.scale.bias"} <= of(found, "missing").keys() | renamed.keys()
    assert len(set(renamed.values())) == len(renamed)
    assert of(found, "extra").keys() <= {"blocks.0.gain", "blocks.1.gain"}


@pytest.mark.parametrize(
    "change",
    [("gelu", "relu"), ("2 * dim", "3 * dim"), ("layers: int = 2", "layers: int = 1"),
     ("layers: int = 2", "layers: int = 3"), ("head", "output"), ("enter  = Linear(3, dim)", "enter  = Linear(3, dim, bias=false)"),
     ("BatchNorm1d(dim)", "LayerNorm(dim)")],
)  # fmt: skip
def test_the_run_time_loads_exactly_what_is_said_to_load(change: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    text = NET.replace(*change)
    (folder / "changed.model").write_text(text + RUN)
    ran = tdsl("diff", "step-1", "changed.model", cwd=folder)
    model = executed(text, tmp_path / "m").Net()
    try:
        checkpoint.load_model_weights(checkpoint.at(folder / "step-1"), model)
    except Failure:
        assert ran.returncode == 1, ran.stdout
    else:
        assert ran.returncode == 0, ran.stdout


def test_shared_weights_have_several_names(folder: Path, tmp_path: Path) -> None:
    text = NET.replace("head   = Linear(dim, classes)", "head   = Linear(dim, 3, bias=false, weight=turn.weight)").replace(
        "enter  = Linear(3, dim)", "enter  = Linear(3, dim)\n    turn = Linear(dim, 3)"
    ).replace("classes]", "3]").replace(", classes: int = 4", "")  # fmt: skip
    model = executed(text, tmp_path / "m").Net()
    checkpoint.save_weights(tmp_path / "w.safetensors", model)
    (folder / "tied.model").write_text(text + RUN)
    ran = tdsl("diff", tmp_path / "w.safetensors", "tied.model", cwd=folder)
    assert ran.returncode == 0, ran.stdout
    checkpoint.load_weights(tmp_path / "w.safetensors", executed(text, tmp_path / "n").Net())


def test_averaged_weights_are_those_compared(folder: Path, tmp_path: Path) -> None:
    model = executed(NET, tmp_path / "m").Net()
    some = {"head.weight": torch.zeros(4, 6)}
    checkpoint.write(tmp_path, 1, models={"model": model}, tensors={"ema": some}, state={}, program=NET + RUN)
    ran = tdsl("diff", tmp_path / "step-1", "net.model", cwd=folder)
    assert ran.returncode == 1
    assert "1 of 23 weights" in ran.stdout


def test_files_that_hold_no_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\0" * 4)
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 40)
    save_file({"x": torch.ones(2)}, tmp_path / "c.safetensors")
    for name, status in (("a", 2), ("b", 2), ("none", 2), ("c", 1)):
        ran = tdsl("diff", tmp_path / f"{name}.safetensors", "net.model", cwd=folder)
        assert ran.returncode == status, ran.stdout
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("new", "old", "other"),
    [
        ("blocks.0.norm1.weight", "blocks.0.norm.weight", "blocks.1.norm.weight"),
        ("output.bias", "head.bias", "enter.weight"),
    ],
)
def test_the_likelier_name_is_the_more_alike(new: str, old: str, other: str) -> None:
    assert likeness(new, old) > likeness(new, other)
