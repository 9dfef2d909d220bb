"""Random programs compute the same fused and unfused, in both directions."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import ROOT, python
from tests.random_programs import Program, Statement, generate, without


def test_random_programs_agree_fused_and_unfused() -> None:
    ran = python("-m", "tests.random_programs", "60", "7", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
    assert "60 programs, 0 mismatches" in ran.stdout


def test_a_seed_gives_the_same_programs() -> None:
    assert [p.text() for p in generate(20, 3)] == [p.text() for p in generate(20, 3)]
    assert [p.text() for p in generate(20, 3)] != [p.text() for p in generate(20, 4)]


def test_a_shrunk_program_reads_what_came_before(tmp_path: Path) -> None:
    shape = ("B", "D")
    a, b = (Statement(f"v{i}", "{name} = tanh({0})", (o,), shape) for i, o in enumerate(("x0", "v0")))
    program = Program("P", (("x0", shape),), (), 4, True, (a, b), ("v1",))
    smaller = without(program, 0)
    assert smaller is not None
    assert smaller.statements == (Statement("v1", "{name} = tanh({0})", ("x0",), shape),)
    smallest = without(program, 1)
    assert smallest is not None
    assert smallest.outputs == ("v0",)
