"""What `make gpu` runs: the tests that need a GPU, `tdsl verify` on the examples, the benchmark. Correctness first.

    python -m tests.gpu [--dry] [--out DIR]

Each step tells how long it took. One that fails or takes too long is told of and does not keep the others from running;
the exit status is 1 then. All steps together stay under ten minutes. With `--dry` the same is run without a GPU: tests
are skipped, kernels run in Triton's interpreter, rows have tiny sizes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TDSL = "import sys; from tdsl.compiler.cli import main; sys.exit(main())"
TESTS = ("tests/gpu", "tests/test_count_step.py", "tests/test_loader.py", "tests/test_rotary.py")
ROWS = "1-9,11"
# Seconds that a step may take, and of those of the benchmark the ones after which it begins no further row.
TESTED, VERIFIED, TIMED, BUDGET = 240, 90, 260, 190
# A machine without a GPU may be a small one that is busy.
DRY_PATIENCE = 3
NEEDED = (
    "torch",
    "triton",
    "jinja2",
    "numpy",
    "pyarrow",
    "safetensors",
    "torchmetrics",
    "rich",
    "pytest",
)


@dataclass(frozen=True)
class Step:
    """Commands that are run side by side, and the seconds that they may take."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    limit: float


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every step passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="All that needs a GPU.")
    parser.add_argument("--dry", action="store_true", help="without a GPU, in Triton's interpreter")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the benchmark's results go")
    options = parser.parse_args(argv)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{sys.executable} lacks {', '.join(missing)}", file=sys.stderr)
        return 2
    told = [_run(step, options.dry) for step in _steps(options.dry, options.out)]
    print("\n".join(["", *(line for _, line in told)]))
    return 0 if all(passed for passed, _ in told) else 1


def _steps(dry: bool, out: Path | None) -> list[Step]:
    patience = DRY_PATIENCE if dry else 1
    return [
        Step("tests that need a GPU", (_pytest(),), TESTED * patience),
        Step("tdsl verify on the examples", tuple(_verify(dry)), VERIFIED * patience),
        Step("benchmark", (_benchmark(dry, out),), TIMED * patience),
    ]


def _pytest() -> tuple[str, ...]:
    command = (sys.executable, "-m", "pytest", *TESTS, "-m", "gpu", "-rs", "--durations=5", "-p", "no:cacheprovider")
    # Most of the time goes into compiling kernels, one on a core.
    parallel = importlib.util.find_spec("xdist") and (os.cpu_count() or 1) >= 8
    return (*command, "-n", "5", "--dist", "loadscope") if parallel else command


def _verify(dry: bool) -> list[tuple[str, ...]]:
    """Every example at its own precision, which has its kernels take all of them; those with a run in the others too.

    There parameters stay in float32 beside lower activations.
    """
    programs = sorted((ROOT / "examples").glob("*.model"))
    runs = [path for path in programs if "\ntrain " in path.read_text(encoding="utf-8")]
    if dry:
        programs = runs = [path for path in programs if path.stem == "digits"]
    verify = (sys.executable, "-c", TDSL, "verify")
    lower = [
        (*verify, "--set", f"precision={name}", *map(str, runs)) for name in (("f16",) if dry else ("bf16", "f16"))
    ]
    return [(*verify, *map(str, programs)), *lower]


def _benchmark(dry: bool, out: Path | None) -> tuple[str, ...]:
    command = (sys.executable, "-m", "benchmarks.run", "--rows", ROWS, *(() if dry else ("--budget", str(BUDGET))))
    return (*command, *(("--dry",) if dry else ()), *(("--out", str(out)) if out else ()))


def _run(step: Step, dry: bool) -> tuple[bool, str]:
    """Whether it passed, and a line that says so. What several commands say is printed when they have ended."""
    print(f"\n=== {step.name}", flush=True)
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="tdsl-gpu-") as folder:
        logs = [Path(folder, str(number)) if len(step.commands) > 1 else None for number in range(len(step.commands))]
        processes = [_start(command, log, dry) for command, log in zip(step.commands, logs, strict=True)]
        ends = [_end(process, started + step.limit) for process in processes]
        for log in filter(None, logs):
            print(log.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
    failed = [end for end in ends if end != "passed"]
    line = f"{step.name}: {failed[0] if failed else 'passed'} after {time.time() - started:.0f} s"
    print(line, flush=True)
    return not failed, line


def _start(command: Sequence[str], log: Path | None, dry: bool) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that what it has started ends with it."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    if dry:
        env |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    if log is None:
        return subprocess.Popen(command, cwd=ROOT, env=env, preexec_fn=os.setpgrp)
    with log.open("wb") as told:
        return subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=told, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp
        )


def _end(process: subprocess.Popen[bytes], deadline: float) -> str:
    """How it ended; it is ended at the deadline."""
    try:
        status = process.wait(max(deadline - time.time(), 0.0))
        return "passed" if status == 0 else f"FAILED with status {status}"
    except subprocess.TimeoutExpired:
        return "FAILED: it took too long"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
