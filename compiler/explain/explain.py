"""Explain a program: what a training step of a run costs, or a module by itself."""

from __future__ import annotations

from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import RunIR, Unit
from tdsl.compiler.explain.body import Body, root
from tdsl.compiler.explain.model import Cost, Explanation, Table
from tdsl.compiler.explain.sizes import Sizes
from tdsl.compiler.explain.unfused import unfused
from tdsl.compiler.explain.walk import Walk
from tdsl.compiler.graph.build import roots
from tdsl.compiler.passes.lift_head import without_heads
from tdsl.compiler.passes.place_casts import LOW
from tdsl.compiler.recomputation import recomputed
from tdsl.compiler.size import Symbol

BATCH = Symbol("B")


def explain(
    unit: Unit, run: str | None = None, module: str | None = None, passes: tuple[pipeline.Pass, ...] = pipeline.PASSES
) -> Explanation:
    """A program before its passes, for one of its runs; with `module`, that module alone, as the run calls it.

    A file without runs is explained by the modules that no other uses.
    """
    after = without_heads(pipeline.run(unit, passes, name=run))
    precision = str(unit.runs[run].spec.settings.get("precision") or "f32") if run is not None else "f32"
    walk = Walk(after, 2 if precision in LOW else 4)
    tables = tuple(_run(walk, after.runs[run], recomputed(unit, unit.runs[run])) if run is not None else ())
    cost, times = (tables[0].cost, _accumulated(unit.runs[run])) if run is not None else (Cost(), 1)
    if module is not None:
        tables = tuple(t for t in tables if t.module == module)
    if not tables:
        tables = tuple(_modules(walk, after, module))
        cost, times = sum((t.cost for t in tables if t.calls == 1 and run is None), Cost()), 1
    shown = {t.module for t in tables}
    told = tuple(each for each in unfused(unit, run) if each.module in shown)
    name = Path(unit.program.source.name).name
    return Explanation(name, run, precision, tables, told, cost, times, tuple(walk.assumed), recomputed=walk.recomputed)


def _accumulated(run: RunIR) -> int:
    """How many passes forward and backward a step has."""
    found = run.spec.settings.get("accumulate")
    return found if isinstance(found, int) and found > 0 else 1


def _run(walk: Walk, run: RunIR, again: frozenset[str]) -> list[Table]:
    """The loss of a run, and below it all that it calls; `again` are modules that are computed twice."""
    batch = run.spec.settings.get("batch_size")
    known = {BATCH: max(batch // _accumulated(run), 1)} if isinstance(batch, int) else {}
    sizes = walk.complete(run.loss, Sizes(known))
    body = Body(walk, run.loss, sizes, walk.width, None, run.models, again)
    told = ", ".join(f"{symbol}={number}" for symbol, number in sizes.numbers.items())
    found = body.run(f"loss of {run.spec.name}", told, [False] * len(run.loss.inputs))
    return [Table(found.title, "", told, 1, found.parts), *walk.below(found.calls)]


def _modules(walk: Walk, unit: Unit, module: str | None) -> list[Table]:
    """Modules by themselves; one that is asked for as if its inputs carried gradients."""
    keys = {root(walk, member, carries=module is not None): 1 for _, member in roots(unit, module)}
    tables = list(walk.below(keys))
    return tables if module is None else tables[:1]
