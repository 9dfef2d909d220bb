"""Training runs that are killed at random moments: `python -m tests.kills 1000 [SEED] [-n JOBS]`.

A run gets `kill -9` after a random time or at a random sync of a file, of which each part of the write of a checkpoint
ends with one, is looked at, and is started again, until it comes to its end. Whenever it is looked at, its newest
checkpoint is whole and no older than the one before; at the end, it is bit for bit the run that nothing stopped.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from tdsl.runtime import checkpoint
from tests.training_runs import Run, assert_same_run, finish, project_in

# A whole run has more syncs than this, and less than this many seconds of training on any machine.
SYNCS, SECONDS = 60, 1.5


@dataclass(frozen=True)
class Whole:
    """A project, its run that nothing stopped, and the folder for others."""

    project: Path
    run: Path
    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Whole:
        project, run = project_in(folder / "project"), folder / "whole"
        finish(project, run)
        return cls(project, run, folder)


def kill(whole: Whole, out: Path, draw: random.Random) -> str:
    """Start the run and kill it: how it was, or "" where it came to its end before."""
    if draw.random() < 0.5:
        run, how = Run(whole.project, out, syncs=draw.randint(1, SYNCS)), "at a sync"
    else:
        run, how = Run(whole.project, out), "at a time"
        run.wait_for_start()
        run.process.join(draw.uniform(0, SECONDS))
        run.process.kill()
    ended = run.wait()
    if ended not in (0, -signal.SIGKILL):
        raise AssertionError(f"the run ended with {ended}: {run.text}")
    return how if ended else ""


def newest(out: Path) -> int:
    """The step of the newest checkpoint, which is whole; 0 where there is none yet. Raises where it is not."""
    there = checkpoint.listed(out / "checkpoints")
    if not there:
        return 0
    there[0].verify()
    return there[0].step


def killed(whole: Whole, times: int, seed: int) -> Counter[str]:
    """Kill runs so many times; how often each way, and how many runs came to their end."""
    draw, told = random.Random(seed), Counter[str]()
    for number in count():
        out, step = whole.folder / f"run-{seed}-{number}", 0
        while how := kill(whole, out, draw):
            found = newest(out)
            assert found >= step, f"{out}: the checkpoint of step {step} is lost, the newest is of step {found}"
            step = found
            told[how] += 1
            if told.total() - told["ended"] >= times:
                break
        finish(whole.project, out)
        assert_same_run(out, whole.run)
        told["ended"] += 1
        if told.total() - told["ended"] >= times:
            return told
    raise AssertionError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("-n", "--jobs", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    # Not threads: whichever of them starts a process takes the status of another's that has ended.
    pool = ProcessPoolExecutor(options.jobs, get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, pool:
        whole = Whole.made(Path(folder))
        shares = [len(range(job, options.times, options.jobs)) for job in range(options.jobs)]
        jobs = [pool.submit(killed, whole, share, options.seed * 1000 + i) for i, share in enumerate(shares) if share]
        told = sum((job.result() for job in jobs), Counter[str]())
    ended = told.pop("ended")
    listed = ", ".join(f"{number} {how}" for how, number in sorted(told.items()))
    print(f"{told.total()} kills ({listed}), 0 runs that could not go on, 0 checkpoints lost")
    print(f"{ended} runs came to their end, each as the run that was not stopped; {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
