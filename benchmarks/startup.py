"""How long `tdsl check` and `tdsl compile` take as whole processes, and their peak memory.

    python benchmarks/startup.py [PROGRAM ...]

Medians of ten runs each, one process at a time, after one run that fills Python's cache of compiled modules.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 10
TDSL = (sys.executable, "-c", "import sys; from tdsl.compiler.cli import main; sys.exit(main())")


def measured(command: list[str]) -> tuple[float, float, float]:
    """One process: seconds, seconds of processor time, and MiB at most; raises where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def environment() -> dict[str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def row(name: str, command: list[str]) -> str:
    measured(command)
    seconds, busy, memory = zip(*(measured(command) for _ in range(RUNS)), strict=True)
    return f"{name:<40} {statistics.median(seconds):>8.3f} s {statistics.median(busy):>8.3f} s {max(memory):>6.1f} MiB"


def main(programs: list[str]) -> None:
    found = [Path(name) for name in programs] or sorted((ROOT / "examples").glob("*.model"))
    print(f"{'whole process, median of ten':<40} {'time':>10} {'processor':>10} {'memory':>10}")
    print(row("python -c pass", [sys.executable, "-c", "pass"]))
    with tempfile.TemporaryDirectory() as out:
        for path in found:
            print(row(f"tdsl check {path.name}", [*TDSL, "check", str(path)]))
            print(row(f"tdsl compile {path.name}", [*TDSL, "compile", str(path), "-o", out]))


if __name__ == "__main__":
    main(sys.argv[1:])
