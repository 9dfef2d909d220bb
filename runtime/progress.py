"""What a run tells while it goes on: running means, and a view of it in the terminal."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from torch import Tensor

from tdsl.runtime import logs, ranks
from tdsl.runtime.readable import clock, number, size

if TYPE_CHECKING:
    from tdsl.runtime.training import Best, Training

# Seconds between two pictures of a run.
PERIOD = 0.25
# A course with more values than this is halved.
MOST_VALUES = 512
# From low to high, in block characters and for terminals that lack them.
BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
# A course that spans more than this is drawn on a logarithmic scale.
WIDE = 20
# Columns from which on a line of the view holds two, and three, numbers.
TWO, THREE = 49, 69


class Meter:
    """Means of scalars, weighted by rows. Sums stay on the device until they are read."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.rows = self.seen = 0.0
        self.sums: dict[str, Tensor] = {}
        self.start = time.perf_counter()

    def add(self, values: Mapping[str, Tensor], rows: float) -> None:
        """Add the means over `rows` rows; of none there is no mean."""
        self.add_sums({name: value.detach().to(torch.float64) * rows for name, value in values.items()}, rows)

    def add_sums(self, sums: Mapping[str, Tensor], rows: float) -> None:
        """Add sums over `rows` rows, in float64."""
        if not rows:
            return
        for name, term in sums.items():
            before = self.sums.get(name)
            self.sums[name] = term if before is None else before.to(term.device) + term
        self.rows += rows
        self.seen += rows

    def means(self) -> dict[str, float]:
        """The mean of each scalar since the last reset, over the rows of all ranks."""
        found = Meter.joined(ranks.gathered(self.state_dict()))
        return {name: value / found["rows"] for name, value in found["sums"].items()}

    def rows_per_second(self) -> float:
        """The speed of all ranks since the last reset, or since the process has started."""
        return round(ranks.total([self.seen])[0] / max(time.perf_counter() - self.start, 1e-9), 1)

    @staticmethod
    def joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The state of one meter that was given what several were."""
        sums: dict[str, float] = {}
        for state in states:
            for name, value in state["sums"].items():
                sums[name] = sums[name] + value if name in sums else value
        return {"rows": sum(state["rows"] for state in states), "sums": sums}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "sums": {name: value.item() for name, value in self.sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reset()
        self.rows = state["rows"]
        self.sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}


class Course:
    """The course of a value over a run, in at most `MOST_VALUES` numbers, each the mean of as many values."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._each = 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        self._open.append(value)
        if len(self._open) == self._each:
            self.values.append(sum(self._open) / self._each)
            self._open.clear()
        if len(self.values) == MOST_VALUES:
            self.values = _means(self.values, MOST_VALUES // 2)
            self._each *= 2

    def spark(self, width: int, marks: str = BLOCKS) -> str:
        """The course in `width` characters at most, from the lowest mark to the highest."""
        finite = [value for value in self.values if math.isfinite(value)]
        values = _means(finite, min(width, len(finite)))
        if not values:
            return ""
        if min(values) > 0 and max(values) > WIDE * min(values):
            values = [math.log(value) for value in values]
        low, span = min(values), max(values) - min(values)
        return "".join(marks[round((value - low) / (span or 1) * (len(marks) - 1))] for value in values)


def _means(values: Sequence[float], parts: int) -> list[float]:
    """The means of `parts` pieces of nearly the same length."""
    edges = [len(values) * part // parts for part in range(parts + 1)] if parts else []
    pieces = [values[start:end] for start, end in pairwise(edges)]
    return [sum(piece) / len(piece) for piece in pieces]


class View:
    """A run in a terminal, in a few lines; elsewhere a line for each validation.

    Pictures are made of what was last logged, so that none waits for the device; of steps in between, only the count
    is new.
    """

    def __init__(self, state: Training, console: Console) -> None:
        self.state = state
        self.console = console
        self.shown = console.is_terminal and not console.is_dumb_terminal
        self.line: Mapping[str, Any] = {}
        self.results: Mapping[str, float] = {}
        self.validated = 0
        self.losses = Course()
        for line in logs.read(state.job.out / logs.JSON):
            self._take(line)
        self.first = self.start = self.due = time.perf_counter()
        self.begun = state.step
        self.live = Live(console=console, auto_refresh=False, get_renderable=self.picture)

    def _take(self, line: Mapping[str, Any]) -> None:
        self.line = line
        self.losses.add(line.get("loss", math.nan))
        results = {name: value for name, value in line.items() if "/" in name}
        if results:
            self.results, self.validated = results, line["step"]

    def advance(self) -> None:
        """Take note of a step."""
        now = time.perf_counter()
        if self.state.step == self.begun + 1:
            # The first step, which compiles kernels, tells nothing about the others.
            self.start = now
        if now >= self.due:
            self.due = now + PERIOD
            self.refresh()

    def show(self, line: Mapping[str, Any]) -> None:
        """Take what was logged."""
        self._take(line)

    def tell(self, results: Mapping[str, float]) -> None:
        """Take what a validation gave: the picture has it at once, and where there is none, it is printed."""
        self.results, self.validated = results, self.state.step
        if self.shown:
            self.refresh()
        else:
            values = "  ".join(f"{name} {value:.4g}" for name, value in results.items())
            mark = "  (best)" if self._is_best() else ""
            self.console.print(
                f"step {self.state.step:>6}  {values}{mark}", highlight=False, markup=False, soft_wrap=True
            )

    def refresh(self) -> None:
        if self.shown:
            self.live.refresh()

    def finish(self) -> None:
        """Say why the run has ended before its time."""
        stopping = self.state.early_stopping
        if self.state.ended and stopping is not None:
            why = stopping.reason(self.state.step, self.state.schedule.length)
            self.console.print(f"stopped early: {why}", highlight=False, markup=False, soft_wrap=True)

    # The picture ----------------------------------------------------------------------------------------------------

    def picture(self) -> RenderableType:
        """What the run is like: in six lines of at most 80 columns, in more where the terminal is narrower."""
        return Group(self._bar(), self._loss(), self._numbers(), *self._validation())

    def _ascii(self) -> bool:
        return self.console.options.ascii_only

    def _bar(self) -> RenderableType:
        done, total = self.state.step, self.state.schedule.length.steps
        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        line.add_column(no_wrap=True, overflow="ellipsis", max_width=20)
        line.add_column(ratio=1)
        line.add_column(justify="right", no_wrap=True)
        line.add_column(justify="right", no_wrap=True, min_width=12)
        bar = ProgressBar(total, done, complete_style="cyan", finished_style="green")
        line.add_row(Text(self.state.job.name, "bold"), bar, f"{done / total:.0%}", self._left())
        return line

    def _left(self) -> Text:
        done = self.state.step - self.begun - 1
        rest = self.state.schedule.length.steps - self.state.step
        now = time.perf_counter()
        if self.state.ended or rest <= 0:
            return Text(f"in {clock(now - self.first)}", "green")
        return Text(f"{clock((now - self.start) / done * rest)} left" if done > 0 else "", "dim")

    def _loss(self) -> RenderableType:
        line = _grid(10, 13)
        line.add_column(ratio=1, no_wrap=True, overflow="crop")
        room = min(max(self.console.width - 28, 0), 52)
        spark = self.losses.spark(room, LETTERS if self._ascii() else BLOCKS)
        line.add_row("loss", _bold(self.line.get("loss")), Text(f" {spark}", "cyan"))
        return line

    def _numbers(self) -> RenderableType:
        length, line = self.state.schedule.length, self.line
        rate, rows = line.get("lr"), line.get("rows_per_second")
        step = ("step", f"{self.state.step:,}/{length.steps:,}")
        epoch = ("epoch", f"{self.state.step / length.epoch:,.2f}")
        learning = ("rate", "" if rate is None else f"{rate:.3e}")
        gradient = ("gradient", _number(line.get("grad_norm")))
        speed = ("rows/s", "" if rows is None else f"{rows:,.0f}")
        taken = ("memory", size(memory(self.state.job.device)))
        if self.console.width >= THREE:
            return _pairs((10, 13, 10, 11, 8, 11), (step, learning, speed), (epoch, gradient, taken))
        if self.console.width >= TWO:
            return _pairs((10, 13, 10, 11), (step, learning), (epoch, gradient), (speed, taken))
        return _pairs((10, 13), (step,), (epoch,), (learning,), (gradient,), (speed,), (taken,))

    def _validation(self) -> Iterator[RenderableType]:
        if not self.results:
            return
        held_out = {name[4:]: value for name, value in self.results.items() if name.startswith("val/")}
        values = held_out or self.results
        yield self._told("validation" if held_out else "means", self.validated, values, self._is_best())
        best = self._best()
        if best is not None and best.step is not None and best.value is not None:
            yield self._told("best", best.step, {best.monitor: best.value}, False)

    def _told(self, label: str, step: int, values: Mapping[str, float], marked: bool) -> RenderableType:
        narrow = self.console.width < TWO
        line = _grid(10) if narrow else _grid(10, 13)
        line.expand = True
        line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        parts = [part for name, value in values.items() for part in (" ", (name, "dim"), f" {number(value)}  ")]
        mark = [(" *" if self._ascii() else " ★", "green")] if marked else []
        told = Text.assemble(*parts, *mark, overflow="ellipsis", no_wrap=True)
        line.add_row(*(label,) if narrow else (label, f"step {step:,}"), told)
        return line

    def _best(self) -> Best | None:
        stopping = self.state.early_stopping
        return self.state.best or (stopping.best if stopping is not None else None)

    def _is_best(self) -> bool:
        best = self._best()
        return best is not None and best.step == self.validated


def _grid(*widths: int) -> Table:
    """Columns of these widths in turn for a name and for its value."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for position, width in enumerate(widths):
        value = position % 2 == 1
        grid.add_column(width=width, no_wrap=True, justify="right" if value else "left", style="" if value else "dim")
    return grid


def _pairs(widths: Sequence[int], *rows: Sequence[tuple[str, str]]) -> Table:
    """Names with their values, those behind the first set apart."""
    grid = _grid(*widths)
    for row in rows:
        grid.add_row(*(text for at, (name, value) in enumerate(row) for text in (" " * (at > 0) + name, value)))
    return grid


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _bold(value: float | None) -> Text:
    return Text(_number(value), "bold")


def memory(device: torch.device) -> float:
    """Bytes that the tensors on a GPU take, or else this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    # macOS counts bytes, others KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def bar(state: Training) -> Iterator[View]:
    """A view of a run while it is trained."""
    # Of several processes one is seen.
    view = View(state, Console(stderr=True, quiet=ranks.rank() > 0, force_terminal=False if ranks.rank() else None))
    if view.shown:
        with view.live:
            yield view
            view.refresh()
    else:
        yield view
    view.finish()
