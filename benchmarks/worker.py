"""Run rows in this process, and keep what is found after each: what `benchmarks.run` starts, and starts again.

    python -m benchmarks.worker RESULTS.json --rows 1,2 [--dry] [--deadline TIME] [--peers NAME,...]

A row that fails is told of and the next one is run. Where the device no longer answers the process ends with status 3:
nothing can be run in it any more.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import bench, machine
from benchmarks.bench import Bench
from benchmarks.measure import message
from benchmarks.results import Results
from benchmarks.rows import ROWS
from benchmarks.run import numbers

LATE = "skipped: the time is up"
DEAD = 3


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    results = Results.read(options.results)
    device = torch.device("cpu" if options.dry or not torch.cuda.is_available() else "cuda")
    logging.getLogger("torch._inductor.utils").setLevel(logging.ERROR)  # how many multiprocessors are enough
    torch.manual_seed(0)
    if not results.ceilings:
        results.ceilings = machine.ceilings(device, options.dry)
        results.save()
    with tempfile.TemporaryDirectory(prefix="tdsl-bench-") as folder:
        given = Bench(device, options.dry, Path(folder), results.ceilings, options.deadline, options.peers)
        for row in options.rows:
            if not _row(row, given, results):
                return DEAD
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run rows of the benchmark in this process.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--rows", type=numbers, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--deadline", type=float, default=float("inf"))
    parser.add_argument("--peers", type=names, default=())
    return parser.parse_args(argv)


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _row(row: int, given: Bench, results: Results) -> bool:
    """Run the cases of a row; whether the device still answers after it."""
    if given.late:
        results.rows[row] = LATE
        results.save()
        return True
    results.rows[row] = "running"
    results.save()
    print(f"row {row}", flush=True)
    try:
        for make in ROWS[row]:
            started = time.time()
            case = make(given)
            print(f"  {case.title} (made in {time.time() - started:.1f} s)", flush=True)
            results.found.append(bench.run(case, row, given))
            results.save()
        results.rows[row] = "done"
    except Exception as error:
        traceback.print_exc()
        results.rows[row] = f"failed: {message(error)}"
    results.save()
    try:
        given.free()
    except Exception as error:
        print(f"the device no longer answers: {message(error)}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
