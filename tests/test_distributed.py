"""Runs of two processes: the same losses, rows and results as one process has, and decisions that both take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tdsl.compiler.emit.train import emit_train
from tdsl.compiler.trainable import unsupported
from tdsl.runtime import checkpoint
from tests.helpers import ROOT, built
from tests.rank_runs import Ranks, finish, project_of
from tests.training_runs import EXAMPLES, logged

LABELS = "cross_entropy(scores, where(batch.x.sum(-1) > 17, batch.y, -100))"
NET = """
module Net() {
    up = Linear(64, 32)
    head = Linear(32, 10)
    forward(x: float[B, 64]) -> float[B, 10] { return head(gelu(up(x))) }
}
"""
# What one process computes must not depend on what is only drawn: there is no dropout.
NORMED = NET.replace("head = ", "norm = BatchNorm1d(32)\n    head = ").replace("gelu(up(x))", "gelu(norm(up(x)))")
UNUSED = NET.replace("head = ", "idle = Linear(32, 32)\n    head = ")


def program(net: str = NET, loss: str = LABELS, settings: str = "", strategy: str = "ddp()") -> str:
    """A run whose last batch has one row, of 898 in batches of 69."""
    return f"""{net}
data Digits {{
    source = csv("data/digits.csv")
    split  = sequential(train=0.4995, val=0.25, test=0.2505)
    field x: float[64] = columns("p*") / 16
    field y: int[]     = column("label")
}}
train digits {{
    model = Net()
    data  = Digits
    optimizer = SGD(lr=0.1, momentum=0.9)
    clip_grad_norm = 1.0
    steps = 100
    batch_size = 69
    {settings}
    distributed = {strategy}
    checkpoint {{ every = 50, best = "val/accuracy" }}
    validate {{ every = 30 }}
    logging {{ every = 1 }}
    loss(batch) {{
        scores = model(batch.x)
        track half = ({loss}) / 2
        return {loss}
    }}
}}
evaluate digits {{
    compare(batch) {{ return model(batch.x), batch.y }}
    metrics = [Accuracy(), AUROC(), ConfusionMatrix(), CalibrationError()]
}}
"""


def assert_close(mine: Any, theirs: Any, tolerance: float) -> None:
    """Logs or results that differ by rounding alone."""
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert_close(value, theirs[key], tolerance)
    elif isinstance(mine, list):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert_close(a, b, tolerance)
    else:
        assert mine == (pytest.approx(theirs, rel=tolerance, abs=tolerance) if isinstance(mine, float) else theirs)


CASES = {
    "labels that count, and ranks without any": program(),
    "accumulated parts": program(settings="accumulate = 3"),
    "a mean over rows, with averaged weights": program(
        loss="mse_loss(scores[:, 0], batch.y / 9)", settings="ema = EMA()"
    ),
    "parameters without gradients": program(UNUSED),
    "batch norm": program(NORMED, "cross_entropy(scores, batch.y)")
    .replace("= 69", "= 64")
    .replace("lr=0.1", "lr=0.01"),
}


# Cases in which dividing the parameters takes a way of its own.
DIVIDED = ("labels that count, and ranks without any", "parameters without gradients", "batch norm")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(case: str, tmp_path: Path) -> None:
    project = project_of(CASES[case], tmp_path / "project")
    finish(project, tmp_path / "one", count=1)
    finish(project, tmp_path / "ddp", count=2)
    if case in DIVIDED:
        divided = project_of(CASES[case].replace("ddp()", "fsdp()"), tmp_path / "divided")
        finish(divided, tmp_path / "fsdp", count=2)
    one = logged(tmp_path / "one")
    assert len(one) == 100
    for name in ("ddp", "fsdp") if case in DIVIDED else ("ddp",):
        two = logged(tmp_path / name)
        # Each step adds rounding to the weights that the next begins with.
        assert_close(two[:10], one[:10], 1e-5)
        assert_close(two, one, 2e-4)


# Lists of modules, tied weights, a parameter that is a number, rows that do not divide, frozen parts and a teacher.
DEEP = """
module RMS(dim: int) {
    param weight: [dim] = ones()
    forward(x: [..., dim]) -> [..., dim] { return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 1e-6) * weight }
}
module Mix(dim: int) {
    q = Linear(dim, dim)
    k = Linear(dim, dim)
    v = Linear(dim, dim)
    forward(x: [B, T, dim]) -> [B, T, dim] { return softmax(q(x) @ k(x).transpose(-1, -2), -1) @ v(x) }
}
module Block(dim: int) {
    norm = RMS(dim)
    mix  = Mix(dim)
    up   = Linear(dim, 2 * dim)
    down = Linear(2 * dim, dim)
    param gain: [] = ones()
    forward(x: [B, T, dim]) -> [B, T, dim] {
        h = x + mix(norm(x)) * gain
        return h + down(gelu(up(h)))
    }
}
module Net() {
    embed  = Embedding(17, 24)
    blocks = [Block(24) for i in range(2)]
    last   = Block(24)
    norm   = RMS(24)
    head   = Linear(24, 17, bias=false, weight=embed.weight)
    forward(x: float[B, 64]) -> float[B, 10] {
        h = embed((x * 16).long()) |> blocks |> last
        return head(norm(h)).mean(1)[:, 0:10]
    }
}
"""
LEARNS = 'ema = EMA(decay=0.9)\n    freeze = ["blocks.0.mix.*", "teacher.*"]\n    teacher = Net()\n    accumulate = 3'


def deep(strategy: str) -> str:
    """A run of 8 steps, whose last batch of an epoch would come later."""
    loss = "cross_entropy(scores + softmax(teacher(batch.x), -1), batch.y)"
    text = program(DEEP, loss, LEARNS, strategy).replace("SGD(lr=0.1, momentum=0.9)", "AdamW(lr=3e-3)")
    return (
        text.replace("steps = 100", "steps = 8").replace("every = 30", "every = 4").replace("every = 50", "every = 4")
    )


def test_divided_parameters_are_those_of_any_number_of_processes(tmp_path: Path) -> None:
    """A run goes on in another number of processes, divided or not, and its evaluation is one process's."""
    text = deep("fsdp()").replace("= 69", "= 66")
    divided = project_of(text, tmp_path / "divided")
    copied = project_of(text.replace("fsdp()", "ddp()"), tmp_path / "copied")
    assert 'blocks=["blocks.*", "last", "teacher.blocks.*", "teacher.last"]' in (divided / "train.py").read_text()
    finish(divided, tmp_path / "one", count=1)
    run = tmp_path / "run"
    for project, steps, count in ((divided, 2, 2), (divided, 3, 1), (copied, 4, 2), (divided, 8, 3)):
        finish(project, run, "--steps", str(steps), count=count)
    assert_close(logged(run)[-1], logged(tmp_path / "one")[-1], 2e-4)
    for name in ("model", "ema", "teacher", "optimizer"):
        mine, theirs = (checkpoint.at(tmp_path / each / "checkpoints/step-8").tensors(name) for each in ("run", "one"))
        assert mine.keys() == theirs.keys()
        assert_close({k: v.tolist() for k, v in mine.items()}, {k: theirs[k].tolist() for k in mine}, 2e-3)
    results = []
    for count in (1, 2):
        finish(divided, run, count=count, name="evaluate.py")
        results.append(json.loads((run / "metrics.json").read_text())["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    last = checkpoint.at(run / "checkpoints/step-8")
    with (last.path / "model-2-of-3.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(checkpoint.Damaged, match="model-2-of-3"):
        last.verify()


def test_torchrun_starts_a_run_and_its_evaluation(tmp_path: Path) -> None:
    """The very command; every row of the split counts once, in the order that one process has."""
    project = project_of(program(settings="accumulate = 3"), tmp_path / "project")
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    for name, options in (("train.py", ["--steps", "5"]), ("evaluate.py", [])):
        command = [*run, str(project / name), "--out", str(tmp_path / "run"), "--device", "cpu", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert done.stdout.count("report:") == 1
    finish(project, tmp_path / "run", count=1, name="evaluate.py")
    one = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert one["rows"] == two["rows"] > 400
    different = ("evaluated", "seconds")
    assert_close(*({k: v for k, v in each.items() if k not in different} for each in (two, one)), 1e-6)


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(tmp_path: Path) -> None:
    project = project_of(program(settings="accumulate = 3"), tmp_path / "project")
    run = Ranks(project, tmp_path / "run", "--steps", "100000", "--set", "checkpoint.every=100000")
    run.wait_for(2)
    run.signal(signal.SIGTERM, 1)
    assert run.wait() == [128 + signal.SIGTERM] * 2, run.text
    found = checkpoint.latest_good(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == logged(tmp_path / "run")[-1]["step"]


@pytest.mark.parametrize("strategy", ["ddp()", "fsdp()"])
def test_where_one_rank_dies_the_others_end(strategy: str, tmp_path: Path) -> None:
    project = project_of(program(strategy=strategy), tmp_path / "project")
    run = Ranks(project, tmp_path / "run", "--steps", "100000")
    run.wait_for(2)
    run.signal(signal.SIGKILL, 1)
    assert run.wait() == [1, -signal.SIGKILL]
    assert run.text.count("error: another process of the run is gone") == 1
    assert "Traceback" not in run.text


@pytest.mark.parametrize("strategy", ["ddp()", "fsdp()"])
def test_a_loss_that_is_no_number_on_one_rank_stops_all(strategy: str, tmp_path: Path) -> None:
    """The rows that overflow are those of rank 1 alone; it is told once, and the checkpoint before is intact."""
    overflow = "mse_loss(scores[:, 0] * where(batch.y > 8, 1e30, 1.0), batch.y * 1.0)"
    text = program(loss=overflow, strategy=strategy).replace("batch_size = 69", "batch_size = 4")
    project = project_of(text, tmp_path / "project")
    run = Ranks(project, tmp_path / "run", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=100")
    assert run.wait() == [1, 1], run.text
    assert run.text.count("error: the loss is inf at step") == 1
    assert "Traceback" not in run.text
    for each in checkpoint.listed(tmp_path / "run" / "checkpoints"):
        each.verify()
        assert all(value.isfinite().all() for value in each.weights().values())


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    project = project_of(program(), tmp_path / "project")
    finish(project, tmp_path / "one", count=1)
    for steps, count in (("30", 2), ("60", 1), ("100", 3)):
        finish(project, tmp_path / "run", "--steps", steps, count=count)
    assert_close(*(logged(tmp_path / each)[-1] for each in ("run", "one")), 1e-3)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (program(strategy="none"), (), "`digits` runs in one process, and was started in 2"),
        (program(), ("--set", "batch_sise=3"), "did you mean `batch_size`?"),
        (program(NORMED), (), "the last batch of an epoch has 1 rows, too few for batch norm in 2 processes"),
    ],
)
def test_what_is_wrong_is_told_once(text: str, options: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    run = Ranks(project_of(text, tmp_path / "project"), tmp_path / "run", *options)
    assert run.wait() in ([1, 1], [2, 2])
    assert run.text.count(expected) == 1, run.text
    assert "Traceback" not in run.text


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        (program(loss="scores.sum()"), "E332", "scores.sum()"),
        (program(NET.replace("gelu(up(x))", "gelu(up(x)) - up(x).mean(0)")), "E332", "up(x).mean(0)"),
        (
            program(strategy="fsdp()").replace("SGD(lr=0.1, momentum=0.9)", 'Muon()\n    freeze = ["*.bias"]'),
            "E331",
            "Muon()",
        ),
        (program(loss="grad(scores.square().sum(), batch.x).square().mean()", strategy="fsdp()"), "E331", "grad("),
    ],
)
def test_what_would_depend_on_the_number_of_processes_is_refused(text: str, code: str, where: str) -> None:
    unit = built(text, EXAMPLES / "program.model")
    (found,) = (each for each in unsupported(unit, unit.runs["digits"]) if each.code == code)
    assert found.span is not None
    assert where in found.span.text


def test_the_loop_stays_short() -> None:
    unit = built(program(settings="accumulate = 3\n    ema = EMA()"), EXAMPLES / "program.model")
    assert emit_train(unit, unit.runs["digits"]).count("\n") <= 250
