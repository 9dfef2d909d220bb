"""`tdsl train`, `evaluate` and `predict`: compile into the run's folder, then run the script with the line's rest."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
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
    command = [sys.executable, str(out / "emitted" / options.script), "--out", str(out), *options.rest]
    with _refusable(out) if options.script == "train.py" else nullcontext():
        write_project(unit, name, out / "emitted", options)
        env = {**os.environ, **importable(Path(options.file).parent)}
        return process.call(command, env=env, imports=True)


@contextmanager
def _refusable(out: Path) -> Iterator[None]:
    """Put the code of a trained run back where a start is refused within: the checkpoints are still of that code."""
    folder, accepted = out / "emitted", out / "program.model"
    trained = (out / "checkpoints").is_dir()
    files = {path: (path.read_bytes(), path.stat()) for path in _files(folder) if trained}
    before = _version(accepted)
    try:
        yield
    finally:
        # A run writes this file anew as it begins or goes on.
        if files and _version(accepted) == before:
            with suppress(OSError):  # a disk that is full has been told of
                for path in set(_files(folder)) - set(files):
                    path.unlink()
                for path, (content, was) in files.items():
                    _put_back(path, content, was)


def _put_back(path: Path, content: bytes, was: os.stat_result) -> None:
    if path.read_bytes() == content:
        return
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    # Its time, too: by that and the size Python tells whether what it has compiled is of this text.
    os.utime(aside, ns=(was.st_atime_ns, was.st_mtime_ns))
    aside.replace(path)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _version(path: Path) -> tuple[int, int] | None:
    """What changes where a file is written anew; None where there is none."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def importable(beside: Path | None = None) -> Mapping[str, str]:
    """Where other processes find `tdsl`, if this one was not installed but is on the path.

    And what lies `beside` a program: the Python modules that it has as `extern`.
    """
    places = [str(SOURCES)] if (SOURCES / "tdsl").is_dir() else []
    places += [str(beside.resolve())] if beside is not None else []
    return {"PYTHONPATH": os.pathsep.join([*places, *filter(None, (os.environ.get("PYTHONPATH", ""),))])}
