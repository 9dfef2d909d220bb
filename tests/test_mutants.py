"""Faults planted in the compiler: each must be caught by a check of the project, or the checks are worth little.

One in four here; `python -m tests.mutants` plants them all, and tells which check catches which.
"""

from __future__ import annotations

import pytest

from tests.helpers import ROOT, compiled, emitted, python
from tests.mutants import KERNELS, MUTANTS, lax


def test_planted_faults_are_caught() -> None:
    ran = python("-m", "tests.mutants", "--every", "4", "--first", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
    planted = -(-len(MUTANTS) // 4)
    assert f"caught {planted} of {planted}" in ran.stdout
    assert "as it is: nothing to tell" in ran.stdout


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_fault_can_be_planted_and_leaves_no_trace(mutant: str) -> None:
    before = emitted(compiled(KERNELS))
    with MUTANTS[mutant]():
        pass
    assert emitted(compiled(KERNELS)) == before


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
