"""Check every fused kernel of emitted folders against its reference in float64.

Run as `python -m tdsl.runtime.verify_folders FOLDER...`. On a GPU the time goes into compiling each kernel for each
width and precision, so it is divided among processes, one a core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from tdsl.runtime import launch
from tdsl.runtime.verify import Outcome, cases, dtypes, load, verify
from tdsl.runtime.verify_inputs import Case

# Each process takes half a gigabyte of the GPU's memory, and a core while it compiles.
MOST_JOBS = 16


@dataclass(frozen=True)
class Task:
    """One case of a folder's `kernels.py` in one precision."""

    folder: Path
    case: Case
    dtype: torch.dtype

    @property
    def kernels(self) -> object:
        """What tells which kernels it compiles: tasks of the same go to one process."""
        return (self.folder, self.case.group, self.dtype, *(shape[-1:] for shape in self.case.shapes))


def check(tasks: Sequence[Task], device: str) -> list[Outcome]:
    """Run tasks in order. An error of one is its outcome."""
    torch.manual_seed(0)
    loaded: dict[Path, ModuleType] = {}
    found = []
    for task in tasks:
        if task.folder not in loaded:
            loaded[task.folder] = load(task.folder / "kernels.py")
        try:
            found.append(verify(loaded[task.folder], task.case, task.dtype, device))
        except Exception as error:
            found.append(_failed(task, error))
    return found


def _failed(task: Task, error: Exception) -> Outcome:
    told = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
    return Outcome(task.case, str(task.dtype).removeprefix("torch."), 0.0, 0.0, told)


def check_apart(tasks: Sequence[Task], device: str, jobs: int) -> list[Outcome]:
    """The same, divided among processes: most of the time goes into compiling kernels, one on a core."""
    parts: dict[object, list[int]] = {}
    for number, task in enumerate(tasks):
        parts.setdefault(task.kernels, []).append(number)
    shares: list[list[int]] = [[] for _ in range(min(jobs, len(parts)))]
    for part in sorted(parts.values(), key=len, reverse=True):
        min(shares, key=len).extend(part)
    found: dict[int, Outcome] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(shares), mp_context=context) as pool:
        running = [(share, pool.submit(check, [tasks[n] for n in share], device)) for share in shares]
        for share, future in running:
            try:
                found.update(zip(share, future.result(), strict=True))
            except BrokenProcessPool as error:
                found.update({number: _failed(tasks[number], error) for number in share})
    return [found[number] for number in range(len(tasks))]


def main(argv: Sequence[str] | None = None) -> int:
    """Verify folders that hold `kernels.py` and `cases.json`; 1 where a kernel fails."""
    options = _options(argv)
    device = "cuda" if torch.cuda.is_available() and not launch.interpreted() else "cpu"
    if device == "cpu" and not launch.interpreted():
        print("no GPU, and TRITON_INTERPRET is not 1: nothing to check", file=sys.stderr)
        return 2
    precisions = [getattr(torch, name) for name in options.precision] or dtypes(device)
    tasks = [
        Task(folder, case, dtype)
        for folder in options.folders
        for case in cases(folder / "cases.json")
        for dtype in precisions
    ]
    jobs = options.jobs or (min(os.cpu_count() or 1, MOST_JOBS) if device == "cuda" else 1)
    outcomes = check(tasks, device) if jobs == 1 or len(tasks) < 2 else check_apart(tasks, device, jobs)
    _print([(task.folder.name, outcome) for task, outcome in zip(tasks, outcomes)], device)
    return 0 if all(o.passed for o in outcomes) else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check fused kernels against float64.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--jobs", type=int, help="processes; default: one a core on a GPU, one in the interpreter")
    parser.add_argument("--precision", action="append", default=[], choices=("float32", "float16", "bfloat16"))
    return parser.parse_args(argv)


def _print(outcomes: Sequence[tuple[str, Outcome]], device: str) -> None:
    from rich.console import Console
    from rich.table import Table

    several = len({program for program, _ in outcomes}) > 1
    table = Table(
        title=f"kernels on {'the GPU' if device == 'cuda' else 'the interpreter'}, error over what is allowed"
    )
    names = [*(("program",) if several else ()), "group", "precision", "cases", "forward", "backward", ""]
    for name in names:
        table.add_column(name, justify="right" if name in ("cases", "forward", "backward") else "left")
    for (program, group, precision), rows in _by_group(outcomes).items():
        failed = [o for o in rows if not o.passed]
        verdict = "ok" if not failed else f"{len(failed)} fail; {_told(failed[0])}"
        worst = (max(o.forward for o in rows), max(o.backward for o in rows))
        cells = (group, precision, str(len(rows)), f"{worst[0]:.2f}", f"{worst[1]:.2f}", verdict)
        table.add_row(*((program,) if several else ()), *cells)
    Console(width=None if os.isatty(1) else 140 if several else 120).print(table)
    passed = sum(o.passed for _, o in outcomes)
    print(f"{passed} of {len(outcomes)} cases agree")
    # Below a table of hundreds of lines, once more and in full.
    for (program, group, precision), rows in _by_group(outcomes).items():
        for outcome in [o for o in rows if not o.passed][:1]:
            errors = f"forward {outcome.forward:.2f}, backward {outcome.backward:.2f} of what is allowed"
            print(f"{program}, {group}, {precision}: {_told(outcome)}; {errors}")


def _told(outcome: Outcome) -> str:
    where = f"{outcome.case.layout} {' '.join('x'.join(map(str, s)) or 'scalar' for s in outcome.case.shapes)}"
    return f"{outcome.problem or 'error too large'}: {where}"


def _by_group(outcomes: Sequence[tuple[str, Outcome]]) -> Mapping[tuple[str, str, str], list[Outcome]]:
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for program, outcome in outcomes:
        found.setdefault((program, outcome.case.group, outcome.precision), []).append(outcome)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
