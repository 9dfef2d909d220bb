"""A comparison as a terminal shows it, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from tdsl.compiler import terminal
from tdsl.compiler.explain.compare import CATEGORIES, PHASES, Comparison, Row
from tdsl.compiler.explain.show import size
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.render import to_json as diagnostics_to_json

OUTSIDE = "outside products and attention"
# Of the columns of numbers, by what they count.
WIDTHS = {
    "launches": {"eager": 6, "compiled": 8, "ratio": 6},
    "bytes": {"eager": 8, "compiled": 8, "ratio": 6},
}
PRECISIONS = {"f32": "in float32", "bf16": "under autocast to bfloat16", "f16": "under autocast to float16"}


def show(found: Comparison, operations: bool = False, console: Console | None = None) -> None:
    """A table of phases; with `operations` another of all that is launched."""
    console = console or terminal.console()
    console.print(_phases(found))
    if operations:
        console.print(_operations(found))
    console.print(_end(found), highlight=False)


def _grid(title: str, what: str) -> Grid:
    grid = Grid(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    grid.add_column(f"\n{what}", overflow="fold")
    for group, widths in WIDTHS.items():
        for side, width in widths.items():
            head = f"{group if side == 'compiled' else ''}\n{side}"
            grid.add_column(head, justify="right", no_wrap=True, width=width)
    return grid


def _phases(found: Comparison) -> Grid:
    """Each phase, and below it its categories where it has several; then the step."""
    grid = _grid(f"a training step of {found.run}: {found.rows} rows, {found.precision}", "")
    for phase in PHASES:
        grid.add_row(phase, *_numbers(found.total(phase)))
        parts = {category: found.total(phase, [category]) for category in CATEGORIES}
        launched = {category: row for category, row in parts.items() if row != Row()}
        for category, row in launched.items() if len(launched) > 1 else ():
            grid.add_row(f"  {category}", *_numbers(row), style="dim")
    grid.add_section()
    grid.add_row("the step", *_numbers(found.total()), style="bold")
    grid.add_row(OUTSIDE, *_numbers(found.outside), style="bold")
    return grid


def _operations(found: Comparison) -> Grid:
    grid = _grid("what is launched", "operator or kernel")
    for phase in PHASES:
        grid.add_row(phase, style="bold")
        for each in (o for o in found.operations if o.phase == phase):
            grid.add_row(f"  {each.name}", *_numbers(Row(each.eager, each.compiled)))
    return grid


def _numbers(row: Row) -> list[str]:
    launches, moved = (row.eager.launches, row.compiled.launches), (row.eager.bytes, row.compiled.bytes)
    return [*map(_count, launches), _ratio(*launches), *map(_size, moved), _ratio(*moved)]


def _count(n: int) -> str:
    return str(n) if n else ""


def _size(n: int) -> str:
    return size(n) if n else ""


def _ratio(eager: int, compiled: int) -> str:
    if not eager or not compiled:
        return ""
    ratio = eager / compiled
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def _end(found: Comparison) -> str:
    return (
        f"Eager is PyTorch as one writes it, {PRECISIONS[found.precision]}, with the optimizers of torch.optim. An "
        "operator, or a call of one on a list of tensors, is one launch. A tensor counts once for each launch that "
        "reads or writes it. The step is one that nothing is logged in."
    )


def to_json(found: Comparison, diagnostics: Sequence[Diagnostic]) -> str:
    """All that the text shows, as numbers."""
    phases = [
        {"phase": phase, **_sides(found.total(phase)), "categories": _categories(found, phase)} for phase in PHASES
    ]
    return json.dumps(
        {
            "file": found.file,
            "run": found.run,
            "precision": found.precision,
            "rows": found.rows,
            "diagnostics": json.loads(diagnostics_to_json(diagnostics)),
            "phases": phases,
            "step": _sides(found.total()),
            "outside": _sides(found.outside),
            "operations": [asdict(each) for each in found.operations],
        },
        indent=1,
    )


def _categories(found: Comparison, phase: str) -> dict[str, object]:
    return {category: _sides(found.total(phase, [category])) for category in CATEGORIES}


def _sides(row: Row) -> dict[str, object]:
    return asdict(row)
