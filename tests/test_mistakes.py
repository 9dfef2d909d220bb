"""What is told, how much of it, and what is kept quiet: independent mistakes, lints, permissions, JSON, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tdsl.compiler import cli
from tdsl.compiler.driver import read
from tdsl.dsl.codes import run
from tdsl.dsl.diagnostics import Diagnostic
from tests.helpers import ROOT, SHARED

KEYS = ["code", "severity", "message", "file", "line", "column", "end_line", "end_column", "notes", "help"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `points.csv` is."""
    rows = "".join(f"{i}.5,{i},{i % 7},a\n" for i in range(20))
    (tmp_path / "points.csv").write_text(f"x,t,u,name\n{rows}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(text: str) -> list[Diagnostic]:
    Path("program.model").write_text(text, encoding="utf-8")
    return read("program.model")[1]


def at(each: Diagnostic) -> str:
    assert each.span is not None
    return each.span.text


# Independent mistakes ------------------------------------------------------------------------------------------------

FIVE = """module Net(dim: int = 8) {
    up   = Linaer(dim, 2 * dim)
    down = Linear(2 * dim, 1)
    norm = LayerNorm(9)

    forward(x: float[B, dim]) -> float[B, 1] {
        h = gelu(up(x))
        g = softmx(x, dim=-1)
        y = h + g
        z = norm(x).sum(dim=-1, keepdim=true)
        return down(y) + z
    }
}
data D {
    source = csv("points.csv")
    field x: float[] = column("xx")
    field t: int[] = column("t")
}
train r {
    model = Net()
    data = D
    loss(batch) { return cross_entropy(model(batch.x), batch.t) }
    optimizer = Adam(lrr=0.1)
    epochs = 1
}
"""


def test_five_independent_mistakes_are_exactly_these_five(folder: Path) -> None:
    found = told(FIVE)
    # What `up`, `h`, `g` and `y` would have been is not told, nor what the loss does with a model that is not built.
    assert sorted((each.code, at(each)) for each in found) == [
        ("E110", "Linaer"), ("E110", "softmx"), ("E203", "norm(x)"), ("E302", "lrr=0.1"), ("E402", '"xx"'),
    ]  # fmt: skip


def test_a_mistake_of_spelling_alone_hides_nothing_behind_it(folder: Path) -> None:
    text = "fn f(x: [B, 4]) -> [B, 4] {\n    y = F.gelu(self.act(x))\n    return torch.softmax(y, dim=7)\n}\n"
    assert sorted((each.code, at(each)) for each in told(text)) == [
        ("E019", "F.gelu"), ("E019", "self"), ("E019", "torch.softmax"), ("E110", "act"),
    ]  # fmt: skip
    right = told("fn f(x: [B, 4]) -> [B, 4] {\n    return torch.softmax(x, dim=7)\n}\n")
    assert [each.code for each in right] == ["E019", "E204"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("module Net(dim) {\n}\n" + run("    epochs = 1").partition("}\n}\n")[2], ["E012"]),
        (run("    epochs = 1").replace("optimizer = SGD()", "optimizer = SGD"), ["E313"]),
        (run("    epochs = 1").replace("= Net()", "= Net"), ["E313"]),
        (run("    epoch = 1"), ["E301"]),
        ("const a = 1 // 0\nconst b = a + 1\nmodule M(n: int = b) { }\n", ["E122"]),
        (run("    epochs = 1").replace('column("x")', 'column("y")'), ["E402"]),
        ("class Net(nn.Module):\n    def __init__(self):\n        self.a = 1\n\n    def forward(self, x):\n        return x\n", ["E019"]),
    ],
    ids=["a module lost", "not called", "not made", "misspelt", "a constant lost", "a column", "a class of Python"],
)  # fmt: skip
def test_consequences_are_silent(text: str, codes: list[str], folder: Path) -> None:
    assert [each.code for each in told(text)] == codes


def test_a_mistake_at_one_place_has_one_code(folder: Path) -> None:
    found = told(FIVE.replace("Linaer", "softmx"))
    places = [(each.span.start, each.span.end) for each in found if each.span is not None]
    assert len(places) == len(set(places))


# JSON and exit status ------------------------------------------------------------------------------------------------


def test_json_has_the_keys_in_order_and_no_more_than_twenty(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("program.model").write_text("".join(f"const a{i} = b{i}\n" for i in range(30)), encoding="utf-8")
    assert cli.main(["check", "program.model", "--format", "json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 20
    for i, each in enumerate(found, 1):
        assert list(each) == KEYS
        assert (each["line"], each["column"], each["end_line"], each["severity"]) == (
            i,
            len(f"const a{i} = ") // 1,
            i,
            "error",
        ) or (each["line"] == i and each["severity"] == "error")


def test_warnings_do_not_change_the_exit_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("program.model").write_text("fn f(x: [B]) -> [B] {\n    y = x * 2\n    return x\n}\n", encoding="utf-8")
    assert cli.main(["check", "program.model"]) == 0
    assert "warning[W206]" in capsys.readouterr().err
    assert cli.main(["check", "program.model", "--format", "json"]) == 0
    assert [each["severity"] for each in json.loads(capsys.readouterr().out)] == ["warning"]


# Lints ---------------------------------------------------------------------------------------------------------------

UNUSED = "module M(dim: int = 4) {{{0}\n    spare = Linear(dim, dim){1}\n    forward(x: [B, dim]) -> [B, dim] {{ return x * 2 }}\n}}\n"


@pytest.mark.parametrize(
    ("above", "head", "line", "codes"),
    [
        ("", "", "", ["W206"]),
        ("", "", "    # tdsl: allow W206", []),
        ("", "    # tdsl: allow W206", "", []),
        ("# tdsl: allow W203, W206\n", "", "", []),
        ("# Words.\n# tdsl: allow W206 because it is kept\n", "", "", []),
        ("", "", "    # tdsl: allow W203", ["W206"]),
        ("# tdsl: allow W206\n\n", "", "", ["W206"]),
        ("", "", "    # allow W206", ["W206"]),
    ],
)
def test_a_comment_allows_a_warning(above: str, head: str, line: str, codes: list[str], folder: Path) -> None:
    assert [each.code for each in told(above + UNUSED.format(head, line))] == codes


def test_an_error_is_not_allowed_by_a_comment(folder: Path) -> None:
    assert [each.code for each in told("const a = b    # tdsl: allow E110, W206\n")] == ["E110"]


PROGRAMS = [*sorted((ROOT / "examples").glob("*.model")), *sorted((ROOT / "tests" / "golden").glob("*.model")),
            *sorted((SHARED / "conformance").glob("*.model"))]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_good_programs_raise_no_lint(program: Path) -> None:
    assert [
        each for each in read(program)[1] if each.code in ("W201", "W202", "W203", "W204", "W205", "W206", "W208")
    ] == []


@pytest.mark.parametrize(
    ("written", "meanings"),
    [
        ("x + x |> up |> relu", ["(x + x) |> up |> relu", "x + (x |> up |> relu)"]),
        ("x * 2 - x * x |> up", ["(x * 2 - x * x) |> up", "x * 2 - (x * x |> up)"]),
        ("(x) + y |> relu", ["((x) + y) |> relu", "(x) + (y |> relu)"]),
        ("relu(x + y |> up)", ["(x + y) |> up", "x + (y |> up)"]),
        ("x if dim > 3 else y |> up", ["(x if dim > 3 else y) |> up", "x if dim > 3 else (y |> up)"]),
        ("x + (y) |> up", ["around what goes into the pipe"]),
        ("x + y\n            |> up", ["around what goes into the pipe"]),
        ("((x + y |> up) |> relu) + x", ["(x + y) |> up", "x + (y |> up)"]),
        ("(x + y) |> up", None),
        ("x + (y |> up)", None),
        ("x @ up.weight.T |> relu", None),
        ("x + 1 |> log", None),
        ("-x |> up |> relu", None),
        ("up(x + y) |> relu", None),
    ],
)
def test_a_sum_that_goes_into_a_pipe_is_told(written: str, meanings: list[str] | None, folder: Path) -> None:
    text = "module M(dim: int = 4) {\n    up = Linear(dim, dim)\n    forward(x: [B, dim], y: [B, dim]) -> [B, dim] {\n"
    found = told(f"{text}        z = {written}\n        return up(x + y + z)\n    }}\n}}\n")
    assert [each.code for each in found] == ([] if meanings is None else ["W208"])
    for each in found:
        assert all(meaning in (each.help or "") for meaning in meanings or [])


TRAINED = """module Encoder(dim: int) {{
    up   = Linear(4, dim)
    side = Linear(4, dim)
    forward(x: [B, 4]) -> ([B, dim], [B, dim]) {{ return up(x), side(x) }}
}}
module Net(dim: int = 8) {{
    blocks = [Encoder(dim) for i in range(2)]
    head   = Sequential(Linear(dim, dim), ReLU(), Linear(dim, 1))
    param scale: [dim] = ones()
    forward(x: [B, 4]) -> [B, 1] {{
        {0}
    }}
}}
data D {{
    source = csv("points.csv")
    field x: float[4] = columns("x", "t", "u", "x")
}}
train r {{
    model = Net()
    data = D
    loss(batch) {{ return model(batch.x).mean() }}
    optimizer = SGD(lr=0.1)
    epochs = 1
    {1}
}}
"""
BOTH = "a, b = blocks[0](x)\n        c, d = blocks[1](x)\n        return head((a + b + c + d) * scale)"


@pytest.mark.parametrize(
    ("body", "rest", "places"),
    [
        (BOTH, "", []),
        (BOTH.replace(" + b + c", " + c"), "", ["side"]),
        (BOTH.replace(" + b", "").replace(" + d", ""), "", ["side"]),
        (BOTH.replace("(a + b + c + d) * scale", "(a + b + c + d) * detach(scale)"), "", ["scale"]),
        (BOTH.replace("* scale)", "* detach(scale))"), 'freeze = ["scale"]', []),
        (BOTH.replace("c + d", "detach(c + d)"), "", ["blocks"]),
        (BOTH.replace("head((a + b + c + d) * scale)", "(a + b + c + d).sum(dim=-1, keepdim=true) + 0 * size(head(a), 0) + scale.sum()"), "", ["head"]),
    ],
    ids=["all", "one of two calls", "no call", "a parameter", "frozen", "one block", "a list"],
)  # fmt: skip
def test_parameters_that_no_gradient_reaches_are_told(body: str, rest: str, places: list[str], folder: Path) -> None:
    found = [each for each in told(TRAINED.format(body, rest)) if each.code == "W203"]
    assert [at(each) for each in found] == places
