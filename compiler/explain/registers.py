"""Registers of the kernels of an explanation: each is compiled ahead of time, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.cases import case
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.explain.model import Explanation, Part, PartKind, Registers, Table

MODULE = "tdsl.runtime.registers"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
# A kernel, and the shapes that it is called with.
Call = tuple[str, tuple[tuple[int, ...], ...]]


class Uncompiled(Exception):
    """Kernels could not be compiled; the message says why."""


def with_registers(found: Explanation, unit: Unit, target: str, environment: Mapping[str, str]) -> Explanation:
    """The explanation of a program before its passes, with the registers of its kernels. Raises `Uncompiled`."""
    parts = [part for table in found.tables for part in table.parts if part.kind is PartKind.KERNEL]
    calls: list[Call] = list(dict.fromkeys((part.name, part.shapes) for part in parts))
    told = dict(zip(calls, _compiled(calls, found, unit, target, environment) if calls else (), strict=True))
    tables = tuple(_table(table, told) for table in found.tables)
    return replace(found, tables=tables, target=target)


def _table(table: Table, told: Mapping[Call, Registers]) -> Table:
    return replace(table, parts=tuple(_part(part, told) for part in table.parts))


def _part(part: Part, told: Mapping[Call, Registers]) -> Part:
    """A kernel whose gradient nobody needs has no backward."""
    registers = told.get((part.name, part.shapes))
    if registers is None or part.cost.backward:
        return replace(part, registers=registers)
    return replace(part, registers=replace(registers, backward=None))


def _compiled(
    calls: Sequence[Call], found: Explanation, unit: Unit, target: str, environment: Mapping[str, str]
) -> list[Registers]:
    groups = {group.name: group for group in pipeline.groups(pipeline.run(unit, name=found.run))}
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        Path(folder, "kernels.py").write_text(emit_kernels(list(groups.values()), found.file), encoding="utf-8")
        asked = [case(groups[name], shapes) for name, shapes in calls]
        Path(folder, "cases.json").write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "-m", MODULE, folder, "--target", target, "--dtype", found.precision]
        ran = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if ran.returncode:
        (*_, last) = ran.stderr.strip().splitlines() or [f"the process ended with status {ran.returncode}"]
        raise Uncompiled(last)
    return [_registers(each) for each in json.loads(ran.stdout)]


def _registers(told: Mapping[str, Mapping[str, int] | None]) -> Registers:
    forward, backward = (told[side] or {} for side in ("forward", "backward"))
    spilled = forward.get("spilled", 0) + backward.get("spilled", 0)
    return Registers(forward.get("registers"), backward.get("registers"), spilled)
