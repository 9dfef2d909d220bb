"""A training step of a run as compiled, counted beside the same step in plain PyTorch.

The program is emitted twice: as it is compiled, and without fusion in float32, which low precision comes to by
`torch.autocast` as one writes it by hand. `tdsl.runtime.counting.step` counts a step of each, in processes of their
own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tdsl.compiler import driver, pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.emit.data import DTYPES
from tdsl.compiler.passes.tidy import prune, share
from tdsl.dsl.program import TrainSpec

UNFUSED: tuple[pipeline.Pass, ...] = (share, prune)
MODULE = "tdsl.runtime.counting.step"
# In the order in which they are told.
PHASES = ("forward", "backward", "clipping and optimizer")
PRODUCTS, ATTENTION, OTHER = CATEGORIES = ("matrix products", "attention", "everything else")


class Uncountable(Exception):
    """A step can't be counted; the message says why."""


@dataclass(frozen=True)
class Tally:
    """Launches, and the bytes that they move."""

    launches: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)))


@dataclass(frozen=True)
class Operation:
    """An operator of PyTorch or a Triton kernel in one phase of a step, in both programs."""

    phase: str
    category: str
    name: str
    eager: Tally = Tally()
    compiled: Tally = Tally()


@dataclass(frozen=True)
class Row:
    """What several operations come to, in both programs."""

    eager: Tally = Tally()
    compiled: Tally = Tally()


@dataclass(frozen=True)
class Comparison:
    """A step of `run`, of `rows` rows."""

    file: str
    run: str
    precision: str
    rows: int
    operations: tuple[Operation, ...]

    def total(self, phase: str | None = None, categories: Iterable[str] = CATEGORIES) -> Row:
        """Of a phase, or of the step, what is in these categories."""
        chosen = tuple(categories)
        found = [o for o in self.operations if o.category in chosen and phase in (None, o.phase)]
        return Row(sum((o.eager for o in found), Tally()), sum((o.compiled for o in found), Tally()))

    @property
    def outside(self) -> Row:
        """What is neither a product nor attention."""
        return self.total(categories=[OTHER])


def compare(unit: Unit, run: str, source: Path, environment: Mapping[str, str], allow_outside: bool) -> Comparison:
    """Count a step of a run of a program before its passes. Raises `Uncountable`."""
    spec = unit.runs[run].spec
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        counted = _count(write(unit, run, source, Path(folder), allow_outside), environment)
    name, precision = Path(unit.program.source.name).name, str(spec.settings.get("precision") or "f32")
    return Comparison(name, run, precision, _rows(spec), _joined(counted["plain"], counted["emitted"]))


def write(unit: Unit, run: str, source: Path, folder: Path, allow_outside: bool = False) -> dict[str, Path]:
    """The projects `emitted` and `plain` of a run of a program before its passes, each with its `batch.json`."""
    spec = unit.runs[run].spec
    in_full = replace(spec, settings={**spec.settings, "precision": "f32"})
    unfused = replace(unit, runs={**unit.runs, run: replace(unit.runs[run], spec=in_full)})
    found = {"emitted": folder / "emitted", "plain": folder / "plain"}
    for how, each, passes in (("emitted", unit, pipeline.PASSES), ("plain", unfused, UNFUSED)):
        changed = pipeline.run(each, passes, name=run)
        driver.write(changed, run, found[how], source, allow_outside=allow_outside)
        (found[how] / "batch.json").write_text(json.dumps(_batch(spec)), encoding="utf-8")
    return found


def _rows(spec: TrainSpec) -> int:
    rows = spec.settings["batch_size"]
    assert isinstance(rows, int)
    return rows


def _batch(spec: TrainSpec) -> dict[str, object]:
    """What `tdsl.runtime.counting.step.BatchSpec` takes."""
    held = {f.name: (DTYPES[f.dtype].removeprefix("torch."), f.shape) for f in spec.data.fields}
    return {"rows": _rows(spec), "precision": str(spec.settings.get("precision") or "f32"), "fields": held}


# What one process has counted: phase, category, name, launches, bytes.
Counted = Sequence[Mapping[str, object]]


def _count(folders: Mapping[str, Path], environment: Mapping[str, str]) -> dict[str, Counted]:
    """What each folder's step launches, counted at the same time."""
    started = {
        how: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", MODULE, str(folder), how],
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for how, folder in folders.items()
    }
    found: dict[str, Counted] = {}
    for how, process in started.items():
        told, complaint = process.communicate()
        if process.returncode:
            (*_, last) = complaint.strip().splitlines() or [f"the process ended with status {process.returncode}"]
            raise Uncountable(f"{'as plain PyTorch' if how == 'plain' else 'as compiled'}: {last}")
        found[how] = json.loads(told)
    return found


def _joined(eager: Counted, compiled: Counted) -> tuple[Operation, ...]:
    """Each operation once, in the order of phases, what moves most first."""
    sides = [{_key(each): Tally(_int(each["launches"]), _int(each["bytes"])) for each in s} for s in (eager, compiled)]
    keys = dict.fromkeys((*sides[0], *sides[1]))
    found = [Operation(*key, *(side.get(key, Tally()) for side in sides)) for key in keys]
    return tuple(sorted(found, key=lambda o: (PHASES.index(o.phase), -max(o.eager.bytes, o.compiled.bytes), o.name)))


def _key(each: Mapping[str, object]) -> tuple[str, str, str]:
    return str(each["phase"]), str(each["category"]), str(each["name"])


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
