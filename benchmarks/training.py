"""A training step on a processor: the emitted `train.py` beside a loop written by hand, from the same loader.

    python -m benchmarks.training [NAME ...] [--steps N] [--threads N]

Both are in one process, and take their steps in turn. What is timed of each is from asking for a batch to having taken
the step, with all that the emitted script does beside: means, the gradient's norm, the log, the terminal. Validation
and checkpoints are left out, which a loop by hand has too. Processor time does not count what other processes take.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import tdsl
from benchmarks.programs import PROGRAMS, loaded
from tdsl.runtime import run
from tdsl.runtime.loader import Batch, Batches
from tests.cnn_by_hand import CNN
from tests.digits_by_hand import Digit

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 20
NEVER = 10**9
MILLISECONDS = 1e3


@dataclass(frozen=True)
class Case:
    """A program, its run, and the same by hand: the network, the optimizer, and the names of the fields."""

    program: Path
    network: Callable[[], nn.Module]
    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer]
    fields: tuple[str, str]
    steps: int


CASES = {
    "digits": Case(
        ROOT / "examples" / "digits.model",
        Digit,
        lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05),
        ("pixels", "label"),
        steps=1000,
    ),
    "cnn": Case(
        PROGRAMS / "cnn.model",
        CNN,
        lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
        ("image", "label"),
        steps=100,
    ),
}


@dataclass
class Clocked:
    """Seconds of each step: by the clock, and of the processor."""

    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        wall, busy = self._began
        self.wall.append(time.perf_counter() - wall)
        self.busy.append(time.process_time() - busy)


class ByHand:
    """The loop as one writes it, a step at a time; the loss is looked at as often as the script logs it."""

    def __init__(self, case: Case, batches: Batches, every: int) -> None:
        self.case, self.batches, self.every = case, batches.steps(0, NEVER), every
        self.model = case.network()
        self.optimizer = case.optimizer(self.model.parameters())
        self.total, self.steps = torch.zeros(()), 0

    def loss(self, batch: Batch) -> Tensor:
        image, label = self.case.fields
        return F.cross_entropy(self.model(getattr(batch, image)), getattr(batch, label), label_smoothing=0.05)

    def step(self) -> None:
        loss = self.loss(next(self.batches))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.total += loss.detach()
        self.steps += 1
        if self.steps % self.every == 0:
            self.total.div_(self.every).item()
            self.total.zero_()


def timed(case: Case, steps: int, folder: Path) -> tuple[Clocked, Clocked]:
    """The steps of the script, and those by hand."""
    tdsl.compile(case.program, folder)
    modules = loaded(folder)
    train, data = modules["train"], modules["data"]
    size, every = train.SETTINGS["batch_size"], train.SETTINGS["logging.every"]
    by_hand = ByHand(case, data.batches("train", size, seed=1), every)
    ours, theirs = Clocked(), Clocked()

    def stream(batches: Batches, start: int, end: int) -> Iterator[Batch]:
        given = batches.steps(start, end)
        for _ in range(steps + WARM_UP):
            ours.start()
            yield next(given)
            ours.stop()
            theirs.start()
            by_hand.step()
            theirs.stop()

    options = [f"--out={folder / 'run'}", "--device=cpu", f"--epochs={steps + WARM_UP}"]
    options += [f"--set={section}.every={NEVER}" for section in ("validate", "checkpoint")]
    told = io.StringIO()
    with patch.object(run, "stream", stream), contextlib.redirect_stderr(told):
        status = run.main(
            "bench", train.SETTINGS, train.train, out=folder, program=folder / "program.model", argv=options
        )
    if status:
        raise RuntimeError(told.getvalue())
    return ours, theirs


def row(name: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Medians in milliseconds, and their ratio; the ratio of the fastest tenths beside it."""
    mine, other = (statistics.median(each[WARM_UP:]) for each in (ours, theirs))
    fast = [statistics.quantiles(each[WARM_UP:], n=10)[0] for each in (ours, theirs)]
    return (
        f"{name:<24} {MILLISECONDS * mine:>9.3f} {MILLISECONDS * other:>9.3f} {mine / other:>7.3f}"
        f" {fast[0] / fast[1]:>10.3f}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Time training steps.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(CASES)} (default: all)")
    parser.add_argument("--steps", type=int, help="how many steps of each (default: those of the case)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
          f"{given.threads} thread{'s' * (given.threads > 1)}")  # fmt: skip
    print(f"{'ms a step, median':<24} {'emitted':>9} {'by hand':>9} {'ratio':>7} {'of fastest':>10}")
    for name in given.names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = timed(CASES[name], given.steps or CASES[name].steps, Path(folder))
        print(row(f"{name}, by the clock", ours.wall, theirs.wall))
        print(row(f"{name}, processor time", ours.busy, theirs.busy), flush=True)


if __name__ == "__main__":
    main()
