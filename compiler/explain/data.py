"""An explanation as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from tdsl.compiler.explain.model import Cost, Explanation, Part, Table, Unfused
from tdsl.dsl.diagnostics import Diagnostic, Span
from tdsl.dsl.render import to_json as diagnostics_to_json


def to_json(found: Explanation, diagnostics: Sequence[Diagnostic]) -> str:
    """All that the text shows: bytes and FLOPs as plain numbers, sizes as they are told; and the program's warnings."""
    step = {**asdict(found.cost * found.passes), "kept": found.cost.kept, "copies": found.cost.copies}
    return json.dumps(
        {
            "file": found.file,
            "run": found.run,
            "precision": found.precision,
            "diagnostics": json.loads(diagnostics_to_json(diagnostics)),
            "assumed": list(found.assumed),
            "target": found.target or None,
            "modules": [_table(t) for t in found.tables],
            "unfused": [_unfused(u) for u in found.unfused],
            "passes": found.passes,
            "step": step,
        },
        indent=1,
    )


def _table(table: Table) -> dict[str, object]:
    parts = [_part(part) for part in table.parts]
    named = {"module": table.module, "title": table.title, "sizes": table.sizes, "calls": table.calls}
    return {**named, "parts": parts, "total": _cost(table.cost)}


def _part(part: Part) -> dict[str, object]:
    named = {"name": part.name, "kind": part.kind.value, "lines": _lines(part.spans), "note": part.note}
    compiled = {} if part.registers is None else {"registers": asdict(part.registers)}
    return {**named, **_cost(part.cost), **compiled}


def _cost(cost: Cost) -> dict[str, object]:
    return asdict(cost)


def _unfused(each: Unfused) -> dict[str, object]:
    return {"module": each.module, "operations": each.operations, "why": each.why, "lines": _lines(each.spans)}


def _lines(spans: Iterable[Span]) -> list[dict[str, object]]:
    return [{"file": s.source.name, "line": s.line, "source": s.source.line(s.line).strip()} for s in spans]
