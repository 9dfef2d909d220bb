"""Timing: device and host apart, caches flushed, candidates in turn.

A call is timed on the device by events around it. Before it the cache is overwritten, so that nothing of the call
before is found there, and the device is kept busy until the host has launched what is timed: launching is no part of
the device's time. The host's time is until the call returns, with the device still at work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

WARM_UP = 3
FEWEST, MOST = 7, 60
# A message of a compiler's can be pages.
LONGEST_MESSAGE = 300
# The device is kept busy for twice a call's host time before it, and at most so long, at about so many cycles a second.
WAIT, LONGEST_WAIT = 1e-3, 0.02
CYCLES = 2e9
# Where the device does not tell the size of its cache.
CACHE = 64 << 20


class Times(NamedTuple):
    """Seconds of one call."""

    device: float
    host: float | None


class Candidate(Protocol):
    """What is timed: `prepare` is not, the call is."""

    def prepare(self) -> None: ...

    def __call__(self) -> object: ...


@dataclass
class Samples:
    """Seconds of each call, the host's only where it was timed apart; `problem` where one failed."""

    device: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    problem: str = ""

    def add(self, times: Times) -> None:
        self.device.append(times.device)
        if times.host is not None:
            self.host.append(times.host)

    @property
    def median(self) -> float:
        return statistics.median(self.device)

    @property
    def spread(self) -> float | None:
        """Half the distance between the quartiles, over the median; None of a single one."""
        if len(self.device) < 2:
            return None
        low, _, high = statistics.quantiles(self.device, n=4, method="inclusive")
        return (high - low) / 2 / self.median


class HostClock:
    """By the wall: what a machine without a GPU has."""

    def __call__(
        self, call: Callable[[], object], prepare: Callable[[], object] | None = None, wait: float = WAIT
    ) -> Times:
        if prepare is not None:
            prepare()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        return Times(seconds, None)


class GpuClock:
    """By events on the device. `flush` is twice its cache."""

    def __init__(self, device: torch.device) -> None:
        size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or CACHE
        self.flush = torch.empty(2 * size, dtype=torch.uint8, device=device)
        self.start = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def __call__(
        self, call: Callable[[], object], prepare: Callable[[], object] | None = None, wait: float = WAIT
    ) -> Times:
        if prepare is not None:
            prepare()
        self.flush.zero_()
        torch.cuda._sleep(int(wait * CYCLES))
        self.start.record()
        begun = time.perf_counter()
        kept = call()
        host = time.perf_counter() - begun
        self.end.record()
        self.end.synchronize()
        del kept
        return Times(self.start.elapsed_time(self.end) / 1e3, host)


def clock(device: torch.device) -> HostClock | GpuClock:
    return GpuClock(device) if device.type == "cuda" else HostClock()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(candidates: Mapping[str, Candidate], timer: HostClock | GpuClock, seconds: float) -> dict[str, Samples]:
    """Each candidate in turn, round after round, every round beginning with another one, for about `seconds`.

    One that fails is left out from there on.
    """
    found = {name: Samples() for name in candidates}
    waits = {name: _warm(candidates[name], timer, samples) for name, samples in found.items()}
    started = time.perf_counter()
    for number in range(MOST):
        names = [name for name, samples in found.items() if not samples.problem]
        if not names or (number >= FEWEST and time.perf_counter() - started > seconds):
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            try:
                found[name].add(timer(candidates[name], candidates[name].prepare, waits[name]))
            except Exception as error:
                found[name].problem = message(error)
    return found


def _warm(candidate: Candidate, timer: HostClock | GpuClock, samples: Samples) -> float:
    """Call it a few times; for how long the device is to be kept busy before it."""
    host = None
    try:
        for _ in range(WARM_UP):
            host = timer(candidate, candidate.prepare).host
    except Exception as error:
        samples.problem = message(error)
    return min(2 * (host or 0.0) + WAIT / 10, LONGEST_WAIT)


def message(error: BaseException) -> str:
    """The first lines of an error, in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:LONGEST_MESSAGE]


def extra_memory(candidate: Candidate, device: torch.device) -> int | None:
    """Bytes that a call holds at most beyond what was there before it; None where the device does not tell."""
    candidate.prepare()
    if device.type != "cuda":
        candidate()
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    kept = candidate()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    del kept
    return peak - before


def distance(a: Tensor, b: Tensor, piece: int = 1 << 26) -> float:
    """The Euclidean distance of two tensors in float64, piece by piece: they can be large."""
    if a.shape != b.shape:
        raise ValueError(f"a result of shape {tuple(a.shape)}, not {tuple(b.shape)}")
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for x, y in zip(a.detach().reshape(-1).split(piece), b.detach().reshape(-1).split(piece), strict=True):
        total += (x.double() - y.double()).square().sum()
    return float(total.sqrt())
