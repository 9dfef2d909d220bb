"""Training runs in processes of their own, that are stopped at any moment and looked at afterwards."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.runtime import files
from tests.helpers import ROOT, built

EXAMPLES = ROOT / "examples"
STEPS = 60
TIMES = ("rows_per_second", "seconds")
STARTED = "the script begins"
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
FORKS.set_forkserver_preload(["torch._dynamo", "torchmetrics", "tests.training_runs"])


def project_in(folder: Path) -> Path:
    """The emitted program, in this folder."""
    unit = pipeline.run(built(PROGRAM, EXAMPLES / "program.model"))
    write(emit(unit, Options("digits", root=str(EXAMPLES))), folder)
    return folder


@dataclass(frozen=True)
class Trouble:
    """What befalls a run: `kill -9` at its so manieth sync, one of which ends each part of a write; no file larger."""

    syncs: int | None = None
    most_bytes: int | None = None


def script(project: Path, out: Path, told: Path, options: Sequence[str], trouble: Trouble) -> None:
    """In a child: run `train.py`."""
    with told.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    _kill_at(trouble.syncs)
    sys.argv = ["train.py", "--out", str(out), "--device", "cpu", *options]
    sys.path.insert(0, str(project))
    print(STARTED, file=sys.stderr, flush=True)
    if trouble.most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.most_bytes, trouble.most_bytes))
    runpy.run_path(str(project / "train.py"), run_name="__main__")


def _kill_at(syncs: int | None) -> None:
    sync, left = files.sync, itertools.count(0 if syncs is None else -syncs + 1)

    def killing(path: Path) -> None:
        sync(path)
        if next(left) == 0 and syncs is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    files.sync = killing


class Run:
    """A training run in a process of its own."""

    def __init__(self, project: Path, out: Path, *options: str, **trouble: int) -> None:
        self.out, self.told = out, out.with_name(f"{out.name}.told")
        self.told.unlink(missing_ok=True)
        self.process = FORKS.Process(target=script, args=(project, out, self.told, options, Trouble(**trouble)))
        self.process.start()

    def wait(self) -> int | None:
        """The exit status: the negative number of the signal that killed it."""
        self.process.join(120)
        return self.process.exitcode

    def wait_for_start(self) -> None:
        """Until the script begins."""
        while self.process.is_alive() and not (self.told.exists() and STARTED in self.text):
            time.sleep(0.002)

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
    """The lines of the log without the times, which are not the same."""
    path = out / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in found]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of every checkpoint that is left at the end."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("checkpoints/*/*"))}


def assert_same_run(out: Path, whole: Path) -> None:
    mine, theirs = contents(out), contents(whole)
    assert list(mine) == list(theirs), sorted(set(mine) ^ set(theirs))
    assert any(name.endswith(f"step-{STEPS}/ema.safetensors") for name in mine)
    different = [name for name in mine if mine[name] != theirs[name]]
    assert not different
    assert logged(out) == logged(whole)
    assert not list(out.glob("checkpoints/.*"))
