"""What commands share: the program that they are about, its mistakes, its settings, the run that is meant."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdsl.compiler.build.unit import Unit
    from tdsl.dsl.diagnostics import Diagnostic

# Settings of the program that are options of their own.
SHORTHANDS = ("epochs", "steps", "seed")
# The name on the command line, and in messages, of a program that comes by the standard input.
STDIN, STDIN_NAME = "-", "<stdin>"


class Stop(Exception):
    """The command ends here, with this status; what there is to say has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def complain(message: str) -> None:
    """Say what is wrong with the command line, or outside the program."""
    print(f"tdsl: {message}", file=sys.stderr)


def overrides(options: Namespace) -> dict[str, str]:
    """`--set KEY=VALUE` and its shorthands."""
    found: dict[str, str] = {}
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals:
            complain(f"--set takes KEY=VALUE, not {text!r}")
            raise Stop(2)
        found[key.strip()] = value.strip()
    for name in SHORTHANDS:
        if getattr(options, name) is not None:
            found[name] = getattr(options, name)
    return found


def read_stdin() -> str:
    """The text that comes by the standard input."""
    return sys.stdin.buffer.read().decode("utf-8", "replace").replace("\r\n", "\n")


def load(file: str, options: Namespace, told: list[Diagnostic] | None = None) -> Unit | None:
    """The program as IR; its mistakes are printed (or collected in `told`), and None returned, where it has any."""
    from tdsl.compiler.driver import read

    text = read_stdin() if file == STDIN else None
    name = STDIN_NAME if file == STDIN else file
    unit, diagnostics = read(name, text=text, allow_outside=options.allow_outside, overrides=overrides(options))
    if told is not None:
        told += diagnostics
    else:
        tell(diagnostics, options)
    return unit


def tell(diagnostics: Sequence[Diagnostic], options: Namespace) -> None:
    """Print mistakes: to standard error as text, to standard output as JSON."""
    from tdsl.dsl.render import render, to_json

    if options.format == "json":
        print(to_json(diagnostics))
    elif diagnostics:
        color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        print(render(diagnostics, color=color), file=sys.stderr)


def program(options: Namespace) -> Unit:
    """The program as IR; the command ends where it has mistakes."""
    unit = load(options.file, options)
    if unit is None:
        raise Stop(2)
    return unit


def chosen(unit: Unit, name: str | None, needed: bool, how: str = "") -> str | None:
    """The run that a command is about; `how` one is named, where not after the file."""
    if name is not None and name not in unit.runs:
        from tdsl.dsl.names import did_you_mean

        complain(f"no run `{name}`; {did_you_mean(name, unit.runs) or f'there are: {_listed(unit)}'}")
        raise Stop(2)
    if name is None and len(unit.runs) > 1:
        complain(f"the file has several runs; name one of: {_listed(unit)}{how}")
        raise Stop(2)
    if name is None and needed and not unit.runs:
        complain("the file declares no run: write `train NAME { ... }`")
        raise Stop(2)
    return name or next(iter(unit.runs), None)


def _listed(unit: Unit) -> str:
    return ", ".join(unit.runs) or "none"


def write_project(unit: Unit, name: str | None, folder: Path, options: Namespace, standalone: bool = False) -> None:
    """Run the passes, and emit into a folder."""
    from tdsl.compiler import pipeline
    from tdsl.compiler.driver import write

    unit = pipeline.run(unit, name=name)
    try:
        write(unit, name, folder, Path(options.file), standalone=standalone, allow_outside=options.allow_outside)
    except OSError as error:
        complain(f"can't write {error.filename}: {error.strerror}")
        raise Stop(1) from None
