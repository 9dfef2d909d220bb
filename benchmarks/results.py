"""What a run of the benchmark found: kept as JSON after every row, shown as one table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Names of what the compiler emits begin with this.
OURS = "tdsl"
# Ceilings are measured too: a figure that is better than its floor by more than this can't be right.
ALLOWANCE = 1.03


@dataclass
class Measured:
    """What came of one candidate. `status` is `timed`, `wrong`, `failed` or `skipped`; `why` tells of the last three.

    Times are medians in milliseconds, of the device and of the host until all is launched. `spread` is half the
    distance between the quartiles over the median, `memory` the bytes at most beyond the inputs, `error` the greatest
    error over what is allowed.
    """

    name: str
    status: str = "skipped"
    why: str = ""
    error: float | None = None
    device_ms: float | None = None
    spread: float | None = None
    host_ms: float | None = None
    memory: int | None = None
    calls: int = 0

    @property
    def ours(self) -> bool:
        return self.name.startswith(OURS)


@dataclass
class Found:
    """What came of one case of a row. `unit` is what a second of device time is divided into: 65,536 tokens a call."""

    row: int
    title: str
    floor_ms: float | None = None
    per_call: int | None = None
    unit: str = ""
    seconds: float = 0.0
    measured: list[Measured] = field(default_factory=list)

    def problems(self, floors: bool = True) -> Iterator[str]:
        """What makes the run fail: ours wrong or failed, or, with `floors`, a figure that can't be right."""
        for each in self.measured:
            where = f"row {self.row}, {self.title}, {each.name}"
            if each.ours and each.status in ("wrong", "failed"):
                yield f"{where}: {each.status}: {each.why}"
            if floors and self.floor_ms and each.device_ms is not None and each.device_ms * ALLOWANCE < self.floor_ms:
                yield f"{where}: {each.device_ms:.4g} ms is better than its floor: a bug of the benchmark"


@dataclass
class Results:
    """All that is known so far. `rows` has the state of each row: `running`, `done`, or why it is not."""

    path: Path
    machine: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    rows: dict[int, str] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def save(self) -> None:
        """Write the file anew; it is whole at any moment."""
        state = {
            "machine": self.machine,
            "ceilings": self.ceilings,
            "rows": {str(row): state for row, state in self.rows.items()},
            "cases": [asdict(each) for each in self.found],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, self.path)

    @classmethod
    def read(cls, path: Path) -> Results:
        state = json.loads(path.read_text(encoding="utf-8"))
        found = [
            Found(**{**each, "measured": [Measured(**one) for one in each["measured"]]}) for each in state["cases"]
        ]
        rows = {int(row): text for row, text in state["rows"].items()}
        return cls(path, state["machine"], state["ceilings"], rows, found)

    def problems(self) -> list[str]:
        floors = not self.machine.get("dry")
        told = [problem for each in self.found for problem in each.problems(floors)]
        broken = (f"row {row}: {state}" for row, state in self.rows.items() if state.startswith(("failed", "crashed")))
        return [*told, *broken]
