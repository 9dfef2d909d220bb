"""`tdsl inspect` as a terminal shows it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tdsl.compiler.build.unit import ModuleMember, RunIR, Unit
from tdsl.compiler.inspect import Memory, memory, parameters


def show(unit: Unit) -> None:
    """Each run's models and memory; a file without runs, its classes that need no arguments."""
    console = Console()
    for run in unit.runs.values():
        for name, member in run.models.items():
            console.print(_table(unit, f"{run.spec.name}: {name} = {member.class_name}", member))
        console.print(_memory(run, memory(unit, run)))
    if not unit.runs:
        for ir in unit.modules:
            if not any(p.required for p in ir.params):
                console.print(_table(unit, ir.class_name, ModuleMember(ir.class_name, ())))


def _table(unit: Unit, title: str, member: ModuleMember) -> Table:
    table = Table(title=title, title_justify="left", show_footer=True)
    found = parameters(unit, member)
    table.add_column("parameter", "total")
    table.add_column("shape", justify="right")
    table.add_column("count", f"{sum(p.count for p in found):,}", justify="right")
    for each in found:
        shape = " x ".join(map(str, each.shape)) or "scalar"
        table.add_row(each.path if each.trainable else f"{each.path} (buffer)", shape, f"{each.count:,}")
    return table


def _memory(run: RunIR, found: Memory) -> Table:
    settings = run.spec.settings
    title = f"memory at batch size {settings.get('batch_size')}, {settings.get('precision') or 'f32'}"
    table = Table(title=title, title_justify="left")
    for name in ("parameters", "gradients", "optimizer", "activations, at most", "total"):
        table.add_column(name, justify="right")
    sizes = (found.parameters, found.gradients, found.optimizer, found.activations, found.total)
    table.add_row(*map(_bytes, sizes))
    return table


def _bytes(n: int) -> str:
    size = float(n)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
