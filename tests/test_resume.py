"""A run that is killed anywhere and started again is, bit for bit, the run that was not stopped."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.runtime import files
from tests.helpers import ROOT, built

EXAMPLES = ROOT / "examples"
STEPS = 60
# A little of everything that a checkpoint has to hold.
PROGRAM = f"""
module MLP(hidden: int = 32, classes: int = 10) {{
    up   = Linear(64, hidden)
    down = Linear(hidden, classes)

    forward(x: float[B, 64]) -> float[B, classes] {{
        return down(dropout(gelu(up(x)), 0.1))
    }}
}}

data Digits {{
    source = csv("data/digits.csv")
    split  = random(train=0.7, val=0.15, test=0.15, seed=0)
    field pixels: float[64] = columns("p*") / 16
    field label:  int[]     = column("label")
}}

train digits {{
    model = MLP(classes=Digits.num_classes)
    data  = Digits
    loss(batch) {{ return cross_entropy(model(batch.pixels), batch.label) }}
    optimizer  = AdamW(lr=3e-3, weight_decay=0.01)
    group "*.bias" {{ weight_decay = 0 }}
    scheduler  = LinearLR(total_iters=10) |> CosineAnnealingLR(T_max=50)
    ema        = EMA(decay=0.9)
    steps      = {STEPS}
    batch_size = 64
    accumulate = 2
    clip_grad_norm = 1.0
    checkpoint {{ every = 10, keep = 2, best = "val/accuracy" }}
    early_stopping {{ monitor = "val/loss", patience = 50 }}
    validate {{ every = 7 }}
    logging {{ every = 4 }}
}}

evaluate digits {{
    compare(batch) {{ return model(batch.pixels), batch.label }}
    metrics = [Accuracy()]
}}
"""
# Children are forked from a server that has imported all this once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "torchmetrics", "tests.test_resume"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emitted program."""
    unit = pipeline.run(built(PROGRAM, EXAMPLES / "program.model"))
    folder = tmp_path_factory.mktemp("project")
    write(emit(unit, Options("digits", root=str(EXAMPLES))), folder)
    return folder


@pytest.fixture(scope="module")
def whole(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    finish(project, out)
    return out


def script(project: Path, out: Path, told: Path, options: Sequence[str], syncs: int | None) -> None:
    """In a child: run `train.py`, and be killed at a sync, where `syncs` tells which. One ends each part of a write."""
    with told.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sync, left = files.sync, itertools.count(0 if syncs is None else -syncs + 1)

    def killing(path: Path) -> None:
        sync(path)
        if next(left) == 0 and syncs is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    files.sync = killing
    sys.argv = ["train.py", "--out", str(out), "--device", "cpu", *options]
    sys.path.insert(0, str(project))
    runpy.run_path(str(project / "train.py"), run_name="__main__")


class Run:
    """A training run in a process of its own."""

    def __init__(self, project: Path, out: Path, *options: str, syncs: int | None = None) -> None:
        self.out, self.told = out, out.with_name(f"{out.name}.told")
        self.process = FORKS.Process(target=script, args=(project, out, self.told, options, syncs))
        self.process.start()

    def wait(self) -> int | None:
        """The exit status: the negative number of the signal that killed it."""
        self.process.join(120)
        return self.process.exitcode

    def wait_for(self, step: int) -> None:
        """Until the log has come to a step, or the run has ended."""
        while self.process.is_alive() and (not logged(self.out) or logged(self.out)[-1]["step"] < step):
            time.sleep(0.002)

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def text(self) -> str:
        """What it said."""
        return self.told.read_text(encoding="utf-8")


def finish(project: Path, out: Path, *options: str) -> str:
    """Train to the end; what was said."""
    run = Run(project, out, *options)
    assert run.wait() == 0, run.text
    return run.text


def logged(out: Path) -> list[dict[str, Any]]:
    """The lines of the log without the speed, the one thing that is not the same each time."""
    path = out / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{key: value for key, value in line.items() if key != "rows_per_second"} for line in found]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of every checkpoint that is left at the end."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("checkpoints/*/*"))}


def assert_same_run(out: Path, whole: Path) -> None:
    mine, theirs = contents(out), contents(whole)
    assert list(mine) == list(theirs)
    assert any(name.endswith(f"step-{STEPS}/ema.safetensors") for name in mine)
    different = [name for name in mine if mine[name] != theirs[name]]
    assert not different
    assert logged(out) == logged(whole)
    assert not list(out.glob("checkpoints/.*"))


def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not(
    project: Path, whole: Path, tmp_path: Path
) -> None:
    for reached in (12, 33, 48):
        run = Run(project, tmp_path)
        run.wait_for(reached)
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    finish(project, tmp_path)
    assert_same_run(tmp_path, whole)


def test_workers_may_come_and_go(project: Path, whole: Path, tmp_path: Path) -> None:
    for reached, workers in ((12, 2), (33, 0)):
        run = Run(project, tmp_path, "--set", f"data.workers={workers}")
        run.wait_for(reached)
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    finish(project, tmp_path, "--set", "data.workers=1", "--set", "data.prefetch=3")
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("syncs", [3, 8, 15, 20, 41, 44])
def test_a_run_that_is_killed_while_it_writes(syncs: int, project: Path, whole: Path, tmp_path: Path) -> None:
    assert Run(project, tmp_path, syncs=syncs).wait() == -signal.SIGKILL
    finish(project, tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_writes_a_checkpoint_first(
    number: signal.Signals, project: Path, whole: Path, tmp_path: Path
) -> None:
    run = Run(project, tmp_path)
    run.wait_for(1)
    run.signal(number)
    assert run.wait() == 128 + number
    steps = [int(path.name.removeprefix("step-")) for path in tmp_path.glob("checkpoints/step-*")]
    assert max(steps) >= logged(tmp_path)[-1]["step"]
    told = finish(project, tmp_path)
    assert f"going on from {tmp_path}/checkpoints/step-{max(steps)}" in told
    mine, theirs = contents(tmp_path), contents(whole)
    name = f"checkpoints/step-{STEPS}/model.safetensors"
    assert mine[name] == theirs[name]
    assert logged(tmp_path) == logged(whole)


def test_a_run_goes_on_from_an_earlier_checkpoint_as_it_did(project: Path, whole: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--set", "checkpoint.keep=10")
    finish(project, tmp_path, "--resume", str(tmp_path / "checkpoints" / "step-30"))
    name = f"checkpoints/step-{STEPS}/model.safetensors"
    assert contents(tmp_path)[name] == contents(whole)[name]
    assert logged(tmp_path) == logged(whole)


def test_a_longer_run_goes_on_where_the_shorter_ended(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--steps", "20")
    assert "the run has ended" in finish(project, tmp_path, "--steps", "20")
    assert "step-20" in finish(project, tmp_path, "--steps", "40")
    assert (tmp_path / "checkpoints" / "step-40").is_dir()


def test_a_run_that_starts_anew_sets_the_earlier_one_aside(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--steps", "20")
    finish(project, tmp_path, "--steps", "10", "--resume", "none")
    assert (tmp_path / "checkpoints" / "step-10").is_dir()
    assert not (tmp_path / "checkpoints" / "step-20").exists()
    assert (tmp_path / "previous" / "checkpoints" / "step-20").is_dir()
    assert logged(tmp_path)[-1]["step"] == 10


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (("--set", "batch_sise=3"), 2, "did you mean `batch_size`?"),
        (("--set", "batch_size=0"), 2, "`batch_size` takes an integer of at least 1, not `0`"),
        (("--set", "batch_size=ten"), 2, "`batch_size` takes an integer"),
        (("--set", "batch_size=7"), 2, "does not divide into 2 equal parts"),
        (("--set", "optimizer.lr=-1"), 2, "`optimizer.lr` takes a number of at least 0"),
        (("--set", "optimizer.lr"), 2, "lacks a value"),
        (("--epochs", "1", "--steps", "1"), 2, "not both"),
        (("--device", "tpu"), 2, "tpu"),
        (("--resume", "nowhere/step-3"), 1, "`nowhere/step-3` is no checkpoint"),
        (("--set", "optimizer.lr=1e30", "--steps", "9"), 1, "is nan at step"),
    ],
)
def test_wrong_options_are_told_without_a_traceback(
    options: tuple[str, ...], status: int, expected: str, project: Path, tmp_path: Path
) -> None:
    run = Run(project, tmp_path, *options)
    assert run.wait() == status
    assert expected in run.text
    assert "Traceback" not in run.text
    assert not list(tmp_path.glob("checkpoints/step-*"))


def test_other_settings_are_no_way_to_go_on(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--steps", "10")
    run = Run(project, tmp_path, "--set", "optimizer.lr=1e-3")
    assert run.wait() == 1
    assert "`optimizer.lr` was 0.003, is 0.001" in run.text
