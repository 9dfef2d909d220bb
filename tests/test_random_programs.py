"""Random programs compute the same fused and unfused, in both directions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import ROOT, python
from tests.mutants import MUTANTS
from tests.random_programs import without
from tests.random_programs_data import Program, Statement, Type
from tests.random_programs_make import Taste, generate

SHAPE = Type("float", ("B", "D"))


def test_random_programs_agree_fused_and_unfused() -> None:
    ran = python("-m", "tests.random_programs", "300", "7", "-n", "2", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
    assert "programs, 0 mismatches" in ran.stdout


def test_a_seed_gives_the_same_programs() -> None:
    assert [p.text() for p in generate(20, 3)] == [p.text() for p in generate(20, 3)]
    assert [p.text() for p in generate(20, 3)] != [p.text() for p in generate(20, 4)]


def test_tastes_are_kept() -> None:
    smooth = "".join(p.text() for p in generate(60, 5, Taste(smooth=True)))
    assert not any(word in smooth for word in ("relu(", "abs(", "amax(", "clamp(", "where(x", "floor("))
    assert not any(
        word in "".join(p.text() for p in generate(60, 5, Taste(drawing=False))) for word in ("rand", "drop")
    )
    apart = generate(60, 5, Taste(rowwise=True))
    assert all(t.shape[0] == "B" for p in apart for _, t in p.inputs)
    assert not any("B" in t.shape[1:] for p in apart for t in p.types.values())


def test_a_shrunk_program_reads_what_came_before() -> None:
    a, b = (Statement(f"v{i}", "{name} = tanh({0})", (o,), SHAPE) for i, o in enumerate(("x0", "v0")))
    program = Program("P", (("x0", SHAPE),), (), (a, b), ("v1",))
    smaller = without(program, 0)
    assert smaller is not None
    assert smaller.statements == (Statement("v1", "{name} = tanh({0})", ("x0",), SHAPE),)
    smallest = without(program, 1)
    assert smallest is not None
    assert smallest.outputs == ("v0",)


SHRINK = """
import sys, tempfile, torch
from pathlib import Path
from tests.helpers import UNFUSED, compiled, graph_of
from tests.mutants import MUTANTS
from tests.random_programs import fails, shrunk
from tests.random_programs_make import generate
from tests.random_programs_run import check, source

torch.set_num_threads(1)
folder = Path(sys.argv[1])
with MUTANTS[sys.argv[2]]():
    programs = generate(12, 3)
    problems = check(programs, Path(tempfile.mkdtemp(dir=folder))).problems
    program = next(p for p in programs if p.name in problems and len(p.statements) > 4)
    small = shrunk(program, lambda p: fails(p, folder, False))
    graph = graph_of(compiled(source([small]), UNFUSED), small.name)
    print(small.text(), len(graph.nodes))
"""


@pytest.mark.parametrize("fault", ["the gradient of a difference has the wrong sign"])
def test_a_failure_shrinks_to_three_operations(fault: str, tmp_path: Path) -> None:
    (mutant,) = (m for m in MUTANTS if m.startswith(fault))
    ran = python("-c", SHRINK, tmp_path, mutant, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert int(ran.stdout.split()[-1]) <= 3, ran.stdout
