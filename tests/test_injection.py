"""Hostile names and strings change nothing of what is emitted. `python -m tests.injection` tries them all."""

from __future__ import annotations

import ast
from itertools import islice

import pytest

from tdsl.dsl.names import why_reserved
from tests import injection

PARTS = 4


@pytest.mark.parametrize("slot", [*injection.NAMES, *injection.STRINGS])
def test_hostile_text_is_refused_or_harmless(slot: str) -> None:
    tried = [text for each, text in injection.attempts() if each == slot]
    outcomes = {text: injection.attempt(slot, text) for text in islice(tried, 0, None, PARTS)}
    assert {text: told for text, told in outcomes.items() if told not in ("refused", "harmless")} == {}


def test_there_are_five_hundred_attempts_in_a_quarter_of_them() -> None:
    assert len(list(injection.attempts())) >= 500 * PARTS


@pytest.mark.parametrize(
    ("slot", "old", "new"),
    [
        ("doc", "a = 1", "a = 1; import os"),
        ("member", "self.zzmember(x)", "self.evil().zzmember(x)"),
        ("path", 'csv("zzpath.csv")', "csv(open)"),
        ("local", "zzlocal = f(x)\ny = zzlocal", "n = f(x)\nn = zzlocal"),
        (
            "local",
            "def f(x):\n    zzlocal = g(x)\n    return h(zzlocal, x)",
            "def f(x):\n    x = g(x)\n    return h(x, x)",
        ),
    ],
)
def test_a_changed_tree_is_noticed(slot: str, old: str, new: str) -> None:
    assert injection._Comparison(slot, "evil" if slot == "member" else "x").tree(ast.parse(old), ast.parse(new))


@pytest.mark.parametrize(
    ("slot", "text"), [("doc", '"""'), ("run_doc", "\0"), ("local", "n_cols"), ("path", "x" * 5000)]
)
def test_what_once_got_through_does_not(slot: str, text: str) -> None:
    assert injection.attempt(slot, text) in ("refused", "harmless")


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "checkpoint.py"])
def test_no_module_or_model_takes_a_name_that_the_scripts_need(script: str) -> None:
    own = {"model", *injection.NAMES.values()}
    needed = {name for name in _names(injection.harmless()[script]) if name not in own}
    assert [name for name in needed if not why_reserved(name, variable=True, imported=True)] == []


def _names(tree: ast.Module) -> set[str]:
    """The variables of a script, but those of the functions whose bodies the program gives."""
    given = ("loss", "compare", "predict")
    bodies = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in given)]
    annotations = {
        id(each)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for each in ast.walk(part)
    }
    names = (node for body in bodies for node in ast.walk(body) if isinstance(node, ast.Name))
    return {node.id for node in names if id(node) not in annotations and not node.id.startswith("__")}
