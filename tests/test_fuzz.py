"""Five thousand malformed programs: each is answered, none by a traceback. `python -m tests.fuzz N` runs more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import fuzz

PROGRAMS, PARTS = 5000, 20


@pytest.mark.parametrize("part", range(PARTS))
def test_malformed_programs_are_answered(part: int) -> None:
    outcome = fuzz.some(PROGRAMS // PARTS, 1000 + part)
    assert outcome.failures == {}
    assert outcome.programs == PROGRAMS // PARTS


def test_programs_are_the_same_for_the_same_seed() -> None:
    assert fuzz.mutated(random.Random(7)) == fuzz.mutated(random.Random(7))


def test_what_breaks_a_rule_is_found_and_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer can fail: a planted fault is noticed, and its program cut down to what shows it."""
    path = fuzz.prepared(tmp_path)
    assert fuzz.check(b"const a = 1 // 0\n", path)[1] == ""

    def failing(file: str, **options: object) -> tuple[None, list[object]]:
        if b"culprit" in Path(file).read_bytes():
            raise RuntimeError("planted")
        return None, []

    monkeypatch.setattr(fuzz, "read", failing)
    program = b"module M() {\n    a = 1\n    culprit = 2\n}\n"
    _, problem = fuzz.check(program, path)
    assert problem.startswith("RuntimeError: planted")
    assert fuzz.minimised(program, path, problem) == b"culprit"
    assert fuzz.check(b"module M() { }", path)[1] == "neither built nor an error"
