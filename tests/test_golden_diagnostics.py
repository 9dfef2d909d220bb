"""Every diagnostic, word for word, as a terminal shows it and as JSON has it.

`pytest tests/test_golden_diagnostics.py --update-golden` writes them anew: read each as its user would.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.driver import read
from tdsl.compiler.emit.codes import CODES as OF_EMISSION
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.render import render, to_json

GOLDEN = Path(__file__).resolve().parent / "golden" / "diagnostics"
CODES = OF_FRONT_END | OF_TYPES | OF_EMISSION
EXAMPLES = {
    f"{code.code}{f'-{i + 1}' if i else ''}": example
    for code in CODES.values()
    for i, example in enumerate((code.example, *code.more))
    if example
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `points.csv`, and the same file outside of it."""
    inner = tmp_path / "program"
    inner.mkdir()
    rows = "x,t,u,name\n" + "".join(f"{i}.5,{i},{i},abc\n" for i in range(20))
    for place in (inner, tmp_path):
        (place / "points.csv").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(inner)
    return inner


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_diagnostic_is_told_as_it_was(name: str, folder: Path, update_golden: bool) -> None:
    (folder / "program.model").write_bytes(EXAMPLES[name].encode("utf-8", "surrogateescape"))
    _, found = read("program.model")
    assert {each.code for each in found} == {name[:4]}, render(found)
    assert len(found) == 1, render(found)
    assert found[0].help, "nothing says how to go on"
    told = {".txt": render(found), ".json": to_json(found) + "\n"}
    for suffix, text in told.items():
        golden = GOLDEN / f"{name}{suffix}"
        if update_golden:
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8"), golden.name


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(EXAMPLES)


def test_every_code_says_why_and_what_to_do() -> None:
    assert [code.code for code in CODES.values() if not (code.why and code.cure and code.title)] == []


def test_json_has_the_keys_of_the_reference_and_no_others() -> None:
    keys = {"code", "severity", "message", "file", "line", "column", "end_line", "end_column", "notes", "help"}
    for path in GOLDEN.glob("*.json"):
        (told,) = json.loads(path.read_text(encoding="utf-8"))
        assert told.keys() == keys, path.name
        assert told["severity"] == ("warning" if told["code"].startswith("W") else "error")
        assert (told["line"], told["column"]) < (told["end_line"], told["end_column"]), path.name
