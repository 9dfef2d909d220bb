"""Faults planted in the compiler: each must be caught by a check of the project, or the checks are worth little.

One in six here; `python -m tests.mutants` plants them all, and tells which check catches which.
"""

from __future__ import annotations

import inspect

import pytest

from tdsl.runtime import optim_kernels
from tests import mutants_structured
from tests.helpers import ROOT, compiled, emitted, python
from tests.lax import lax
from tests.mutants import KERNELS, MUTANTS, PLANTED
from tests.mutants_structured import ATTENTION, HEADS, LOSSES, NORMS, PIECES, ROPE, SPLIT, TABLES


def test_planted_faults_are_caught() -> None:
    ran = python("-m", "tests.mutants", "--every", "6", "--first", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
    planted = -(-len(PLANTED) // 6)
    assert f"caught {planted} of {planted}" in ran.stdout
    assert "as it is: nothing to tell" in ran.stdout


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_fault_can_be_planted_and_leaves_no_trace(mutant: str) -> None:
    before = emitted(compiled(KERNELS))
    with MUTANTS[mutant]():
        pass
    assert emitted(compiled(KERNELS)) == before


def test_faults_of_structured_kernels_leave_no_trace() -> None:
    programs = (LOSSES, HEADS, NORMS, ATTENTION, ROPE, SPLIT, TABLES, PIECES)
    before = [emitted(compiled(program)) for program in programs]
    kept = inspect.getsource(optim_kernels)
    for each in mutants_structured.MUTANTS.values():
        for plant in each.values():
            with plant():
                pass
    assert [emitted(compiled(program)) for program in programs] == before
    assert inspect.getsource(optim_kernels.adam.fn) in kept


@pytest.mark.parametrize(
    "line",
    [
        "x = tl.load(x_ptr + offsets, mask=mask)",
        "tl.store(y_ptr + rows, y)",
        "    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)",
    ],
)
def test_lax_lines_are_found(line: str) -> None:
    assert lax({"kernels.py": f"def f():\n    {line}\n"})
