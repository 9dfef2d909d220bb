"""`tdsl inspect` as a terminal shows it, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from tdsl.compiler.build.unit import ModuleMember, Unit
from tdsl.compiler.inspect import ParameterInfo, parameters
from tdsl.compiler.memory import RESERVED, Fit, Memory
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.render import to_json as diagnostics_to_json

Plan = tuple[Memory, Fit | None]
LINES = (
    ("parameters", "parameters"),
    ("copies", "copies of them in low precision"),
    ("optimizer", "optimizer state"),
    ("averages", "averaged parameters"),
    ("gradients", "gradients"),
    ("batch", "batch"),
    ("activations", "activations kept for the backward"),
    ("differentiated", "what `grad` keeps for it, at most"),
    ("recomputed", "what one module computes again at a time, at most"),
    ("working", "what one kernel or call works on, at most"),
)


def models(unit: Unit) -> dict[str, dict[str, ModuleMember]]:
    """By run, its models by name; of a file without runs, its classes that need no arguments."""
    if unit.runs:
        return {name: dict(run.models) for name, run in unit.runs.items()}
    alone = [ir.class_name for ir in unit.modules if not any(p.required for p in ir.params)]
    return {"": {name: ModuleMember(name, ()) for name in alone}}


def show(unit: Unit, plans: dict[str, Plan]) -> None:
    """Each run's models and memory."""
    console = Console()
    for run, found in models(unit).items():
        for name, member in found.items():
            title = f"{run}: {name} = {member.class_name}" if run else name
            console.print(_table(title, parameters(unit, member)))
        if run:
            memory, fit = plans[run]
            console.print(_memory(run, memory))
            console.print("\n".join(_notes(memory, fit)), highlight=False)


def _table(title: str, found: Sequence[ParameterInfo]) -> Table:
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("parameter", "total")
    table.add_column("shape", justify="right")
    table.add_column("count", f"{sum(p.count for p in found):,}", justify="right")
    for each in found:
        shape = " x ".join(map(str, each.shape)) or "scalar"
        table.add_row(each.path if each.trainable else f"{each.path} (buffer)", shape, f"{each.count:,}")
        for name in each.ties:
            table.add_row(f"{name} (tied to {each.path})", shape, "")
    return table


def _memory(run: str, found: Memory) -> Table:
    title = f"memory of {run}: {found.rows} rows at a time, {found.precision}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("", "peak, about")
    table.add_column("", size(found.peak), justify="right")
    for name, label in LINES:
        taken = getattr(found, name)
        if taken:
            table.add_row(label, size(taken))
    return table


def _notes(found: Memory, fit: Fit | None) -> list[str]:
    notes = [f"sizes that only a run knows are taken as {', '.join(found.assumed)}"] if found.assumed else []
    if found.differentiated:
        notes.append("what the program's own `grad` keeps is estimated, rather too high than too low")
    return notes + (verdict(found, fit) if fit is not None else [])


def verdict(found: Memory, fit: Fit) -> list[str]:
    """Whether a run fits, and what would."""
    limit, taken = size(fit.limit), f"{size(found.peak)} and the {size(RESERVED)} of the driver and libraries"
    if fit.fits:
        return [f"fits in {limit}: {taken}"]
    told = [f"does not fit in {limit}: {taken}"]
    if fit.accumulate is not None:
        return [*told, f"with `accumulate = {fit.accumulate}` it would: --set accumulate={fit.accumulate}"]
    if not fit.possible:
        return [*told, "the loss is not a mean over rows, so the batch can't be computed in parts: make it smaller"]
    return [*told, "not even a row at a time would: make the model smaller"]


def size(n: int) -> str:
    found = float(n)
    for unit in ("B", "KiB", "MiB"):
        if found < 1024:
            return f"{found:.0f} {unit}" if unit == "B" else f"{found:.1f} {unit}"
        found /= 1024
    return f"{found:.2f} GiB"


def to_json(unit: Unit, plans: dict[str, Plan], diagnostics: Sequence[Diagnostic]) -> str:
    """An object: each run's models by name, their parameters, and its memory in bytes."""
    return json.dumps(
        {
            "diagnostics": json.loads(diagnostics_to_json(diagnostics)),
            "runs": {
                run: {
                    "models": {name: _parameters(parameters(unit, member)) for name, member in found.items()},
                    **(_plan(*plans[run]) if run else {}),
                }
                for run, found in models(unit).items()
            },
        },
        indent=1,
    )


def _parameters(found: Sequence[ParameterInfo]) -> list[dict[str, object]]:
    return [
        {
            "name": p.path,
            "shape": p.shape,
            "dims": p.dims,
            "count": p.count,
            "trainable": p.trainable,
            "ties": p.ties,
        }
        for p in found
    ]


def _plan(found: Memory, fit: Fit | None) -> dict[str, object]:
    told: dict[str, object] = {"memory": {**asdict(found), "peak": found.peak}}
    return told if fit is None else {**told, "fit": asdict(fit)}
