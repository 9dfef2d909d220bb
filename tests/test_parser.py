"""The grammar, the tree that it gives, and what is said of text that it does not take."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tdsl.dsl import ast, tablegen
from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.parser import parse

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
PROGRAMS = [*sorted((ROOT / "examples").glob("*.model")), *sorted((SHARED / "conformance").glob("*.model"))]

PROGRAM = """\
import "blocks.model"
const width = 2 ** 3 // 3

# A layer.
# Of two lines.
module Net(dim: int, act: fn = gelu, norm: module = LayerNorm) {
    param weight: [dim] = ones()  # not its documentation
    buffer count: int[] = zeros()
    up = Linear(_, dim)

    forward(x: float[B, ..., dim], mask: bool[B]) -> (float[B], [B, dim // 2]) {
        q, k = up(x).chunk(2, dim=-1)
        if training and not false { q = q * 2 } else if width > 1 {
            q = -q ** 2
        } else { assume B % 8 == 0 }
        for i in range(2) { track norm = q.norm() }
        no_grad { q = q[:, 1:-1, ::2, ..., none] }
        y = x
            |> up
            |> act
        return y, q if width == 1 else [k for j in range(3)][0]
    }
}

extern module Other(n: int) : float[B, 3] -> float[B] = "package.module:Class"
fn f(a: [..., D]) -> [] { return a.sum() }

data D { source = csv("a.csv"), workers = 2
    field x: float[4] = columns("x*") / 16
    transform x = []
    transform train x = [Normalize(mean=[0.5], std=[0.5])]
}

train r {
    model = Net(4), data = D
    loss(batch) { return f(batch.x) }
    group "*.bias" { weight_decay = 0 }
    logging { every = 10, tensorboard }
    field = 1, track = 2, module = 3
}
evaluate r { predict(batch) { return model(batch.x) } }
"""


def parsed(text: str) -> ast.File:
    reporter = Reporter()
    file = parse(Source("t.model", text), reporter)
    assert not reporter.diagnostics
    return file


def codes(text: str) -> list[str]:
    reporter = Reporter()
    parse(Source("t.model", text), reporter)
    return [each.code for each in reporter.diagnostics]


def value(text: str) -> ast.Expr:
    (const,) = parsed(f"const a = {text}").declarations
    assert isinstance(const, ast.Const)
    return const.value


def shown(expr: ast.Expr) -> str:
    """An expression with all of its parentheses."""
    if isinstance(expr, ast.Binary):
        return f"({shown(expr.left)} {expr.op} {shown(expr.right)})"
    if isinstance(expr, ast.Unary):
        return f"({expr.op} {shown(expr.operand)})"
    if isinstance(expr, ast.Conditional):
        return f"({shown(expr.then)} if {shown(expr.condition)} else {shown(expr.otherwise)})"
    if isinstance(expr, ast.Pipe):
        return f"({shown(expr.value)} |> {shown(expr.stage)})"
    return expr.span.text


def test_tables_are_those_of_the_grammar() -> None:
    assert (ROOT / "dsl" / "tables.py").read_text(encoding="utf-8") == tablegen.generate()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_parse(program: Path) -> None:
    assert parsed(program.read_text(encoding="utf-8")).declarations


def test_reference_snippets_parse() -> None:
    page = SHARED / "design" / "LANGUAGE.md"
    if not page.exists():
        pytest.skip("the language reference is not at hand")
    snippets = re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert all(parsed(each).declarations for each in snippets if not each.startswith("error"))


def test_every_construct() -> None:
    file = parsed(PROGRAM)
    assert [type(each).__name__ for each in file.declarations] == [
        "Const", "Module", "ExternModule", "Function", "Data", "Train", "Evaluate",
    ]  # fmt: skip
    net = file.declarations[1]
    assert isinstance(net, ast.Module)
    assert net.doc == "A layer.\nOf two lines."
    assert net.forward is not None
    assert [type(each).__name__ for each in net.forward.body] == ["Assign", "If", "For", "NoGrad", "Assign", "Return"]
    assert [each.name for each in net.members] == ["weight", "count", "up"]
    assert [each.kind for each in net.params] == ["int", "fn", "module"]
    run = file.declarations[5]
    assert isinstance(run, ast.Train)
    assert [each.name for each in run.settings] == ["model", "data", "field", "track", "module"]
    assert [(each.name, each.pattern) for each in run.sections] == [("group", "*.bias"), ("logging", None)]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2 * 3", "(1 + (2 * 3))"),
        ("1 - 2 - 3", "((1 - 2) - 3)"),
        ("-2 ** -3 ** 2", "(- (2 ** (- (3 ** 2))))"),
        ("not 1 < 2 and 3 == 4 or true", "(((not (1 < 2)) and (3 == 4)) or true)"),
        ("1 if a else 2 if b else 3", "(1 if a else (2 if b else 3))"),
        ("a + b |> f |> g(1)", "(((a + b) |> f) |> g(1))"),
        ("a if b else c |> f", "((a if b else c) |> f)"),
        ("(a + b) @ c", "((a + b) @ c)"),
    ],
)
def test_precedence(text: str, tree: str) -> None:
    assert shown(value(text)) == tree


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1_000", 1000), ("3e-4", 3e-4), ("0.5", 0.5), ("true", True), ("none", None), (r'"a\"\\\n\tb"', 'a"\\\n\tb')],
)
def test_literals(text: str, expected: object) -> None:
    literal = value(text)
    assert isinstance(literal, ast.Literal)
    assert literal.value == expected
    assert type(literal.value) is type(expected)


def test_spans_are_what_was_written() -> None:
    text = "const a = f(1,\n   (x + 2)).mean(dim=-1)\n"
    call = value("f(1,\n   (x + 2)).mean(dim=-1)")
    assert isinstance(call, ast.Call)
    assert isinstance(call.function, ast.Attribute)
    assert call.span.text == text[10:-1]
    assert call.function.name_span.text == "mean"
    inner = call.function.value
    assert isinstance(inner, ast.Call)
    assert inner.args[1].value.span.text == "x + 2"


def test_a_line_end_is_the_same_on_all_systems() -> None:
    assert len(parsed("const a = 1\r\nconst b = [1,\r\n 2]\r\n").declarations) == 2
    assert len(parsed("\ufeffconst a = 1").declarations) == 1


@pytest.mark.parametrize(
    "word", ["data", "train", "module", "param", "field", "group", "track", "model", "fn", "forward"]
)
def test_keywords_are_names_elsewhere(word: str) -> None:
    parsed(f"fn f(x: [B]) -> [B] {{\n {word} = x\n y, {word} = x, g({word}=1)\n return {word}.{word}({word})\n}}")


def test_each_declaration_has_its_own_errors() -> None:
    text = "const a = (1\nmodule M( {\n}\nfn f(x: [B) -> [] { return x }\ntrain r {\n  epochs 3\n}\nconst b = 2\n"
    reporter = Reporter()
    file = parse(Source("t.model", text), reporter)
    assert [each.span.line for each in reporter.diagnostics if each.span] == [1, 2, 4, 6]
    assert [each.name for each in file.declarations] == ["b"]
    assert {"a", "M", "f", "r"} <= set(file.broken)


def test_unclosed_brace_is_found_by_its_indentation() -> None:
    text = "module M() {\n    forward(x: [B]) -> [B] {\n        return x\n}\n\ntrain r {\n}\n"
    reporter = Reporter()
    parse(Source("t.model", text), reporter)
    (found,) = reporter.diagnostics
    assert (found.code, found.span and found.span.line) == ("E010", 2)


@pytest.mark.parametrize(
    "text",
    [
        "const a = " + "-" * 5000 + "1",
        "const a = " + "1 + " * 5000 + "1",
        "const a = x" + ".f()" * 5000,
        "const a = " + "(" * 100_000,
        "const a = " + "1 if 1 else " * 5000 + "1",
        "fn f(x: [B]) -> [B] { if a { } " + "else if a { } " * 5000 + "}",
        "module M() {" * 5000,
    ],
)
def test_depth_is_limited(text: str) -> None:
    assert "E003" in codes(text)


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        text = bytes(rng.randrange(256) for _ in range(rng.randrange(200))).decode("latin-1")
        reporter = Reporter()
        parse(Source("t.model", text), reporter)
        assert all(each.span is not None for each in reporter.diagnostics)
