"""Every code that the source speaks of has one record; what can't be emitted is told by `tdsl check`, with its code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tdsl.compiler import cli
from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.emit.codes import CODES as OF_EMISSION
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.codes import Code, run

ROOT = Path(__file__).parent.parent
TABLES = (OF_FRONT_END, OF_TYPES, OF_EMISSION)


def test_a_code_has_one_record() -> None:
    codes = [code for table in TABLES for code in table]
    assert len(codes) == len(set(codes))


def test_every_code_in_the_source_has_a_record() -> None:
    files = [
        path for folder in ("dsl", "compiler") for path in (ROOT / folder).rglob("*.py") if path.name != "codes.py"
    ]
    used = {code for path in files for code in re.findall(r'"([EW]\d{3})"', path.read_text(encoding="utf-8"))}
    assert used == {code for table in TABLES for code in table}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `points.csv` is."""
    (tmp_path / "points.csv").write_text("x,t,u,name\n" + "".join(f"{i}.5,{i},{i},a\n" for i in range(20)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", OF_EMISSION.values(), ids=lambda code: code.code)
def test_check_tells_what_cannot_be_emitted(code: Code, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "program.model").write_text(code.example)
    assert cli.main(["check", "program.model", "--format", "json"]) == 2
    errors = [each for each in json.loads(capsys.readouterr().out) if each["severity"] == "error"]
    assert [each["code"] for each in errors] == [code.code]
    assert errors[0]["line"] is not None


@pytest.mark.parametrize(
    ("option", "code"), [("batch-size=2", "E321"), ("batch_size=0", "E312"), ("optimizer.lrr=1", "E302")]
)
def test_options_are_checked_like_the_program(
    option: str, code: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "program.model").write_text(run("    epochs = 1"))
    assert cli.main(["check", "program.model", "--format", "json", "--set", option]) == 2
    assert [each["code"] for each in json.loads(capsys.readouterr().out)] == [code]
