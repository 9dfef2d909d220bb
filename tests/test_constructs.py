"""Constructs of the language, emitted and run beside the same model written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.construct_cases import CASES
from tests.helpers import compiled, emitted, python, tdsl, written
from tests.running import executed, loaded
from tests.test_build import built, mistakes, module


@pytest.mark.parametrize("name", CASES)
def test_constructs(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    model = executed(case.text, tmp_path).M()
    x = torch.randn(2, case.width)
    torch.testing.assert_close(model(x), case.oracle(model, x))


def test_modules_may_be_called_what_kernels_need(tmp_path: Path) -> None:
    names = ("Launch", "Triton", "Math", "With", "Random", "Tl", "A", "AReference", "Max", "Torch", "Self")
    members = "".join(f"    m{i} = {name}()\n" for i, name in enumerate(names))
    calls = "".join(f" |> m{i}" for i in range(len(names)))
    text = "".join(
        f"module {name}() {{\n    forward(x: float[B, D]) -> float[B, D] {{ return tanh(x) * {i} + x * {i} }}\n}}\n"
        for i, name in enumerate(names, 2)
    )
    text += f"module M() {{\n{members}    l = Linear(3, 3)\n"
    text += f"    forward(x: float[B, 3]) -> float[B, 3] {{ return x{calls} }}\n}}\n"
    x = torch.randn(2, 3, dtype=torch.float64)
    wanted = x
    for i in range(2, 2 + len(names)):
        wanted = torch.tanh(wanted) * i + wanted * i
    folder = written(emitted(compiled(text)), tmp_path)
    torch.testing.assert_close(loaded(folder).M()(x), wanted)
    check = "import torch, model; torch.manual_seed(0); model.Launch()(torch.randn(2, 3)); print(model.M()(torch.ones(2, 3)))"
    assert python("-c", check, interpret=True, cwd=folder).returncode == 0


def test_numbers_that_a_class_depends_on_make_classes() -> None:
    """A loop that is written out is written for each count."""
    text = """
module Deep(n: int) {
    l = Linear(4, 4)
    forward(x: float[B, 4]) -> float[B, 4] {
        for i in range(n) { x = l(x) * (i + 1) }
        return x
    }
}
module M() {
    a = Deep(1)
    b = Deep(2)
    c = Deep(2)
    forward(x: float[B, 4]) -> float[B, 4] { return x |> a |> b |> c }
}
"""
    unit = built(text)
    assert [m.class_name for m in unit.modules] == ["Deep", "Deep2", "M"]
    assert len(module(unit, "Deep2").graph.nodes) == 4


def test_imports_of_folders_and_diamonds(tmp_path: Path) -> None:
    files = {
        "net.model": 'import "parts/left.model"\nimport "parts/deep/right.model"\n'
        "module M() {\n    a = Left(N)\n    b = Right(N)\n"
        "    forward(x: float[B, N]) -> float[B, N] { return b(a(x)) }\n}\n",
        "parts/left.model": 'import "base.model"\nmodule Left(d: int) {\n    l = Base(d)\n'
        "    forward(x: float[B, d]) -> float[B, d] { return twice(l(x)) }\n}\n",
        "parts/deep/right.model": 'import "../base.model"\nmodule Right(d: int) {\n    l = Base(d)\n'
        "    forward(x: float[B, d]) -> float[B, d] { return l(x).twice() }\n}\n",
        "parts/base.model": "const N = 6 / 2\nfn twice(x: float[...]) -> float[...] { return 2 * x }\n"
        "module Base(d: int) {\n    l = Linear(d, d)\n    forward(x: float[B, d]) -> float[B, d] { return l(x) }\n}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = tdsl("compile", "net.model", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = loaded(tmp_path / "out").M()
    x = torch.randn(2, 3)
    torch.testing.assert_close(model(x), 2 * model.b.l.l(2 * model.a.l.l(x)))


MEMBERS = "module M(d: int = 4) {\n%s\n    forward(x: float[B, d]) -> float[B, d] {\n%s\n    }\n}\n"


@pytest.mark.parametrize(
    ("members", "body", "code", "message", "caret", "help"),
    [
        ("l = Linear(_, 8)", "return x", "E208", "the size `_` of `l` is not known", "l = Linear(_, 8)", "call it"),
        ("l = Linear(_, 8)", "return l(l(x))[:, :4]", "E203", "shapes do not match in `l`", "l(l(x))", ""),
        ("param n: int[3] = zeros()", "return x", "E205", "a parameter holds floating-point", "int[3]", "buffer n"),
        ("buffer n: int[3] = normal()", "return x", "E205", "`normal` makes no i64", "normal()", "zeros"),
        ("buffer n: int[3] = constant(0.5)", "return x", "E205", "`constant` makes no i64", "constant(0.5)", "whole"),
        ("l = [Linear(4, 4) for i in x]", "return x", "E110", "unknown name `x`", "x", ""),
        ("l = [i for i in range(3)]", "return x", "E201", "the number 0 in a list of modules", "i", ""),
        ("", "for i in range(0, 9, 0) { x = x + i }\nreturn x", "E202", "the step of a range is not 0", "0", ""),
        (
            "",
            "for i in range(B) { x = x + i }\nreturn x",
            "E208",
            "the range of a loop is known",
            "range(B)",
            "unrolled",
        ),
        ("", "for i in range(20000) { x = x + i }\nreturn x", "E209", "a loop of 20,000 turns", "range(20000)", "most"),
        ("", "for i in x { x = x + 1 }\nreturn x", "E201", "a loop goes over a list or a range", "x", ""),
        ("", "y = x.nosuch()\nreturn y", "E110", "a tensor has no method `nosuch`", "nosuch", ""),
        ("h = int(d * e)", "return x", "E110", "unknown name `e`", "e", ""),
        (
            "h = Linear(4, 4, weight=l.weight)\nl = Linear(4, 4)",
            "return h(l(x))",
            "E110",
            "`l` is not yet made",
            "l",
            "declared above it",
        ),
        ("h = len(d)", "return x", "E202", "`len` counts the values of a list", "len(d)", ""),
        ("", "return x * B if B > 2 else x", "E208", "`B > 2` is not known", "B > 2", ""),
    ],
)
def test_mistakes(members: str, body: str, code: str, message: str, caret: str, help: str) -> None:
    found = mistakes(MEMBERS % (members, body))[0]
    assert found.code == code
    assert found.message.startswith(message)
    assert found.span is not None
    assert found.span.text == caret
    assert help in (found.help or "")


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("module A() { b = B1() }\nmodule B1() { a = A() }\n", "A -> B1 -> A"),
        ("fn f(x: [B]) -> [B] { return g(x) }\nfn g(x: [B]) -> [B] { return f(x) }\n", "f -> g -> f"),
    ],
)
def test_recursion_is_told(text: str, chain: str) -> None:
    (found,) = mistakes(text)
    assert found.code == "E210"
    assert chain in found.notes
