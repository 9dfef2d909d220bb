"""The course, `examples/course`: each program is as it should be, trains, and reaches what its comments promise.

Tensors and gradients are compared with PyTorch written by hand.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tdsl.compiler import pipeline
from tdsl.compiler.driver import read, write
from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.format import format_source
from tests.helpers import ROOT, python, tdsl
from tests.running import executed, importable

COURSE = ROOT / "examples" / "course"
PROGRAMS = sorted(COURSE.glob("*.model"))
EPOCHS = 30
RATE = 0.02

# For each run the least that its evaluation shows, as its program says; part 7 is typed in, below.
REACHED: dict[str, dict[str, dict[str, float]]] = {
    "01_tensors": {"tensors": {"accuracy": 0.9}},
    "02_autograd": {"plain": {"accuracy": 0.0}, "robust": {"accuracy": 0.55}, "frozen": {"accuracy": 0.85}},
    "03_layers": {"layers": {"accuracy": 0.95}},
    "04_optimizers": {run: {"accuracy": 0.95} for run in ("sgd", "adam", "rmsprop")},
    "05_losses": {
        "values": {"r2_score": 0.4},
        "classes": {"accuracy": 0.9},
        "rare": {"recall": 0.9, "auroc": 0.98},
        "mutual": {"accuracy": 0.94},
        "triplets": {"closer": 0.9},
    },
    "06_data": {run: {"accuracy": 0.9} for run in ("flowers", "cells", "digits")},
    "08_schedules": {run: {"accuracy": 0.9} for run in ("steps", "milestones", "exponential", "joined", "per_step")},
    "09_evaluation": {"tumours": {"accuracy": 0.93, "auroc": 0.98}, "digits": {"accuracy": 0.95, "f1_score": 0.95}},
}
RUNS = [(program, run) for program, runs in REACHED.items() for run in runs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The course, in a folder of its own."""
    return Path(shutil.copytree(COURSE, tmp_path / "course", ignore=shutil.ignore_patterns("runs")))


# Every program -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_is_without_warnings_and_in_the_one_format(path: Path) -> None:
    unit, told = read(path)
    assert unit is not None
    assert told == []
    text = path.read_text(encoding="utf-8")
    assert format_source(Source(path.name, text), Reporter()) == text


def test_the_course_is_complete() -> None:
    """Nine parts; every run is in the tests, in its program's comments and in the table."""
    table = (COURSE / "README.md").read_text(encoding="utf-8")
    assert [path.stem[:2] for path in PROGRAMS] == [f"{part:02}" for part in range(1, 10)]
    for path in PROGRAMS:
        text = path.read_text(encoding="utf-8")
        declared = re.findall(r"^train (\w+)", text, re.MULTILINE)
        assert declared == [*REACHED.get(path.stem, {"base": {}, "tuned": {}})]
        head = text.partition("\n\n")[0]
        assert all(re.search(rf"\b{name}\b", head) for name in declared)
        assert f"[{path.name}]({path.name})" in table


# Runs ----------------------------------------------------------------------------------------------------------------


def trained(program: str, run: str, folder: Path) -> dict[str, Any]:
    """What the evaluation of a run writes, after the emitted scripts ran: the loss, tracked values and metrics."""
    unit, _ = read(folder / f"{program}.model")
    assert unit is not None
    out = folder / "runs" / run
    write(pipeline.run(unit, name=run), run, out / "emitted", folder / f"{program}.model")
    for script in ("train.py", "evaluate.py"):
        ran = python(out / "emitted" / script, "--out", out, "--device", "cpu")
        assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {"loss": found["loss"], **found["tracked"], **found["metrics"]}


@pytest.mark.parametrize(("program", "run"), RUNS, ids=[f"{program}-{run}" for program, run in RUNS])
def test_a_run_reaches_what_it_promises(program: str, run: str, folder: Path) -> None:
    found = trained(program, run, folder)
    for name, least in REACHED[program][run].items():
        assert found[name] >= least, found
    check = {"plain": attacks_succeed, "frozen": features_are_frozen, "tumours": curves_are_drawn}.get(run)
    if program == "08_schedules":
        rates_are_those_of_pytorch(run, folder)
    elif check is not None:
        check(found, folder)


def attacks_succeed(found: dict[str, Any], folder: Path) -> None:
    assert found["accuracy"] < 0.4
    assert found["loss"] < 0.2  # of images that nobody attacked


def features_are_frozen(_: dict[str, Any], folder: Path) -> None:
    from safetensors.torch import load_file

    steps = sorted((folder / "runs" / "frozen" / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    first, last = (load_file(step / "model.safetensors") for step in (steps[0], steps[-1]))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert len(steps) > 1
    assert changed == {"head.weight", "head.bias"}


def curves_are_drawn(_: dict[str, Any], folder: Path) -> None:
    out = folder / "runs" / "tumours"
    ran = python(out / "emitted" / "evaluate.py", "--out", out, "--predict", out / "told.csv", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    head, *rows = (out / "told.csv").read_text(encoding="utf-8").splitlines()
    assert "malignant" in head
    assert len(rows) == json.loads((out / "metrics.json").read_text(encoding="utf-8"))["rows"]
    assert "ROC" in (out / "report.html").read_text(encoding="utf-8")


def schedules(run: str, optimizer: torch.optim.Optimizer) -> Any:
    """The schedule of part 8 as PyTorch has it."""
    lr = torch.optim.lr_scheduler
    match run:
        case "steps":
            return lr.StepLR(optimizer, 8, 0.5)
        case "milestones":
            return lr.MultiStepLR(optimizer, [15, 22], 0.1)
        case "exponential":
            return lr.ExponentialLR(optimizer, 0.9)
        case "joined":
            parts = [lr.LinearLR(optimizer, 0.2, 1.0, 5), lr.ConstantLR(optimizer, 1.0, 10)]
            return lr.SequentialLR(optimizer, [*parts, lr.ExponentialLR(optimizer, 0.8)], [5, 15])
    parts = [lr.LinearLR(optimizer, total_iters=20), lr.CosineAnnealingLR(optimizer, 100)]
    return lr.SequentialLR(optimizer, parts, [20])


def rates_are_those_of_pytorch(run: str, folder: Path) -> None:
    lines = (folder / "runs" / run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    found = [line["lr"] for line in map(json.loads, lines) if "lr" in line]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = schedules(run, optimizer)
    per_epoch = len(found) // EPOCHS
    wanted = []
    for step in range(1, len(found) + 1):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if run == "per_step" or step % per_epoch == 0:
            schedule.step()
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    assert len(found) == per_epoch * EPOCHS


# Saving: what part 7 says to type ------------------------------------------------------------------------------------

SAVED = """
import torch
from safetensors.torch import load_file, save_file
from checkpoint import load
from model import Net

model = load("best", device="cpu")
torch.save(model, "whole.pt")
whole = torch.load("whole.pt", weights_only=False)
fresh = Net(classes=10)
images = torch.rand(5, 1, 8, 8)
assert torch.equal(whole(images), model(images))
assert not torch.equal(fresh(images), model(images))
fresh.load_state_dict(load_file("../weights.safetensors"))
assert torch.equal(fresh(images), model(images))
"""


def typed(path: Path) -> list[str]:
    """The commands in the comments of a program."""
    lines = re.findall(r"^#     ((?:tdsl|python) .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.partition("  #")[0].strip() for line in lines]


def test_saving_and_loading_as_the_comments_say(folder: Path) -> None:
    commands = typed(folder / "07_saving.model")
    assert len(commands) == 9
    told = []
    for command in commands:
        program, *args = shlex.split(command)
        ran = (tdsl if program == "tdsl" else python)(*args, cwd=folder)
        assert ran.returncode == 0, command + ran.stdout + ran.stderr
        told.append(ran.stdout + ran.stderr)
    assert "going on from" in told[1]
    assert re.search(r"step-\d+.*best", told[3])
    assert "damaged" not in told[4]
    for run in ("base", "tuned"):
        found = json.loads((folder / "runs" / run / "metrics.json").read_text(encoding="utf-8"))
        assert found["metrics"]["accuracy"] >= 0.95
    ran = python("-c", SAVED, cwd=folder / "runs" / "base" / "emitted")
    assert ran.returncode == 0, ran.stderr
    assert (folder / "project" / "model.py").exists()


def test_weights_that_are_not_there_are_told(folder: Path) -> None:
    ran = tdsl("train", "07_saving.model", "tuned", cwd=folder)
    assert ran.returncode == 1
    assert "weights.safetensors" in ran.stderr
    assert "Traceback" not in ran.stderr


# Beside PyTorch ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return modules("01_tensors", tmp_path_factory.mktemp("tensors"))


@pytest.fixture(scope="module")
def autograd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return modules("02_autograd", tmp_path_factory.mktemp("autograd"))


def modules(program: str, folder: Path) -> Any:
    """The emitted classes of a program."""
    unit, _ = read(COURSE / f"{program}.model")
    assert unit is not None
    names = {module.class_name for module in unit.modules}
    write(pipeline.run(unit, name=next(iter(unit.runs))), next(iter(unit.runs)), folder, COURSE / f"{program}.model")
    with importable(folder):
        import model

        assert names <= set(vars(model))
        return model


def same(found: tuple[torch.Tensor, ...], wanted: list[torch.Tensor]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_creation(tensors: Any) -> None:
    table = torch.arange(1.0, 10).reshape(3, 3)
    wanted = [torch.tril(table) + torch.eye(3), X, torch.arange(6), torch.linspace(0, 1, 5)]
    wanted += [torch.full((5, 2), 7, dtype=torch.int32), torch.ones(5, 6)]
    same(tensors.Creation().eval()(X), wanted)
    noise = (tensors.Creation()(X)[1] - X) / 0.1
    assert 0.3 < noise.std() < 2


def test_indexing(tensors: Any) -> None:
    rows = torch.tensor([4, 0, 0])
    kept = torch.zeros_like(X)
    kept[X > 0] = X[X > 0]
    same(tensors.Indexing()(X, rows), [X[:, 0], X[..., -2:], X[:, ::2], X[:, None], X[rows], kept])


def test_shapes(tensors: Any) -> None:
    x = torch.randn(2, 3, 8)
    wanted = [x.reshape(-1, 8), x.permute(2, 1, 0), x.view(2, 3, 2, 4).transpose(1, 2), torch.cat([x, x], -1)]
    same(tensors.Shapes()(x), [*wanted, torch.stack([x, x.flip(1)], 1)])


def test_arithmetic(tensors: Any) -> None:
    w = torch.randn(6)
    same(tensors.Arithmetic()(X, Y, w), [(2 * X - Y / 3) ** 2 * w, X @ Y.T, torch.cdist(X, Y)])


def test_comparison(tensors: Any) -> None:
    y = torch.where(Y > 0, X, Y)
    x = X.index_put((torch.tensor([2]), torch.tensor([3])), torch.tensor(float("inf")))
    wanted = [(x > -1) & ~(x >= 1), x.isfinite().all(-1), torch.maximum(x, y).clamp(min=0), (x == y).sum()]
    same(tensors.Comparison()(x, y), wanted)


def test_aggregation(tensors: Any) -> None:
    best, at = X.max(-1)
    top = X.topk(2, -1).values
    same(tensors.Aggregation()(X), [X.mean(), best, X.std(-1, keepdim=True), at, X.cumsum(-1), X.amin(0), top])


def test_a_model_of_tensors(tensors: Any) -> None:
    model = tensors.Nearest(classes=3)
    x = torch.randn(7, 4)
    found = model(x)
    typical, scale = (p.detach().clone().requires_grad_() for p in (model.typical, model.scale))
    wanted = torch.stack([-(((x - each) * scale) ** 2).sum(1) for each in typical], 1)
    torch.testing.assert_close(found, wanted)
    for each in (found, wanted):
        nn.functional.cross_entropy(each, torch.arange(7) % 3).backward()
    torch.testing.assert_close(model.typical.grad, typical.grad)
    torch.testing.assert_close(model.scale.grad, scale.grad)


def test_derivatives(autograd: Any) -> None:
    x = torch.linspace(-2, 2, 9)
    first = torch.cos(x) * x**2 + torch.sin(x) * 2 * x
    second = -torch.sin(x) * x**2 + 4 * x * torch.cos(x) + 2 * torch.sin(x)
    same(autograd.Derivatives()(x), [first, second, x])


def test_what_is_constant(autograd: Any) -> None:
    model = autograd.Constant()
    x = torch.randn(3, 4, requires_grad=True)
    weights = torch.softmax(model.scale(x), -1).detach()
    found = model(x)
    torch.testing.assert_close(found, x * weights)
    found.sum().backward()
    torch.testing.assert_close(x.grad, weights)
    assert model.scale.weight.grad is None


def test_an_attack(autograd: Any, tmp_path: Path) -> None:
    """The images of the emitted loss, by autograd alone."""
    text = (COURSE / "02_autograd.model").read_text(encoding="utf-8")
    attack = "\n\nmodule Attack() {\n    model = Classifier()\n    forward(image: float[B, 1, 8, 8], label: int[B])"
    attack += " -> float[B, 1, 8, 8] {\n        return attacked(image, cross_entropy(model(image), label))\n    }\n}\n"
    found = executed(text.partition("\ndata ")[0] + attack, tmp_path).Attack()
    image, label = torch.rand(4, 1, 8, 8).requires_grad_(), torch.arange(4)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(found.model(image), label), image)
    wanted = (image + 0.15 * gradient.sign()).clamp(0, 1).detach()
    result = found(image.detach(), label)
    torch.testing.assert_close(result, wanted)
    assert not result.requires_grad


# Data ----------------------------------------------------------------------------------------------------------------


def test_data_are_those_of_scikit_learn() -> None:
    from pyarrow import parquet
    from sklearn import datasets

    for name in ("iris", "wine", "diabetes"):
        bunch = getattr(datasets, f"load_{name}")(**{"scaled": False} if name == "diabetes" else {})
        rows = np.loadtxt(COURSE / "data" / f"{name}.csv", delimiter=",", skiprows=1)
        np.testing.assert_array_equal(rows, np.column_stack([bunch.data, bunch.target]))
    tumours = parquet.read_table(COURSE / "data" / "tumours.parquet")
    bunch = datasets.load_breast_cancer()
    assert [name.replace("_", " ") for name in tumours.column_names] == [*bunch.feature_names, "malignant"]
    rows = np.column_stack([column.to_numpy() for column in tumours.columns])
    np.testing.assert_allclose(rows, np.column_stack([bunch.data, bunch.target == 0]), rtol=1e-6)
    digits = np.load(COURSE / "data" / "digits.npz")
    bunch = datasets.load_digits()
    np.testing.assert_array_equal(digits["image"][:, 0], bunch.images)
    np.testing.assert_array_equal(digits["label"], bunch.target)


def test_triplets_are_of_digits_of_one_kind_and_another() -> None:
    digits, triplets = (np.load(COURSE / "data" / f"{name}.npz") for name in ("digits", "triplets"))
    kinds = {image.tobytes(): label for image, label in zip(digits["image"], digits["label"])}
    anchor, positive, negative = (
        np.array([kinds[row.tobytes()] for row in triplets[name]]) for name in ("anchor", "positive", "negative")
    )
    assert (anchor == positive).all()
    assert (anchor != negative).all()


def test_the_course_is_small() -> None:
    assert sum(path.stat().st_size for path in (COURSE / "data").iterdir()) < 1 << 20
