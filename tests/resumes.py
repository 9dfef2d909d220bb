"""Runs that are stopped at random and go on: `python -m tests.resumes 50 [SEED]`.

Each is in one process or, by DDP, in two. It is stopped at a random step, by a signal that asks or by `kill -9` to all
or to one of its processes, as often as it takes, and goes on. At its end everything is, bit for bit, what the run that
nothing stopped has: parameters, moments, averaged weights, schedule, what is logged, and the random streams of every
process. The order of rows is a function of seed and epoch, and so the same.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.rank_runs import Ranks, finish, project_of
from tests.training_runs import PROGRAM, STEPS, contents, logged

STRATEGIES = {"one process": 1, "ddp of two": 2}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


class Resumes:
    """Runs of one strategy in a folder, compared with the one that nothing stopped."""

    def __init__(self, strategy: str, folder: Path) -> None:
        self.count, self.folder = STRATEGIES[strategy], folder
        text = PROGRAM.replace("    steps      =", "    distributed = ddp()\n    steps      =")
        self.project = project_of(text, folder / "project")
        self.whole = folder / "whole"
        finish(self.project, self.whole, count=self.count)

    def check(self, number: int, draw: random.Random) -> int:
        """Stop a run until it ends; how often it was stopped. Raises `AssertionError` where it is another run."""
        out, stops = self.folder / f"run-{number}", 0
        for reached in sorted(draw.sample(range(STEPS - 1), draw.randint(1, 3))):
            run = Ranks(self.project, out, count=self.count)
            run.wait_for(reached)
            whom = () if draw.random() < 0.5 else (draw.randrange(self.count),)
            run.signal(draw.choice(SIGNALS), *whom)
            stops += any(status != 0 for status in run.wait())
        finish(self.project, out, count=self.count)
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
    parser.add_argument("stops", type=int, help="how many runs of each strategy are stopped and go on")
    parser.add_argument("seed", type=int, nargs="?", default=0)
    given = parser.parse_args(argv)
    found: Counter[str] = Counter()
    for strategy in STRATEGIES:
        draw = random.Random(f"{strategy} {given.seed}")
        with tempfile.TemporaryDirectory() as folder:
            resumes = Resumes(strategy, Path(folder))
            for number in range(given.stops):
                found["stops"] += resumes.check(number, draw)
                found["runs"] += 1
        print(f"{strategy}: {given.stops} runs went on as if nothing had stopped them", flush=True)
    print(f"{found['runs']} runs, stopped {found['stops']} times, 0 different")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
