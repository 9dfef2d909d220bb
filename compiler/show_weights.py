"""What `tdsl diff` has found, as a terminal shows it, and as JSON."""

from __future__ import annotations

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tdsl.compiler import terminal
from tdsl.compiler.weights import Difference, Entry, Row

WHY = {
    "shape": "another shape",
    "missing": "not in the checkpoint",
    "extra": "not in the program",
}


def show(found: Difference, console: Console | None = None) -> None:
    """A table of what does not load, and a line of how much does."""
    console = console or terminal.console()
    wrong = [row for row in found.rows if row.what != "loads"]
    if wrong:
        table = Table(
            title=f"{found.checkpoint} into {found.program}: {found.model}", title_justify="left", box=box.SIMPLE_HEAD
        )
        for head in ("weight", "in the checkpoint", "in the program", "why it does not load"):
            table.add_column(head, overflow="fold")
        for row in wrong:
            table.add_row(row.name, _shape(row.old), _shape(row.new), _why(row))
        console.print(table)
    console.print(_sum(found), highlight=False)


def _shape(entry: Entry | None) -> str:
    return "" if entry is None else str(entry)


def _why(row: Row) -> str:
    return f"likely called {row.was} before" if row.what == "renamed" else WHY[row.what]


def _sum(found: Difference) -> str:
    loaded = sum(row.what == "loads" for row in found.rows)
    lines = [f"{loaded} of {sum(row.new is not None for row in found.rows)} weights of the program load"]
    extra = sum(row.what == "extra" for row in found.rows)
    lines += [f"{extra} of the checkpoint are left over"] * (extra > 0)
    lines += [f"of {', '.join(found.unknown)} nothing is known: it is Python's"] * bool(found.unknown)
    return "; ".join(lines)


def to_json(found: Difference) -> str:
    """An object: what was compared, whether it loads, and a row a weight."""
    rows = [_row(row) for row in found.rows]
    told = {"checkpoint": found.checkpoint, "program": found.program, "model": found.model, "loads": found.loads}
    return json.dumps({**told, "unknown": list(found.unknown), "weights": rows}, indent=2)


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name, "what": row.what}
    found |= {"was": row.was} if row.was else {}
    for side, entry in (("checkpoint", row.old), ("program", row.new)):
        if entry is not None:
            found[side] = {"shape": list(entry.shape), "dims": list(entry.dims)}
    return found
