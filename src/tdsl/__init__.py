"""A small declarative language for neural networks, and its compiler.

`check` and `compile` are the commands of the same names; neither imports torch.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdsl.dsl.diagnostics import Diagnostic

__version__ = "0.1.0"
__all__ = ["CompileError", "__version__", "check", "compile"]


class CompileError(Exception):
    """A program has mistakes: `diagnostics` holds them, the message shows them."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        from tdsl.dsl.render import render

        super().__init__(render(diagnostics))
        self.diagnostics = diagnostics


def check(file: str | PathLike[str]) -> list[Diagnostic]:
    """All that is to be said of a program: errors and warnings, in the order found. Empty where it is fine."""
    from tdsl.compiler.driver import read

    return read(Path(file))[1]


def compile(
    file: str | PathLike[str], out: str | PathLike[str], *, run: str | None = None, standalone: bool = False
) -> None:
    """Emit a program's project into the folder `out`. `run` names the run, where there are several.

    Raises `CompileError` where the program has mistakes, `ValueError` where there is no such run.
    """
    from tdsl.compiler import driver, pipeline

    unit, diagnostics = driver.read(Path(file))
    if unit is None:
        raise CompileError(diagnostics)
    if (run is None and len(unit.runs) > 1) or (run is not None and run not in unit.runs):
        raise ValueError(f"run must be one of {', '.join(unit.runs)}")
    name = run if run is not None else next(iter(unit.runs), None)
    driver.write(pipeline.run(unit, name=name), name, Path(out), Path(file), standalone=standalone)
