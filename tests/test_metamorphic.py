"""Programs written in another way that mean the same compute the same."""

from __future__ import annotations

import random

from tests.helpers import ROOT, built, python
from tests.metamorphic import drawn, moved, redeclared, renamed, with_identities
from tests.random_programs_data import Program
from tests.random_programs_text import LIBRARY


def test_other_ways_to_write_a_program_compute_the_same() -> None:
    ran = python("-m", "tests.metamorphic", "40", "3", "-n", "2", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
    assert ", 0 mismatches" in ran.stdout


def _whole(programs: list[Program]) -> str:
    return LIBRARY + "".join(p.text() for p in programs)


def test_they_are_other_texts() -> None:
    programs, draw = drawn(12, 1), random.Random(0)
    text = _whole(programs)
    others = [renamed(text), redeclared(text, draw), _whole([moved(p, draw) for p in programs])]
    others.append(_whole([with_identities(p, draw) for p in programs]))
    assert len({text, *others}) == 5
    for other in others:
        built(other)


def test_a_moved_statement_stays_after_what_it_reads() -> None:
    for program in drawn(12, 2):
        made = {n for n, _ in program.inputs} | {n for n, _ in program.params}
        for statement in moved(program, random.Random(1)).statements:
            assert set(statement.operands) <= made
            made.add(statement.name)
