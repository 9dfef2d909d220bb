"""An explanation as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from tdsl.compiler import terminal
from tdsl.compiler.explain.model import Cost, Explanation, Part, PartKind, Table, Unfused
from tdsl.dsl.diagnostics import Span

STYLES = {PartKind.KERNEL: "green", PartKind.MODULE: "cyan", PartKind.VIEW: "dim", PartKind.CALL: ""}
NUMBERS = ("bytes\nfwd", "bytes\nbwd", "saved by\nfusing", "FLOPs\nfwd", "kept for\nbackward")
# What stands in the place of FLOPs where kernels were compiled, and marks one that spills.
REGISTERS, SPILLS = "regs\nfwd/bwd", "!"
# Characters of the widest number, of a line's number, and of the least of a source line that tells it.
NUMBER, LINE, SOURCE = 8, 4, 20
KERNEL, AGAIN = "\u25a0 ", "\u2033 "


def show(found: Explanation, console: Console | None = None) -> None:
    """Each module, what did not fuse, what a step comes to."""
    console = console or terminal.console()
    widths = _widths(found, console.width)
    for table in found.tables:
        console.print(_table(table, found, widths))
    if found.unfused:
        console.print(_unfused(found.unfused, found.file))
    for line in _end(found):
        console.print(line, highlight=False)


def _widths(found: Explanation, room: int) -> tuple[int, int, int]:
    """Of the columns of text, the same in each table: lines, source, what computes them."""
    parts = [part for table in found.tables for part in table.parts]
    spans = [span for part in parts for span in part.spans]
    lines = max((len(_where(s, found.file)[0]) for s in spans), default=LINE)
    # Between columns, and at both edges, stands a space.
    left = room - max(lines, LINE) - len(NUMBERS) * NUMBER - len(NUMBERS) - 4
    source = max((len(_where(s, found.file)[1]) for s in spans), default=SOURCE)
    label = min(max((len(_label(p)) for p in parts), default=0), left - min(source, max(SOURCE, left // 2)))
    return lines, max(min(source, left - label), SOURCE), label


def _grid(title: str) -> Grid:
    return Grid(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)


def _table(table: Table, found: Explanation, widths: tuple[int, int, int]) -> Grid:
    times = f"  \u00d7 {table.calls}" if table.calls > 1 else ""
    grid = _grid(f"{table.title}({table.sizes}){times}" if table.module else f"{table.title}, {table.sizes}")
    grid.show_footer = True
    line, source, label = widths
    grid.add_column("line", "", justify="right", style="dim", no_wrap=True, width=max(line, LINE))
    grid.add_column("source", "", no_wrap=True, width=source)
    grid.add_column("kernel or call", "one call" if table.calls > 1 else "total", no_wrap=True, width=label)
    names = [REGISTERS if found.target and name.startswith("FLOPs") else name for name in NUMBERS]
    for name, value in zip(names, _numbers(table.cost, "" if found.target else None)):
        grid.add_column(name, value, justify="right", no_wrap=True, width=NUMBER)
    last: tuple[str, str] = ("", "")
    for part in _shown(table.parts):
        for i, span in enumerate(part.spans or (None,)):
            where = _where(span, found.file)
            text = Text(_label(part), STYLES[part.kind]) if i == 0 else Text(f"{AGAIN}{part.name}", "dim")
            shown = i == 0 and part.kind is not PartKind.VIEW
            registers = _registers(part) if found.target else None
            numbers = _numbers(part.cost, registers) if shown else [""] * len(NUMBERS)
            grid.add_row(*map(Text, ("", "") if where == last else where), text, *numbers)
            last = where
    return grid


def _label(part: Part) -> str:
    name = f"{KERNEL}{part.name}" if part.kind is PartKind.KERNEL else part.name
    return f"{name} ({part.note})" if part.note else name


def _shown(parts: Sequence[Part]) -> list[Part]:
    """Views beside nothing else on their line are shown together, others not at all."""
    busy = {_key(p) for p in parts if p.kind is not PartKind.VIEW}
    found: list[Part] = []
    for part in parts:
        if part.kind is not PartKind.VIEW:
            found.append(part)
        elif _key(part) not in busy:
            busy.add(_key(part))
            names = ", ".join(p.name for p in parts if p.kind is PartKind.VIEW and _key(p) == _key(part))
            found.append(Part(names, PartKind.VIEW, part.spans, part.cost))
    return found


def _key(part: Part) -> tuple[tuple[str, int], ...]:
    return tuple((s.source.name, s.line) for s in part.spans)


def _where(span: Span | None, file: str) -> tuple[str, str]:
    if span is None:
        return "", ""
    name = Path(span.source.name).name
    line = str(span.line) if name == file else f"{name}:{span.line}"
    return line, span.source.line(span.line).strip()


def _numbers(cost: Cost, registers: str | None) -> list[str]:
    fourth = count(cost.flops) if registers is None else registers
    found = [size(cost.forward), size(cost.backward), size(cost.saved), fourth, size(cost.kept)]
    return ["" if each in ("0", "0 B") else each for each in found]


def _registers(part: Part) -> str:
    """Of a kernel forward and backward, with a mark where it spills."""
    if part.registers is None:
        return ""
    sides = [str(n) for n in (part.registers.forward, part.registers.backward) if n is not None]
    return "/".join(sides) + SPILLS * bool(part.registers.spilled)


def _unfused(found: Sequence[Unfused], file: str) -> Grid:
    grid = _grid("not fused")
    grid.padding = (0, 1, 0, 0)
    for name in ("module", "line"):
        grid.add_column(name, style="dim", no_wrap=True)
    grid.add_column("operations", ratio=2)
    grid.add_column("why", ratio=3)
    before = ""
    for each in found:
        module = each.module or "loss"
        lines = ", ".join(_where(span, file)[0] for span in each.spans)
        grid.add_row("" if module == before else module, lines, each.operations, each.why)
        before = module
    return grid


def _end(found: Explanation) -> list[str]:
    cost = found.cost * found.passes
    what = f"A training step of {found.run}" if found.run else "One pass forward and backward"
    passes = f" ({found.passes} passes forward and backward)" if found.passes > 1 else ""
    moved = f"{size(cost.forward)} forward, {size(cost.backward)} backward"
    lines = []
    if cost.moved:
        lines += [
            f"{what}, {found.precision}{passes}:",
            f"  bytes moved   {moved}; each operation alone: {size(cost.moved + cost.saved)}",
            f"  FLOPs         {count(cost.flops)} forward, {count(cost.flops_backward)} backward",
            f"  kept          {size(found.cost.kept)} for the backward, beside parameters and batch",
        ]
    if found.assumed:
        lines.append(f"Sizes that only a run knows are assumed: {', '.join(found.assumed)}.")
    lines.append(f"{KERNEL}marks a fused kernel. A module's row has all that is within it.")
    lines.append("A tensor counts once for each kernel or call that reads or writes it.")
    return [*lines, *_compiled(found)]


def _compiled(found: Explanation) -> list[str]:
    """What registers are of, and which kernels spill; or how to come by them."""
    if not found.target:
        return [f"Registers of each kernel: tdsl explain {found.file} --registers"]
    parts = {p.name: p.registers for table in found.tables for p in table.parts if p.registers is not None}
    spills = [f"{name} {registers.spilled} bytes" for name, registers in parts.items() if registers.spilled]
    lines = [f"Registers are those of a thread on {found.target}, forward and backward."]
    return lines + [f"{SPILLS} marks a kernel that spills: {', '.join(spills)}."] * bool(spills)


def size(n: int) -> str:
    """Bytes in the largest fitting unit."""
    return _scaled(n, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def count(n: int) -> str:
    """A number in thousands, millions and so on."""
    return _scaled(n, 1000, ("", " k", " M", " G", " T", " P"))


def _scaled(n: int, step: int, units: Sequence[str]) -> str:
    value, unit = float(n), 0
    while abs(value) >= step and unit < len(units) - 1:
        value, unit = value / step, unit + 1
    return f"{value:.0f}{units[unit]}" if unit == 0 or abs(value) >= 100 else f"{value:.1f}{units[unit]}"
