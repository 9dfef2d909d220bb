"""Parameters of a `fn`: numbers, truth values, strings and functions beside its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler.editor.analysis import analyze
from tdsl.compiler.editor.definition import definition
from tdsl.compiler.editor.signature import signature
from tests.editor import PATH, marked
from tests.helpers import built, mistakes
from tests.running import executed, source

FUNCTIONS = """
const K = 2

fn distilled(s: float[B, C], t: float[B, C], tau: float = 2.0) -> float[] {
    p = softmax(t / tau, dim=-1)
    return -(p * log_softmax(s / tau, dim=-1)).sum(dim=-1).mean() * tau ** 2
}

fn changed(x: float[B, n], n: int, act: fn = relu, negate: bool = false, how: str = "mean") -> float[B, n] {
    y = act(x)
    if negate { y = -y }
    if how == "mean" { y = y / n }
    return y.reshape(B, n)
}

fn heads(x: float[B, C], n: int = 2 * K) -> float[B, n, C // n] {
    assume C % n == 0
    return x.reshape(B, n, -1)
}

fn scaled(x: float[B, C], by: float[], shift: int[]) -> float[B, C] { return x * by + shift }

fn inverse(x: float[B, C], tau: float) -> float[B, C] { return x + 1 / tau }
"""


def program(returned: str, type: str = "float[B, d]") -> str:
    head = (
        "module M(d: int = 8, tau: float = 3.0, flag: bool = true) {\n    forward(x: float[B, d], t: float[B, d]) -> "
    )
    return f"{FUNCTIONS}\n{head}{type} {{\n        return {returned}\n    }}\n}}\n"


def distilled(s: Tensor, t: Tensor, tau: float) -> Tensor:
    return -(F.softmax(t / tau, -1) * F.log_softmax(s / tau, -1)).sum(-1).mean() * tau**2


@pytest.mark.parametrize(
    ("called", "type", "oracle"),
    [
        ("distilled(x, t)", "float[]", lambda x, t: distilled(x, t, 2.0)),
        ("distilled(x, t, 1)", "float[]", lambda x, t: distilled(x, t, 1.0)),
        ("distilled(tau=tau, t=t, s=x)", "float[]", lambda x, t: distilled(x, t, 3.0)),
        ("x.distilled(t, tau=0.5)", "float[]", lambda x, t: distilled(x, t, 0.5)),
        ("changed(x, d)", "float[B, d]", lambda x, t: x.relu() / 8),
        ("changed(x, 8, gelu, flag)", "float[B, d]", lambda x, t: -F.gelu(x) / 8),
        ('x |> changed(how="sum", n=d, negate=not flag)', "float[B, d]", lambda x, t: x.relu()),
        ("heads(x)", "float[B, 4, d // 4]", lambda x, t: x.reshape(-1, 4, 2)),
        ("heads(x, n=2)", "float[B, 2, d // 2]", lambda x, t: x.reshape(-1, 2, 4)),
        ("scaled(x, 0.5, 3)", "float[B, d]", lambda x, t: x * 0.5 + 3),
        ("scaled(x, 2, d)", "float[B, d]", lambda x, t: x * 2 + 8),
        ("scaled(x, tau, shift=1)", "float[B, d]", lambda x, t: x * 3 + 1),
        ("scaled(x, t.mean(), 1)", "float[B, d]", lambda x, t: x * t.mean() + 1),
        ("inverse(x, 2)", "float[B, d]", lambda x, t: x + 0.5),
        ("inverse(x, d)", "float[B, d]", lambda x, t: x + 1 / 8),
        ("inverse(x, tau)", "float[B, d]", lambda x, t: x + 1 / 3),
    ],
)
def test_what_is_given_counts(called: str, type: str, oracle: object, tmp_path: Path) -> None:
    model = executed(program(called, type), tmp_path).M()
    x, t = torch.randn(3, 8), torch.randn(3, 8)
    torch.testing.assert_close(model(x, t), oracle(x, t))  # type: ignore[operator]


def test_a_number_of_the_module_stays_one() -> None:
    assert "self.tau" in source(program("inverse(x, tau)"), "M")


@pytest.mark.parametrize(
    ("returned", "code", "at", "message", "help"),
    [
        ("changed(x)", "E202", "changed(x)", "`changed` needs `n`", "it takes x, n, act, negate, how"),
        ("changed(x, 9)", "E203", "changed(x, 9)", "shapes do not match in the call of `changed`", None),
        ("changed(x, 2.5)", "E202", "2.5", "argument `n` of `changed` is an integer", "such as `n=-1`"),
        (
            "inverse(x, x)",
            "E202",
            "x",
            "`tau` of `inverse` is of the kind `float`",
            "for a tensor, declare it with sizes: `tau: float[B, d]`",
        ),
        (
            "changed(x, 8, negate=training)",
            "E202",
            "training",
            "argument `negate` of `changed` is `true` or `false`",
            "such as `negate=true`",
        ),
        (
            "scaled(x, 0.5, 0.5)",
            "E205",
            "scaled(x, 0.5, 0.5)",
            "`shift` of `scaled` is int",
            "convert it first: `.int()`",
        ),
        ("heads(x, 3)", "E208", None, None, None),
        ("inverse(2.0, 2.0)", "E202", "2.0", "argument `x` of `inverse` is a tensor", None),
        ("scaled(x, none, 1)", "E202", "none", "argument `by` of `scaled` is a tensor", None),
    ],
)
def test_mistakes(returned: str, code: str, at: str | None, message: str | None, help: str | None) -> None:
    found = mistakes(program(returned))[0]
    assert found.code == code
    assert at is None or (found.span is not None and found.span.text == at)
    assert message is None or found.message == message
    assert help is None or found.help == help


def test_an_input_of_forward_is_a_tensor() -> None:
    (found,) = mistakes("module M() {\n    forward(x: [B], causal: bool) -> [B] { return x }\n}\n")
    assert (found.code, found.span and found.span.text) == ("E015", "causal: bool")
    assert found.help is not None
    assert found.help.startswith("make it a parameter of the module: `module Net(causal: bool) { ... }`")


@pytest.mark.parametrize(
    "text",
    [
        "fn f(x: [B, 2 * n], n: int) -> [B, n] {\n    if n > 3 { x = 2 * x }\n    return x.chunk(2, dim=-1)[0]\n}\n",
        "fn f(x: [B], flag: bool, tau: float) -> [B] {\n    if flag and tau > 1 { x = x * tau }\n    return x\n}\n",
        "fn f(x: [B], act: fn, how: str) -> [B] {\n    return act(x) if how == 'a' else x\n}\n".replace("'", '"'),
        "fn f(x: [B], N: int = 4) -> [B, N] { return x.unsqueeze(1).expand(-1, N) }\n",
    ],
)
def test_what_nothing_calls_is_checked_for_any_value(text: str) -> None:
    built(text)


def test_what_nothing_calls_is_checked() -> None:
    text = "fn f(x: [B, n], n: int) -> [B, n] {\n    if n > 3 { x = 2 * x }\n    return reluu(x)\n}\n"
    assert [each.code for each in mistakes("fn f(x: [B, n], n: int) -> [B, 2 * n] { return x }\n")] == ["E207"]
    assert [each.code for each in mistakes(text)] == ["E110"]


def test_editor() -> None:
    text = program("changed(‸x, n=d)")
    found = signature(*marked(text))
    assert found is not None
    expected = 'changed(x: float[B, n], n: int, act: fn = relu, negate: bool = false, how: str = "mean")'
    assert (found.label, found.active) == (expected, 0)
    analysis = analyze(PATH, text.replace("‸", ""))
    for use in ("n], n: int", "n=d)", "n] {\n    y = act", "n)\n}"):
        declared = definition(analysis, analysis.source.text.index(use))
        assert declared is not None
        assert analysis.source.text[declared.start :].startswith("n: int, act")
