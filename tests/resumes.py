"""Runs that are stopped at random and go on: `python -m tests.resumes 50 [SEED]`.

Each is in one process or, by DDP or FSDP, in two, with and without workers that read ahead. It is stopped at a random
step, by a signal that asks or by `kill -9` to all or to one of its processes, as often as it takes, and goes on. At its
end everything is, bit for bit, what the run that nothing stopped has: parameters, moments, averaged weights, schedule,
what is logged, and the random streams of every process. The order of rows is a function of seed and epoch, and so the same.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.rank_runs import Ranks, finish, project_of
from tests.training_runs import PROGRAM, STEPS, contents, logged


@dataclass(frozen=True)
class Way:
    """How a run is shared among processes, and how many workers each has read ahead."""

    strategy: str
    count: int
    workers: int = 0

    @property
    def name(self) -> str:
        shared = f"{self.strategy} of {self.count}" if self.count > 1 else "one process"
        return f"{shared}, {self.workers} workers" if self.workers else shared


WAYS = tuple(Way(*each, workers) for each in (("none", 1), ("ddp", 2), ("fsdp", 2)) for workers in (0, 2))
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


class Resumes:
    """Runs of one way in a folder, compared with the one that nothing stopped, which has no workers."""

    def __init__(self, way: Way, folder: Path) -> None:
        self.count, self.folder = way.count, folder
        self.options = ("--set", f"data.workers={way.workers}")
        strategy = "none" if way.count == 1 else f"{way.strategy}()"
        text = PROGRAM.replace("    steps      =", f"    distributed = {strategy}\n    steps      =")
        self.project = project_of(text, folder / "project")
        self.whole = folder / "whole"
        finish(self.project, self.whole, count=self.count)

    def check(self, number: int, draw: random.Random) -> int:
        """Stop a run until it ends; how often it was stopped. Raises `AssertionError` where it is another run."""
        out, stops = self.folder / f"run-{number}", 0
        for reached in sorted(draw.sample(range(STEPS - 1), draw.randint(1, 3))):
            run = Ranks(self.project, out, *self.options, count=self.count)
            run.wait_for(reached)
            whom = () if draw.random() < 0.5 else (draw.randrange(self.count),)
            run.signal(draw.choice(SIGNALS), *whom)
            stops += any(status != 0 for status in run.wait_as_torchrun())
        finish(self.project, out, *self.options, count=self.count)
        self._compare(out)
        return stops

    def _compare(self, out: Path) -> None:
        """A signal that asks leaves a checkpoint of its step, in place of one that was to be kept."""
        mine, theirs = contents(out), contents(self.whole)
        last = {name for name in theirs if f"step-{STEPS}/" in name}
        assert last
        assert last <= mine.keys()
        different = [name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]]
        assert not different, different
        assert logged(out) == logged(self.whole)
        assert not list(out.glob("checkpoints/.*"))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.resumes")
    parser.add_argument("stops", type=int, help="how many runs of each way are stopped and go on")
    parser.add_argument("seed", type=int, nargs="?", default=0)
    given = parser.parse_args(argv)
    found: Counter[str] = Counter()
    for way in WAYS:
        draw = random.Random(f"{way.name} {given.seed}")
        with tempfile.TemporaryDirectory() as folder:
            resumes = Resumes(way, Path(folder))
            for number in range(given.stops):
                found["stops"] += resumes.check(number, draw)
                found["runs"] += 1
        print(f"{way.name}: {given.stops} runs went on as if nothing had stopped them", flush=True)
    print(f"{found['runs']} runs, stopped {found['stops']} times, 0 different")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
