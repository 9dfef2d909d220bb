"""What every row is given: where it runs, for how long, beside whom; and how the candidates of a case are run."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.measure import Candidate, Samples, message
from benchmarks.results import OURS, Found, Measured

# About how long the rounds of a case take, in seconds.
TIMED, TIMED_DRY = 1.5, 0.05
# Others may be less exact than what is asked of ours, by so much, and are timed all the same: some add up gradients in
# bf16, which is far from wrong. A gradient that is half of what it should be is some thirty times off.
PEERS_MAY = 20.0


@dataclass(frozen=True)
class Floor:
    """What no implementation can do without: bytes through memory, each input and result once; operations."""

    bytes: float = 0.0
    flops: float = 0.0

    def seconds(self, ceilings: Mapping[str, float]) -> float | None:
        return max(self.bytes / ceilings["copy"], self.flops / ceilings["matrix"]) or None


@dataclass(frozen=True)
class Bench:
    """One run. `deadline` is a time of `time.time`; `peers` names those that are wanted, where not all are."""

    device: torch.device
    dry: bool
    folder: Path
    ceilings: Mapping[str, float]
    deadline: float = float("inf")
    peers: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """What the rows are in. Triton's interpreter computes bfloat16 wrongly."""
        return torch.float32 if self.dry else torch.bfloat16

    @property
    def late(self) -> bool:
        return time.time() > self.deadline

    @property
    def seconds(self) -> float:
        return TIMED_DRY if self.dry else TIMED

    def wants(self, name: str) -> bool:
        return name.startswith((OURS, "eager")) or not self.peers or any(peer in name for peer in self.peers)

    def size(self, full: int, dry: int) -> int:
        return dry if self.dry else full

    def free(self) -> None:
        """Give back what the last candidate or case held; raises where the device no longer answers."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()


class Case:
    """One case of a row. A subclass tells its candidates, how wrong one is, and how all are timed.

    `candidates` makes each by its name, one by one and in order; making may compile. The first two are ours and plain
    PyTorch, so that they are known where the time is up.
    """

    title: str
    floor = Floor()
    per_call: int | None = None
    unit = ""

    def candidates(self) -> Mapping[str, Callable[[], Candidate]]:
        raise NotImplementedError

    def error(self, name: str, candidate: Candidate) -> float | None:
        """The candidate's greatest error over what is allowed; None where there is nothing to compare."""
        raise NotImplementedError

    def checked(self) -> None:
        """Called when all candidates have been checked: what only that needed can go."""

    def timed(self, candidates: Mapping[str, Any], bench: Bench) -> Mapping[str, Samples]:
        return measure.interleaved(candidates, measure.clock(bench.device), bench.seconds)

    def memory(self, candidate: Candidate, bench: Bench) -> int | None:
        return measure.extra_memory(candidate, bench.device)


def run(case: Case, row: int, bench: Bench) -> Found:
    """Make, check and time the candidates of a case. What goes wrong with one is told of it, and the others go on."""
    torch._dynamo.reset()
    started = time.time()
    floor = case.floor.seconds(bench.ceilings)
    found = Found(row, case.title, floor and floor * 1e3, case.per_call, case.unit)
    ready: dict[str, Candidate] = {}
    for name, make in case.candidates().items():
        if bench.wants(name):
            found.measured.append(_made(case, name, make, bench, ready))
    case.checked()
    bench.free()
    by_name = {each.name: each for each in found.measured}
    for name, samples in case.timed(ready, bench).items():
        _note(by_name[name], samples)
        if not samples.problem:
            by_name[name].memory = case.memory(ready[name], bench)
    found.seconds = round(time.time() - started, 1)
    ready.clear()
    bench.free()
    return found


def _made(case: Case, name: str, make: Callable[[], Candidate], bench: Bench, ready: dict[str, Candidate]) -> Measured:
    """A candidate after its check, among the `ready` ones where it is right."""
    measured = Measured(name)
    if bench.late:
        measured.why = "the time is up"
        return measured
    started = time.time()
    try:
        candidate = make()
        measured.error = case.error(name, candidate)
    except ModuleNotFoundError as error:
        measured.why = f"{error.name} is not installed"
        return measured
    except Exception as error:
        measured.status, measured.why = "failed", message(error)
        print(f"    {name}: failed: {measured.why}", flush=True)
        bench.free()
        return measured
    may = 1.0 if measured.ours else PEERS_MAY
    if measured.error is None or measured.error <= may:
        ready[name] = candidate
        measured.status = "timed"
    else:
        measured.status, measured.why = "wrong", f"{measured.error:.3g} times the error allowed"
    print(f"    {name}: {measured.status} after {time.time() - started:.1f} s {measured.why}", flush=True)
    return measured


def _note(measured: Measured, samples: Samples) -> None:
    if samples.problem or not samples.device:
        measured.status, measured.why = "failed", samples.problem or "it was never timed"
        return
    measured.device_ms = samples.median * 1e3
    measured.spread = samples.spread
    measured.calls = len(samples.device)
    if samples.host:
        measured.host_ms = statistics.median(samples.host) * 1e3
