"""`tdsl new`: starter programs that run as they are, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tdsl.compiler.driver import read
from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.format import format_source
from tests.helpers import ROOT, tdsl

# The least that a starter's evaluation shows: of accuracy.
STARTERS = {"tabular": 0.85, "image": 0.9, "text": 0.8, "custom": 0.95}


def test_every_template_is_tested() -> None:
    assert sorted(path.name for path in (ROOT / "templates" / "new").iterdir()) == sorted(STARTERS)


@pytest.mark.parametrize("template", STARTERS)
def test_a_starter_runs_as_it_is(template: str, tmp_path: Path) -> None:
    made = tdsl("new", "mine", "--template", template, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "tdsl train mine.model" in made.stdout
    program = tmp_path / "mine" / "mine.model"
    unit, told = read(program)
    assert unit is not None
    assert told == []
    text = program.read_text(encoding="utf-8")
    assert format_source(Source(program.name, text), Reporter()) == text
    assert "tdsl evaluate mine.model" in text
    assert "starter" not in text
    for command in ("train", "evaluate"):
        ran = tdsl(command, "mine.model", "--device", "cpu", cwd=program.parent)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "warning" not in ran.stdout + ran.stderr
    (out,) = (program.parent / "runs").iterdir()
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert found["metrics"]["accuracy"] >= STARTERS[template]
    assert (out / "report.html").exists()
    (line,) = re.findall(r"^#     tdsl (predict .*)$", text, re.MULTILINE)
    ran = tdsl(*line.split(), "--device", "cpu", cwd=program.parent)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (program.parent / "told.csv").read_text(encoding="utf-8").startswith("row,")


def test_the_first_template_is_the_one_without_a_name(tmp_path: Path) -> None:
    assert tdsl("new", "a/b", cwd=tmp_path).returncode == 0
    text = (tmp_path / "a" / "b" / "b.model").read_text(encoding="utf-8")
    assert text == (ROOT / "templates" / "new" / "tabular" / "starter.model").read_text(encoding="utf-8").replace(
        "starter.model", "b.model"
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.model").write_text("const a = 1\n", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    for name in ("mine", "file"):
        ran = tdsl("new", name, cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (2, f"tdsl: {name} is there already; nothing was written\n")
    assert (tmp_path / "mine" / "mine.model").read_text(encoding="utf-8") == "const a = 1\n"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["mine.model"]


@pytest.mark.parametrize("name", ["a b", "net.model", "..", "", "a\nb", "a'b", "$(a)"])
def test_names_that_programs_can_not_have(name: str, tmp_path: Path) -> None:
    ran = tdsl("new", name, cwd=tmp_path)
    assert ran.returncode == 2
    assert "can't be the name of a program" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = tdsl("new", "file/mine", cwd=tmp_path)
    assert ran.returncode == 1
    assert "can't make file/mine" in ran.stderr
    assert "Traceback" not in ran.stderr
