"""`tdsl check`: everything that can be said of a program without running it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from tdsl.compiler.commands.program import load, tell

if TYPE_CHECKING:
    from tdsl.dsl.diagnostics import Diagnostic


def run(options: Namespace) -> int:
    told: list[Diagnostic] = []
    found = [load(file, options, told) for file in options.files]
    tell(told, options)
    if options.format == "text" and all(found):
        print(f"{len(found)} file{'s' if len(found) != 1 else ''} checked: no errors")
    return 0 if all(found) else 2
