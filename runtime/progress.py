"""What a run tells while it goes on: running means, `log.jsonl`, and a bar in the terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tdsl.runtime import ranks
from tdsl.runtime.files import write_text


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
        if not rows:
            return
        for name, value in values.items():
            term = value.detach().to(torch.float64) * rows
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


class JsonLog:
    """`log.jsonl`: one object a logged step. Opened at a step, it holds what was logged until then and no more."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        write_text(path, "".join(f"{line}\n" for line in _lines(path, step)))
        self.file = path.open("a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one object, at once, so that it outlives the process."""
        self.file.write(json.dumps(values) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        os.fsync(self.file.fileno())


class SilentLog(JsonLog):
    """The log of a rank that writes none."""

    def __init__(self) -> None:
        pass

    def write(self, values: Mapping[str, Any]) -> None:
        pass

    def sync(self) -> None:
        pass


def _lines(path: Path, step: int) -> Iterator[str]:
    """The whole lines of a log up to a step; one that a crash cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            logged = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if logged <= step:
            yield line


class Bar:
    """A bar in a terminal; elsewhere a line for each validation."""

    def __init__(self, steps: int, step: int) -> None:
        self.console = Console(stderr=True, quiet=ranks.rank() != 0)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("step", total=steps, completed=step, values="")

    def advance(self) -> None:
        self.progress.advance(self.task)

    def show(self, loss: float) -> None:
        """Show the loss beside the bar."""
        self.progress.update(self.task, values=_readable({"loss": loss}))

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Print what a validation gave."""
        self.console.print(f"step {step:>6}  {_readable(values)}", highlight=False)


def _readable(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


@contextmanager
def bar(steps: int, step: int) -> Iterator[Bar]:
    """A bar that begins at `step` of `steps`."""
    made = Bar(steps, step)
    with made.progress:
        yield made
