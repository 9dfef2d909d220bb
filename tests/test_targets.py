"""Several names bound at once, some of them in parentheses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tdsl.compiler.editor.analysis import analyze
from tdsl.compiler.editor.definition import references, symbol_at
from tdsl.compiler.editor.hints import hints
from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.format import format_source
from tests.editor import PATH
from tests.helpers import elaborate, mistakes
from tests.running import executed, source

HEAD = "module M() {\n    lstm = LSTM(8, 8)\n    forward(x: float[T, B, 8]) -> float[T, B, 8] {\n        "


def program(*lines: str) -> str:
    return HEAD + "\n        ".join(lines) + "\n    }\n}\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["y, (h, c) = lstm(x)", "return y + h * c"], "y + h * c"),
        (["y, (h, _) = lstm(x)", "return y + h"], "y + h"),
        (["(y, (h, c)) = lstm(x)", "return y + h * c"], "y + h * c"),
        (["(y, (h, c)), a = lstm(x), x", "return y + h * c + a"], "y + h * c + x"),
        (["y, state = lstm(x)", "h, c = state", "z, (h, c) = lstm(y, (c, h))", "return z + h"], "again(y, (c, h))"),
        (["y, (h, c) = lstm(x)", "y, (h, c) = lstm(y, (c, h))", "return y + h"], "again(y, (c, h))"),
        (["y, state = lstm(x)", "z, (h, c) = y, state", "return z + h * c + state[0]"], "y + h * c + h"),
        (["(a, b), (c,) = x.chunk(2, dim=-1), (x,)", "return cat([b, a], dim=-1) + c"], "swapped"),
        (["t = x.chunk(2, dim=-1)", "a, b = t", "return cat([b, t[0]], dim=-1) + cat([a - t[0], b - t[1]], -1) + x"],
         "swapped"),
    ],
)  # fmt: skip
def test_each_name_has_its_part(lines: list[str], expected: str, tmp_path: Path) -> None:
    model = executed(program(*lines), tmp_path).M()
    x = torch.randn(3, 2, 8)
    y, (h, c) = model.lstm(x)
    z, (h2, _) = model.lstm(y, (c, h))
    wanted = {
        "again(y, (c, h))": z + h2,
        "swapped": torch.cat([x[..., 4:], x[..., :4]], -1) + x,
        "y + h": y + h,
        "y + h * c": y + h * c,
        "y + h * c + h": y + h * c + h,
        "y + h * c + x": y + h * c + x,
    }[expected]
    torch.testing.assert_close(model(x), wanted)


def test_the_emitted_names_are_those_of_the_program() -> None:
    assert "y, (hidden, cell) = self.lstm(x)" in source(
        program("y, (hidden, cell) = lstm(x)", "return y + hidden * cell"), "M"
    )


@pytest.mark.parametrize(
    ("line", "code", "at", "help"),
    [
        ("y, h, c = lstm(x)", "E207", "y, h, c = lstm(x)", "some of these are several: `y, (h, c) = ...`"),
        ("y, (h, c, d) = lstm(x)", "E207", "(h, c, d)", None),
        ("(y, h), c = lstm(x)", "E207", "(y, h)", None),
        ("(y,) = x", "E207", "(y,)", None),
        ("y, (h, torch) = lstm(x)", "E102", "torch", "choose another name, such as `torch_`"),
        ("y, (h, c) = x, x, x", "E020", "x, x, x", None),
        ("y, (h) = lstm(x)", "E012", ")", None),
        ("y, (h, c) += lstm(x)", "E022", "+=", "write `a = a + lstm(x)`"),
    ],
)
def test_mistakes(line: str, code: str, at: str, help: str | None) -> None:
    found = elaborate(program(line, "return x"))[1][0]
    assert (found.code, found.span and found.span.text) == (code, at)
    assert help is None or found.help == help


def test_after_a_mistake_its_names_are_quiet() -> None:
    assert [each.code for each in mistakes(program("y, (h, c) = lstm(1)", "return y + h + c"))] == ["E202"]


def test_layout() -> None:
    reporter = Reporter()
    text = program("y,( h,c )=lstm( x )", "(a,)=(y,)", "return a+h*c")
    expected = program("y, (h, c) = lstm(x)", "(a,) = (y,)", "return a + h * c")
    assert format_source(Source("net.model", text), reporter) == expected


def test_editor() -> None:
    analysis = analyze(PATH, program("y, (h, c) = lstm(x)", "return y + h * c"))
    at = analysis.source.text.index("h, c")
    symbol = symbol_at(analysis, at)
    assert symbol is not None
    assert [each.start for each in references(analysis, symbol)] == [at, analysis.source.text.index("h * c")]
    shown = [each.text for each in hints(analysis, 0, len(analysis.source.text))]
    assert shown == [": float[T, B, 8]", ": float[1, B, 8]", ": float[1, B, 8]"]
