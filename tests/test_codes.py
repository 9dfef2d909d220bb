"""Every code has a record, every record's example raises its code, and the reference lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tdsl.compiler import cli
from tdsl.compiler.codes import CODES as OF_COMPILER
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.codes import Code
from tdsl.dsl.diagnostics import Diagnostic

ROOT = Path(__file__).parent.parent
CODES = {**OF_FRONT_END, **OF_COMPILER}
# A code that only an option raises.
OPTIONS = {"E321": ["--set", "learning_rate=1"]}
RUN = OF_FRONT_END["E303"].example.replace("seed = 1", "epochs = 1")


def test_no_code_has_two_records() -> None:
    assert not OF_FRONT_END.keys() & OF_COMPILER.keys()


def test_every_code_in_the_source_has_a_record() -> None:
    files = [path for folder in ("dsl", "compiler") for path in sorted((ROOT / folder).rglob("*.py"))]
    used = {
        code
        for path in files
        if path.name != "codes.py"
        for code in re.findall(r'"([EW]\d{3})"', path.read_text(encoding="utf-8"))
    }
    assert used == CODES.keys()


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.code)
def test_the_example_raises_the_code(code: Code, tmp_path: Path) -> None:
    program = tmp_path / "program.model"
    program.write_bytes((code.example or RUN).encode("utf-8", "surrogateescape"))
    (tmp_path / "points.csv").write_text("x,t,u,name\n1,2,3,a\n4,5,6,b\n")
    found = told(program, OPTIONS.get(code.code, []))
    assert code.code in {each.code for each in found}
    assert all(each.span is not None for each in found if each.code != "E321")


def told(program: Path, options: list[str]) -> list[Diagnostic]:
    """What `tdsl check` tells of a program."""
    found: list[Diagnostic] = []
    parsed, _ = cli._parser().parse_known_args(["check", str(program), *options])
    cli.load(str(program), parsed, found)
    return found
