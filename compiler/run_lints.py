"""Lints of runs: what their settings and the calls in their models may say and hardly mean."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from tdsl.compiler.batch_rows import rows_as_time
from tdsl.compiler.build.unit import Unit
from tdsl.dsl.diagnostics import Diagnostic, Span
from tdsl.dsl.program import Call, DataSpec, TrainSpec

# Of a run's steps, the share that a running mean may reach back, and the share that is proposed.
LONGEST, USUAL = 0.25, 0.1
# Runs of fewer steps than this have nothing to average.
FEWEST = 20
# Sources whose rows are counted by reading them.
COUNTED_BY_READING = ("csv", "jsonl", "text")


def long_averages(unit: Unit) -> Iterator[Diagnostic]:
    """`ema = EMA(decay=0.999)` in a run of 500 steps: what is evaluated is mostly what the run began with."""
    for run in unit.runs.values():
        ema = run.spec.settings.get("ema")
        steps, why = _steps(run.spec, Path(unit.program.source.name).parent)
        if not isinstance(ema, Call) or steps is None:
            continue
        decay = ema.args.get("decay", 0.999)
        assert isinstance(decay, (int, float))
        remembered = 1 / (1 - decay) if decay < 1 else math.inf
        if remembered > LONGEST * steps:
            yield _long_average(ema, remembered, steps, why)


def rows_as_places(unit: Unit) -> Iterator[Diagnostic]:
    """`lstm(batch.x)` of x [B, T, ...] without `batch_first=true`: the rows of a batch are taken for one sequence."""
    told: set[Span | None] = set()
    for run in unit.runs.values():
        for node in rows_as_time(unit, run.models, run.loss):
            if node.span not in told:
                told.add(node.span)
                message = "the rows of the batch are taken for the places of a sequence"
                label = f"the layer takes [T, B, ...], and {node.values[0].type} has the rows first"
                help = "make the layer with `batch_first=true`"
                yield Diagnostic("W209", message, node.span, label, help=help)


def _long_average(ema: Call, remembered: float, steps: int, why: tuple[str, ...]) -> Diagnostic:
    message = f"the average reaches back about {remembered:,.0f} steps, and the run has {steps:,}"
    if remembered == math.inf:
        message = "the average never leaves what the run begins with"
    fits = 1 - float(f"{1 / (USUAL * steps):.1g}")
    help = (
        f"write `EMA(decay={fits:g})`, which reaches back about a tenth of the run"
        if steps >= FEWEST
        else "leave it out"
    )
    return Diagnostic("W304", message, ema.span, notes=why, help=help)


def _steps(run: TrainSpec, folder: Path) -> tuple[int | None, tuple[str, ...]]:
    """The steps of a run, and what they are counted from where they are not written; None where they are unknown."""
    steps, epochs, batch = (run.settings.get(name) for name in ("steps", "epochs", "batch_size"))
    if isinstance(steps, int):
        return steps, ()
    rows = _rows(run.data, folder)
    if rows is None or not isinstance(epochs, int) or not isinstance(batch, int):
        return None, ()
    share = run.data.split.args.get("train", 0.0) if run.data.split is not None else 1.0
    assert isinstance(share, (int, float))
    of_an_epoch = round(share * rows) / batch
    whole = math.floor(of_an_epoch) if run.data.settings.get("drop_last") else math.ceil(of_an_epoch)
    why = f"{epochs:,} epochs of {round(share * rows):,} rows, {batch:,} at a time"
    return (epochs * whole, (why,)) if whole else (None, ())


def _rows(data: DataSpec, folder: Path) -> int | None:
    """The rows of a source, where they are quickly counted."""
    from tdsl.compiler.probe import SOURCES, ProbeError, probe

    source = data.sources.get("source")
    if source is None or source.name not in SOURCES:
        return None
    try:
        found = probe(source.name, source.args, folder, allow_outside=True)
        return found.rows if source.name not in COUNTED_BY_READING or found.is_small(folder) else None
    except (ProbeError, OSError):
        return None
