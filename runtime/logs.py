"""What is logged of a run: `log.jsonl`, and made of it `log.csv` and TensorBoard's events, where these are asked for.

Opened at a step, each holds what was logged until then and no more: `log.jsonl` is cut there, the others are written
anew from it. So a run that was killed and goes on has every logged step once, in all three.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tdsl.runtime.files import write_text
from tdsl.runtime.settings import UsageError

JSON, CSV, EVENTS = "log.jsonl", "log.csv", "tensorboard"
Line = Mapping[str, Any]


class Copy(Protocol):
    """Something else that holds the lines of a log."""

    def write(self, line: Line) -> None:
        """Append a line, at once."""


class Log:
    """`log.jsonl` in a run's folder: one object a logged step, with the `seconds` that the run has taken.

    `csv` and `tensorboard` tell whether there are also a `log.csv` and a folder `tensorboard` of event files.
    """

    def __init__(self, folder: Path, step: int, *, csv: bool = False, tensorboard: bool = False) -> None:
        self.path = folder / JSON
        lines = list(_until(self.path, step))
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))
        self.file = self.path.open("a", encoding="utf-8")
        # Those of the starts before this one count, the time between them does not.
        self.start = time.time() - (lines[-1].get("seconds", 0.0) if lines else 0.0)
        self.copies: list[Copy] = [CsvCopy(folder / CSV)] if csv else []
        self.copies += [EventsCopy(folder / EVENTS, lines, self.start)] if tensorboard else []

    def write(self, values: Line) -> None:
        """Append one object, at once, so that it outlives the process."""
        line = {**values, "seconds": round(time.time() - self.start, 3)}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for copy in self.copies:
            copy.write(line)

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        os.fsync(self.file.fileno())


class Silent(Log):
    """The log of a process that writes none."""

    def __init__(self) -> None:
        pass

    def write(self, values: Line) -> None:
        pass

    def sync(self) -> None:
        pass


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a log; one that a crash cut short is left out."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield line


def _until(path: Path, step: int) -> Iterator[dict[str, Any]]:
    return (line for line in read(path) if line["step"] <= step)


def check(settings: Mapping[str, Any]) -> None:
    """Raises `UsageError` where a run asks for TensorBoard, and that is not installed."""
    if settings.get("logging.tensorboard") and find_spec("tensorboard") is None:
        raise UsageError("`logging.tensorboard` needs a package that is not installed", "pip install tensorboard")


class CsvCopy:
    """`log.csv`: a column for each name that was logged, a row a line, empty where the line lacks the name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, None] = {}
        self._rewrite()

    def write(self, line: Line) -> None:
        if line.keys() <= self.names.keys():
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.names, restval="").writerow(line)
        else:
            self._rewrite()

    def _rewrite(self) -> None:
        """With all names in the header: those of a validation come some lines after the first."""
        lines = list(read(self.path.with_name(JSON)))
        self.names = dict.fromkeys(name for line in lines for name in line)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.names, restval="")
        writer.writeheader()
        writer.writerows(lines)
        write_text(self.path, text.getvalue())


class EventsCopy:
    """Event files: a scalar for each number of a line. `start` is when a run without interruption would have begun."""

    def __init__(self, folder: Path, lines: Sequence[Line], start: float) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        # A TensorBoard that has read the old files forgets them when the first step comes again.
        self.writer = SummaryWriter(str(folder), purge_step=0)
        self.start = start
        for line in lines:
            self._add(line)
        self.writer.flush()

    def write(self, line: Line) -> None:
        self._add(line)
        self.writer.flush()

    def _add(self, line: Line) -> None:
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)):
                self.writer.add_scalar(name, value, line["step"], walltime=self.start + line.get("seconds", 0.0))
