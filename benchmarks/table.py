"""The one table of a run: a row a case, in it a line a candidate."""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.results import Found, Measured, Results

# What went wrong is in the JSON in full.
LONGEST_NOTE = 60
Cell = Callable[[Found, Measured], str]


def show(results: Results) -> None:
    """Print what was found, and what is wrong with it."""
    table = Table(title=_title(results), title_justify="left", show_lines=True)
    table.add_column("row", justify="right")
    table.add_column("what", max_width=34)
    for name, left, _ in COLUMNS:
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for case in results.found:
        lines = [Text("\n".join(cell(case, each) for each in case.measured)) for _, _, cell in COLUMNS]
        table.add_row(str(case.row), _what(case), *lines)
    Console(width=None if os.isatty(1) else 200).print(table)
    for row, state in results.rows.items():
        if state != "done":
            print(f"row {row}: {state}")
    for problem in results.problems():
        print(f"PROBLEM: {problem}")


def _title(results: Results) -> str:
    told = [f"{key} {value}" for key, value in results.machine.items() if value and key in ("gpu", "torch", "triton")]
    if results.ceilings:
        copied, product = results.ceilings["copy"] / 1e12, results.ceilings["matrix"] / 1e12
        told.append(f"measured: copy {copied:.2f} TB/s, bf16 product {product:.0f} TFLOP/s")
    return " · ".join(told)


def _what(case: Found) -> str:
    floor = f"floor {case.floor_ms:.3g} ms, " if case.floor_ms else ""
    return f"{case.title}\n{floor}took {case.seconds:.0f} s"


def _ms(case: Found, each: Measured) -> str:
    return each.status if each.device_ms is None else f"{each.device_ms:.4g}"


def _spread(case: Found, each: Measured) -> str:
    return "" if each.spread is None else f"{each.spread:.1%}"


def _host(case: Found, each: Measured) -> str:
    return "" if each.host_ms is None else f"{each.host_ms:.3g}"


def _share(case: Found, each: Measured) -> str:
    return f"{case.floor_ms / each.device_ms:.0%}" if case.floor_ms and each.device_ms else ""


def _against(case: Found, each: Measured) -> str:
    ours = next((one.device_ms for one in case.measured if one.ours and one.device_ms is not None), None)
    return f"{each.device_ms / ours:.2f}x" if ours and each.device_ms else ""


def _memory(case: Found, each: Measured) -> str:
    return "" if each.memory is None else f"{each.memory / 2**30:.2f} GiB"


def _error(case: Found, each: Measured) -> str:
    return "" if each.error is None else f"{each.error:.2f}"


def _note(case: Found, each: Measured) -> str:
    if case.per_call and each.device_ms:
        return f"{case.per_call / each.device_ms * 1e3:,.0f} {case.unit}/s"
    return each.why if len(each.why) <= LONGEST_NOTE else each.why[: LONGEST_NOTE - 1] + "…"


# Heading, whether to the left, and what stands there. Times are the device's unless said; "to tdsl" is a time over
# ours; "error" is over what is allowed.
COLUMNS: tuple[tuple[str, bool, Cell], ...] = (
    ("candidate", True, lambda case, each: each.name),
    ("ms", False, _ms),
    ("±", False, _spread),
    ("host ms", False, _host),
    ("of floor", False, _share),
    ("to tdsl", False, _against),
    ("memory", False, _memory),
    ("error", False, _error),
    ("", True, _note),
)
