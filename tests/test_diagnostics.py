"""How mistakes are told: rendering, JSON, and the table of codes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tdsl.compiler.probe import probe
from tdsl.dsl.codes import CODES
from tdsl.dsl.diagnostics import Diagnostic, Reporter, Source, Span
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.render import render, to_json
from tdsl.dsl.resolve import load

ROOT = Path(__file__).parent.parent


def at(text: str, part: str, **rest: object) -> Diagnostic:
    start = text.index(part)
    return Diagnostic("E203", "shapes do not match", Span(Source("net.model", text), start, start + len(part)), **rest)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with `points.csv`, and the same file outside of it."""
    inner = tmp_path / "program"
    inner.mkdir()
    rows = "\n".join(f"{i}.5,{i},{i},abc" for i in range(20))
    (inner / "points.csv").write_text(f"x,t,u,name\n{rows}\n")
    shutil.copy(inner / "points.csv", tmp_path)
    monkeypatch.chdir(inner)
    return inner


@pytest.mark.parametrize("code", [each for each in CODES.values() if each.example], ids=lambda each: each.code)
def test_examples_raise_their_code(code: object, folder: Path) -> None:
    assert hasattr(code, "example")
    (folder / "program.model").write_bytes(code.example.encode("utf-8", "surrogateescape"))
    _, reporter = load("program.model", probe=probe)
    assert [each.code for each in reporter.diagnostics] == [code.code]  # type: ignore[attr-defined]
    (found,) = reporter.diagnostics
    assert found.span is not None


def test_every_code_is_listed() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dsl").glob("*.py") if path.name != "codes.py")
    assert set(re.findall(r'"([EW]\d{3})"', text)) == CODES.keys()


def test_the_form_of_an_error() -> None:
    text = "\n" * 13 + "        return x + pool(x)\n"
    found = at(text, "x + pool(x)", label="float[B] and float[C]", notes=("`pool` halves",), help="pool both")
    assert render([found]) == (
        "error[E203]: shapes do not match\n"
        "  --> net.model:14:16\n"
        "   |\n"
        "14 |         return x + pool(x)\n"
        "   |                ^^^^^^^^^^^ float[B] and float[C]\n"
        "   |\n"
        "   = note: `pool` halves\n"
        "   = help: pool both\n"
    )


@pytest.mark.parametrize(
    ("line", "mark", "shown", "carets"),
    [
        ("\tx = bad", "bad", "    x = bad", "        ^^^"),
        ("a\tbad", "bad", "a   bad", "    ^^^"),
        ('"日本" + bad', "bad", '"日本" + bad', "         ^^^"),
        ("e\u0301 bad", "bad", "e\u0301 bad", "  ^^^"),
        ("\x1b[31m bad", "bad", "\ufffd[31m bad", "      ^^^"),
    ],
)
def test_carets_stand_under_what_is_meant(line: str, mark: str, shown: str, carets: str) -> None:
    lines = render([at(line, mark)]).splitlines()
    assert lines[3:5] == [f"1 | {shown}", f"  | {carets}"]


def test_a_span_of_several_lines_shows_its_ends() -> None:
    lines = render([at("a = f(1,\n  2,\n  3)\n", "f(1,\n  2,\n  3)", label="here")]).splitlines()
    assert lines[3:] == ["1 | a = f(1,", "  |     ^^^^", "...", "3 |   3)", "  |   ^^ here"]


def test_a_long_line_is_cut_around_the_mark() -> None:
    lines = render([at("x" * 5000 + "bad" + "y" * 5000, "bad")]).splitlines()
    assert len(lines[3]) < 140
    start = lines[4].index("^")
    assert lines[3][start : start + 3] == "bad"


def test_at_most_twenty_errors() -> None:
    source = Source("t.model", "x\n" * 30)
    found = [Diagnostic("E110", f"unknown {i}", Span(source, 2 * i, 2 * i + 1)) for i in range(23)]
    assert render(found).count("error[") == 20
    assert "3 more errors" in render(found)
    assert len(json.loads(to_json(found))) == 20


def test_color_changes_nothing_else() -> None:
    found = [at("a = bad", "bad", help="good")]
    assert re.sub(r"\033\[[0-9;]*m", "", render(found, color=True)) == render(found)


def test_json_has_the_fields_of_the_reference() -> None:
    (record,) = json.loads(to_json([at("a = 1\nb = bad\n", "bad", notes=("why",), help="cure")]))
    assert record == {
        "code": "E203", "severity": "error", "message": "shapes do not match", "file": "net.model",
        "line": 2, "column": 5, "end_line": 2, "end_column": 8, "notes": ["why"], "help": "cure",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "meant"),
    [("epohcs", "epochs"), ("Adamw", "AdamW"), ("optimiser", "optimizer"), ("q", None), ("zzzzz", None)],
)
def test_did_you_mean(word: str, meant: str | None) -> None:
    assert did_you_mean(word, ["epochs", "AdamW", "optimizer", "p"]) == (f"did you mean `{meant}`?" if meant else None)


def test_a_mistake_is_told_once() -> None:
    reporter = Reporter()
    for _ in range(2):
        reporter.add(at("bad", "bad"))
    assert len(reporter.diagnostics) == 1
