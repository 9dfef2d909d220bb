"""`tdsl train`, `evaluate` and `predict`: compile into the run's folder, then run the script with the line's rest."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from tdsl.compiler.commands import process
from tdsl.compiler.commands.program import Stop, chosen, complain, program, write_project

SOURCES = Path(__file__).resolve().parent.parent.parent / "src"


def run(options: Namespace) -> int:
    unit = program(options)
    name = chosen(unit, options.run, needed=True)
    assert name is not None
    if options.script == "predict.py" and (name not in unit.evaluations or unit.evaluations[name].predict is None):
        complain(f"`{name}` does not say what to predict: write `evaluate {name} {{ predict(batch) {{ ... }} }}`")
        raise Stop(2)
    out: Path = options.out or Path(options.file).parent / "runs" / name
    write_project(unit, name, out / "emitted", options)
    command = [sys.executable, str(out / "emitted" / options.script), "--out", str(out), *options.rest]
    return process.call(command, env={**os.environ, **importable(Path(options.file).parent)})


def importable(beside: Path | None = None) -> Mapping[str, str]:
    """Where other processes find `tdsl`, if this one was not installed but is on the path.

    And what lies `beside` a program: the Python modules that it has as `extern`.
    """
    places = [str(SOURCES)] if (SOURCES / "tdsl").is_dir() else []
    places += [str(beside.resolve())] if beside is not None else []
    return {"PYTHONPATH": os.pathsep.join([*places, *filter(None, (os.environ.get("PYTHONPATH", ""),))])}
