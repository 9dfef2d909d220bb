"""Mistakes of a user's: each a located error with its code, exit status 2, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import tdsl

DATA = """data Points {
    source = csv("points.csv")
    split  = random(train=0.8, val=0.1, test=0.1, seed=0)
    field x: float[2] = columns("x*")
    field label: int[] = column("label")
}
"""
MODEL = """module Net(hidden: int = 4) {
    up   = Linear(2, hidden)
    down = Linear(hidden, 3)
    forward(x: float[B, 2]) -> float[B, 3] {
        return down(gelu(up(x)))
    }
}
"""
RUN = """train points {
    model = Net()
    data  = Points
    loss(batch) { return cross_entropy(model(batch.x), batch.label) }
    optimizer  = AdamW(lr=1e-3)
    epochs     = 2
    batch_size = 4
}
"""
GOOD = DATA + MODEL + RUN
ROWS = "x0,x1,label\n" + "".join(f"{i / 7},{i / 3},{i % 3}\n" for i in range(12))

# What is put for what, the code, and the text under the caret's start.
MISTAKES = {
    "missing file": ("Net()", "Net(hidden=Points.rows)", "E4", "Points.rows"),
    "wrong column": ('column("label")', 'column("labels")', "E4", '"labels"'),
    "no column matches": ('columns("x*")', 'columns("y*")', "E4", '"y*"'),
    "misspelt layer": ("Linear(2, hidden)", "Linaer(2, hidden)", "E1", "Linaer"),
    "misspelt function": ("gelu(up(x))", "gelo(up(x))", "E1", "gelo"),
    "misspelt variable": ("up(x)", "up(z)", "E1", "z"),
    "wrong shape": ("Linear(hidden, 3)", "Linear(hidden + 1, 3)", "E2", "down("),
    "wrong result": ("-> float[B, 3]", "-> float[B, 4]", "E2", ""),
    "lower-case size": ("x: float[B, 2]", "x: float[b, 2]", "E", "b, 2"),
    "wrong dtype": ("x: float[B, 2]", "x: int[B, 2]", "E2", ""),
    "loss of a tensor": ("cross_entropy(model(batch.x), batch.label)", "model(batch.x)", "E2", ""),
    "unknown key": ("epochs     = 2", "epoch      = 2", "E3", "epoch "),
    "unknown setting": ("batch_size = 4", "batchsize  = 4", "E3", "batchsize"),
    "unknown argument": ("AdamW(lr=1e-3)", "AdamW(lr=1e-3, momentum=0.9)", "E", "momentum"),
    "unknown optimizer": ("AdamW(", "AdamX(", "E", "AdamX"),
    "unknown field": ("batch.label", "batch.labels", "E", ""),
    "wrong kind": ("epochs     = 2", 'epochs     = "two"', "E3", '"two"'),
    "missing argument": ("Linear(2, hidden)", "Linear(2)", "E2", "Linear"),
    "too many arguments": ("gelu(up(x))", "tanh(up(x), 1, 2)", "E2", ""),
    "recursion": ("up   = Linear(2, hidden)", "up   = Net(2)", "E", "Net(2)"),
    "no return": ("return down(gelu(up(x)))", "y = down(gelu(up(x)))", "E2", ""),
    "unclosed brace": ("    batch_size = 4\n}\n", "    batch_size = 4\n", "E0", None),
    "unclosed string": ('csv("points.csv")', 'csv("points.csv)', "E0", None),
    "stray character": ("epochs     = 2", "epochs     = 2 ?", "E0", "?"),
    "keyword of Python": ("hidden: int = 4", "lambda: int = 4", "E", "lambda"),
    "huge integer": ("hidden: int = 4", "hidden: int = 99999999999999999999", "E0", "99999999999999999999"),
    "negative size": ("hidden: int = 4", "hidden: int = -4", "E2", ""),
    "twice declared": ("module Net(", "module Points() {\n}\nmodule Net(", "E1", ""),
}  # fmt: skip


def _check(folder: Path, text: str | bytes, *options: str) -> tuple[int, str, str]:
    if b"Points.rows" not in (text if isinstance(text, bytes) else text.encode()):
        (folder / "points.csv").write_text(ROWS)
    (folder / "net.model").write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = tdsl("check", *options, "net.model", cwd=folder)
    assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


def test_the_program_that_the_mistakes_are_planted_in_is_right(tmp_path: Path) -> None:
    status, out, err = _check(tmp_path, GOOD)
    assert (status, err) == (0, ""), out


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_located_error(mistake: str, tmp_path: Path) -> None:
    right, wrong, code, at = MISTAKES[mistake]
    assert GOOD.count(right) == 1
    text = GOOD.replace(right, wrong)
    status, out, _ = _check(tmp_path, text, "--format", "json")
    assert status == 2
    errors = [d for d in json.loads(out) if d["severity"] == "error"]
    first = next(d for d in errors if d["code"].startswith(code) and _text_at(text, d).startswith(at or ""))
    assert first.keys() >= set("code severity message file line column end_line end_column notes help".split())
    assert first["message"]
    assert Path(first["file"]).name == "net.model"
    assert first["line"] >= 1
    assert first["column"] >= 1


def _text_at(text: str, told: dict[str, int]) -> str:
    return "\n".join(text.split("\n")[told["line"] - 1 :])[told["column"] - 1 :]


@pytest.mark.parametrize("mistake", ["missing file", "misspelt layer", "wrong shape", "unclosed brace"])
def test_text_shows_the_place(mistake: str, tmp_path: Path) -> None:
    right, wrong, code, _ = MISTAKES[mistake]
    status, out, err = _check(tmp_path, GOOD.replace(right, wrong))
    assert (status, out) == (2, "")
    assert err.startswith(f"error[{code}")
    assert "--> net.model:" in err
    assert "^" in err


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("gelu(", "gelo(").replace("epochs  ", "epoch   ").replace('column("label")', 'column("labels")')
    status, out, _ = _check(tmp_path, text, "--format", "json")
    assert status == 2
    assert len({d["line"] for d in json.loads(out) if d["severity"] == "error"}) >= 3


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", GOOD.encode()[:200] + b"\xc3(" + GOOD.encode()[200:], b"module", b"}" * 40, b"(" * 500, b"module N() {" * 90,
     b"const x = " + b"-" * 3000 + b"1\n", b"const x = " + b"(" * 3000 + b"1" + b")" * 3000, b"\x00" * 40, b'const x = "' + b"\\" * 99],
    ids=["empty", "no text", "not UTF-8", "a word", "closing", "opening", "nested blocks", "minus signs", "parentheses", "NUL", "escapes"],
)  # fmt: skip
def test_what_is_no_program_is_no_traceback(text: bytes, tmp_path: Path) -> None:
    status, out, _ = _check(tmp_path, text, "--format", "json")
    told = json.loads(out)
    assert status == (2 if told else 0)
    assert all(d["code"] and d["line"] >= 1 and d["column"] >= 1 for d in told)


def test_missing_data_is_a_warning_until_it_is_needed(tmp_path: Path) -> None:
    status, out, _ = _check(tmp_path, GOOD.replace("points.csv", "absent.csv"), "--format", "json")
    (told,) = json.loads(out)
    assert (status, told["severity"], told["line"]) == (0, "warning", 2)
    assert "absent.csv" in told["message"]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    ran = tdsl("check", "absent.model", cwd=tmp_path)
    assert ran.returncode == 2
    assert "absent.model" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_is_no_program(tmp_path: Path) -> None:
    ran = tdsl("check", ".", cwd=tmp_path)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
