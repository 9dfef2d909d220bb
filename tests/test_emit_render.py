"""Long arguments begin a line with each of their outermost operators, and mean the same."""

from __future__ import annotations

import ast as python

import pytest

from tdsl.compiler.emit.render import WIDTH, broken

NAMES = [f"{letter}({', '.join(map(str, range(i * 10, i * 10 + 14)))})" for i, letter in enumerate("abcd", 10)]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("{0} + {1} - {2}", ["{0}", "+ {1}", "- {2}"]),
        ("({0} - {1}) / {2}", ["({0} - {1})", "/ {2}"]),
        ("{0} - ({1} - {2})", ["{0}", "- ({1} - {2})"]),
        ("{0} // {1} * {2} @ {3}", ["{0}", "// {1}", "* {2}", "@ {3}"]),
        ("{0} * {1} + {2}", ["{0} * {1}", "+ {2}"]),
        ('f("- + é", {0}) - -{1}', ['f("- + é", {0})', "- -{1}"]),
        ("g({0} - {1}, {2})", ["g({0} - {1}, {2})"]),
    ],
)
def test_outermost_operators_begin_lines(form: str, lines: list[str]) -> None:
    text = form.format(*NAMES)
    found = broken(text, 12)
    assert found.split("\n" + 12 * " ") == [line.format(*NAMES) for line in lines]
    assert python.dump(python.parse(f"({found})")) == python.dump(python.parse(f"({text})"))


def test_what_fits_stays_on_one_line() -> None:
    text = "a + " + "b" * (WIDTH - 12 - 5)
    assert broken(text, 12) == text
    assert broken(text + "b", 12) != text + "b"
