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
from safetensors.torch import load_file

from tdsl.compiler.emit.train import emit_train, unsupported
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


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(case: str, tmp_path: Path) -> None:
    project = project_of(CASES[case], tmp_path / "project")
    for count in (1, 2):
        finish(project, tmp_path / str(count), count=count)
    one, two = (logged(tmp_path / str(count)) for count in (1, 2))
    assert len(one) == 100
    # Each step adds rounding to the weights that the next begins with.
    assert_close(two[:10], one[:10], 1e-5)
    assert_close(two, one, 2e-4)


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


def test_where_one_rank_dies_the_others_end(tmp_path: Path) -> None:
    project = project_of(program(), tmp_path / "project")
    run = Ranks(project, tmp_path / "run", "--steps", "100000")
    run.wait_for(2)
    run.signal(signal.SIGKILL, 1)
    assert run.wait() == [1, -signal.SIGKILL]
    assert run.text.count("error: another process of the run is gone") == 1
    assert "Traceback" not in run.text


def test_a_loss_that_is_no_number_on_one_rank_stops_all(tmp_path: Path) -> None:
    """The rows that overflow are those of rank 1 alone; it is told once, and the checkpoint before is intact."""
    overflow = "mse_loss(scores[:, 0] * where(batch.y > 8, 1e30, 1.0), batch.y * 1.0)"
    project = project_of(program(loss=overflow).replace("batch_size = 69", "batch_size = 4"), tmp_path / "project")
    run = Ranks(project, tmp_path / "run", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=100")
    assert run.wait() == [1, 1], run.text
    assert run.text.count("error: the loss is inf at step") == 1
    assert "Traceback" not in run.text
    for each in checkpoint.listed(tmp_path / "run" / "checkpoints"):
        each.verify()
        assert all(value.isfinite().all() for value in load_file(each.weights()).values())


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
    ],
)
def test_what_would_depend_on_the_number_of_processes_is_refused(text: str, code: str, where: str) -> None:
    unit = built(text, EXAMPLES / "program.model")
    (found,) = unsupported(unit, unit.runs["digits"])
    assert found.code == code
    assert found.span is not None
    assert where in found.span.text


def test_the_loop_stays_short() -> None:
    unit = built(program(settings="accumulate = 3\n    ema = EMA()"), EXAMPLES / "program.model")
    assert emit_train(unit, unit.runs["digits"]).count("\n") <= 250
