"""`tdsl inspect`: parameters by name, shape and count, and the memory that training takes."""

from __future__ import annotations

import subprocess
from argparse import Namespace
from typing import TYPE_CHECKING

from tdsl.compiler.commands.program import Stop, complain, load, tell

if TYPE_CHECKING:
    from tdsl.dsl.diagnostics import Diagnostic

# What `--memory` calls the GPU that is there.
DEVICE = "device"


def run(options: Namespace) -> int:
    from tdsl.compiler.inspection import show, to_json
    from tdsl.compiler.memory import fit, memory

    limit = None if options.memory is None else _limit(options.memory)
    told: list[Diagnostic] = []
    unit = load(options.file, options, told)
    if unit is None or options.format == "text":
        tell(told, options)
    if unit is None:
        return 2
    found = {name: memory(unit, name) for name in unit.runs}
    plans = {name: (each, None if limit is None else fit(unit, name, each, limit)) for name, each in found.items()}
    if options.format == "json":
        print(to_json(unit, plans, told))
    else:
        show(unit, plans)
    return 0


def _limit(text: str) -> int:
    from tdsl.compiler.memory import size_of

    found = _of_device() if text == DEVICE else size_of(text)
    if found is None:
        complain(f"--memory takes a size, such as 24GiB, or `{DEVICE}`; not {text!r}")
        raise Stop(2)
    return found


def _of_device() -> int:
    """The memory of the first GPU, as its driver tells it."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        return int(told.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        complain("no GPU tells its memory here: give a size, such as --memory 24GiB")
        raise Stop(2) from None
