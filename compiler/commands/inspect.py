"""`tdsl inspect`: parameters by name, shape and count, and the memory that training takes."""

from __future__ import annotations

from argparse import Namespace

from tdsl.compiler.commands.program import load


def run(options: Namespace) -> int:
    from tdsl.compiler.inspection import show

    unit = load(options.file, options)
    if unit is None:
        return 2
    show(unit)
    return 0
