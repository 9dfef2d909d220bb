"""From a file to IR, and from IR to a folder: what the commands and the Python interface share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tdsl.compiler.build.program import build
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.build.values import Observer
from tdsl.compiler.lints import lint, permitted
from tdsl.compiler.probe import probe
from tdsl.dsl.diagnostics import Diagnostic, Reporter
from tdsl.dsl.program import Program
from tdsl.dsl.resolve import load


def read(
    file: str | Path,
    *,
    text: str | None = None,
    allow_outside: bool = False,
    overrides: Mapping[str, str] | None = None,
) -> tuple[Unit | None, list[Diagnostic]]:
    """A program as IR, and all that is to be said of it; None where any of that is an error.

    `text` stands in for the content of `file`.
    """
    program, reporter = load(
        str(file), text=text, probe=probe, allow_outside=allow_outside, overrides=overrides or None
    )
    unit = checked(program, reporter) if program is not None else None
    return None if reporter.errors else unit, reporter.diagnostics


def checked(program: Program, reporter: Reporter, observe: Observer | None = None) -> Unit | None:
    """A resolved program as IR, all that is to be said of it in `reporter`; `observe` is that of `build`."""
    unit = build(program, reporter, observe)
    if unit is not None:
        _unsupported(unit, reporter)
    if unit is not None and not reporter.errors:
        lint(unit, reporter)
    reporter.diagnostics[:] = permitted(reporter.diagnostics, program)
    return unit


def _unsupported(unit: Unit, reporter: Reporter) -> None:
    """What the language has and this version can't run is an error, never ignored."""
    from tdsl.compiler import trainable
    from tdsl.compiler.emit import data, evaluate, predict

    for spec in unit.program.data.values():
        for diagnostic in data.unsupported(spec, unit.program.consts):
            reporter.add(diagnostic)
    for name, run in unit.runs.items():
        evaluation = unit.evaluations.get(name)
        found = trainable.unsupported(unit, run) + evaluate.unsupported(unit, run, evaluation)
        for diagnostic in found + predict.unsupported(evaluation):
            reporter.add(diagnostic)


def write(
    unit: Unit,
    run: str | None,
    folder: Path,
    source: Path,
    *,
    standalone: bool = False,
    allow_outside: bool = False,
) -> None:
    """Emit a program, after its passes, into a folder; `run` is the run whose scripts are emitted."""
    from tdsl.compiler.emit import project

    root = Path(os.path.relpath(source.resolve().parent, folder.resolve())).as_posix()
    files = project.emit(unit, project.Options(run, root, standalone, allow_outside))
    project.write(files, folder)
