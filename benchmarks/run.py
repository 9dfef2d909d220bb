"""The benchmark: what is emitted beside PyTorch and other projects' kernels, on a GPU.

    python -m benchmarks.run [--rows 1,2,5-9] [--budget SECONDS] [--out DIR] [--peers NAME,...] [--dry]

Prints one table, and writes `benchmarks/results/GPU-DATE.json`, after every row what is known so far. Rows are run in a
process of their own, which is started again for the rows that are left where one ends it. `--dry` runs every row on a
processor, in Triton's interpreter, at sizes that mean nothing: the same code, and no figure of it is worth anything.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks import machine, table
from benchmarks.results import Results

FOLDER = Path(__file__).resolve().parent / "results"
ROWS = (*range(1, 13), 15, 16)
# The others are whole programs, for which peers compile for minutes.
DEFAULT = "1-11"
# A row that takes longer is given up.
LIMIT = 400.0


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 where ours is wrong or failed in a row, or a figure can't be right."""
    options = _options(argv)
    results = Results(_path(options), {**machine.machine(), "dry": options.dry})
    results.save()
    print(f"results go to {results.path}", flush=True)
    deadline = time.time() + options.budget if options.budget else None
    left = options.rows
    while left:
        tried, status = left, _work(results.path, left, options, deadline)
        results = Results.read(results.path)
        left = [row for row in left if row not in results.rows or results.rows[row] == "running"]
        if left and results.rows.get(left[0]) == "running":
            results.rows[left[0]] = f"crashed: {status}"
            results.save()
            left = left[1:]
        elif left and left == tried:
            results.rows[left[0]] = f"crashed: {status}, before it had begun"
            results.save()
            break
    table.show(results)
    return 1 if results.problems() else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Time what tdsl emits.")
    parser.add_argument(
        "--rows", type=numbers, default=DEFAULT, help="which: 1,2,5-9 (default: %(default)s; there are 12, 15, 16 too)"
    )
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="rows that would begin later are skipped")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go")
    parser.add_argument("--peers", default="", help="of the peers only these, by parts of their names")
    parser.add_argument("--dry", action="store_true", help="on the processor, at tiny sizes: the code alone")
    return parser.parse_args(argv)


def numbers(text: str) -> list[int]:
    """`1,2,5-7`: rows that there are. Raises `ValueError` for another one that is named alone."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not dash and int(first) not in ROWS:
            raise ValueError(f"there is no row {first}")
        found += [row for row in range(int(first), int(last or first) + 1) if row in ROWS]
    return found


def _path(options: argparse.Namespace) -> Path:
    """A name that no earlier run of the day has."""
    folder = options.out or (Path(tempfile.mkdtemp(prefix="tdsl-bench-")) if options.dry else FOLDER)
    name = "dry" if options.dry else machine.slug(machine.machine()["gpu"])
    path = folder / f"{name}-{date.today().isoformat()}.json"
    number = 2
    while path.exists():
        path = path.with_name(f"{name}-{date.today().isoformat()}-{number}.json")
        number += 1
    return path


def _work(path: Path, rows: Sequence[int], options: argparse.Namespace, deadline: float | None) -> str:
    """Run a worker to its end, or until a row takes too long; how it ended."""
    command = [sys.executable, "-m", "benchmarks.worker", str(path), "--rows", ",".join(map(str, rows))]
    command += [f"--peers={options.peers}", *(["--dry"] if options.dry else [])]
    command += [f"--deadline={deadline}"] if deadline else []
    root = machine.ROOT
    paths = os.pathsep.join([str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    env.pop("TRITON_INTERPRET", None)
    if options.dry:
        env["TRITON_INTERPRET"] = "1"
    process = subprocess.Popen(command, cwd=root, env=env)
    try:
        return _watched(process, path)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _watched(process: subprocess.Popen[bytes], path: Path) -> str:
    row: object = None
    since = time.time()
    while process.poll() is None:
        time.sleep(0.2)
        running = [row for row, state in Results.read(path).rows.items() if state == "running"]
        if running != row:
            row, since = running, time.time()
        if running and time.time() - since > LIMIT:
            return f"it took more than {LIMIT:.0f} s"
    return f"the process ended with status {process.returncode}"


if __name__ == "__main__":
    raise SystemExit(main())
