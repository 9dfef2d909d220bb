"""Whatever is typed, an editor gets answers: random edits of the programs, and every question at a random place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tdsl.compiler.editor.actions import fixes
from tdsl.compiler.editor.analysis import Analysis, analyze
from tdsl.compiler.editor.answers import Refused
from tdsl.compiler.editor.completion import complete
from tdsl.compiler.editor.definition import definition, highlights
from tdsl.compiler.editor.hints import hints
from tdsl.compiler.editor.hover import hover
from tdsl.compiler.editor.outline import folds, outline
from tdsl.compiler.editor.rename import rename
from tdsl.compiler.editor.signature import signature
from tests.editor import PROGRAMS, text_of

PIECES = [
    *"()[]{}.,=\"'#\n\t |>-*/+:é𝟙\0\r\ufeff", "|> ", "x.", "= ", "batch.", "Linear(", "\n}\n", "{\n", "for i in range(3) {",
    "if training {", "return ", "module M(a: int) {\n", "train t {", "data D {\n", "import \"x\"\n", "none", "_", "...",
    "1e999", "99999999999999999999", "-1", "column(\"", "grad(", "const A = A\n", "@", "==", "->", "float[", "[B, ",
]  # fmt: skip
EDITS = 2000
AT_ONCE = 100


def edited(text: str, rng: random.Random) -> str:
    """One edit: a piece put in, some characters taken out, or a part moved."""
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.choice([0, 0, 1, 1, 2, 5, 20, 80]))
    kind = rng.randrange(4)
    if kind == 0:
        return text[:start] + text[end:]
    if kind == 1:
        to = rng.randrange(len(text) + 1)
        return text[:to] + text[start:end] + text[to:]
    return text[:start] + rng.choice(PIECES) + text[end if kind == 3 else start :]


def asked(analysis: Analysis, rng: random.Random) -> None:
    """Every question at one place."""
    offset = rng.randrange(len(analysis.source.text) + 1)
    hover(analysis, offset)
    found = complete(analysis, offset)
    assert 0 <= found.start <= offset
    signature(analysis, offset)
    definition(analysis, offset)
    highlights(analysis, offset)
    for hint in hints(analysis):
        assert 0 <= hint.offset <= len(analysis.source.text)
    for each in outline(analysis):
        assert each.span.start <= each.name_span.start <= each.name_span.end <= each.span.end
    folds(analysis)
    for fix in fixes(analysis, 0, len(analysis.source.text)):
        assert fix.edit.span.end <= len(analysis.source.text)
    if rng.random() < 0.1:
        with suppress(Refused):
            rename([], analysis, offset, "renamed")


def session(seed: int) -> Iterator[Analysis]:
    """A program edited again and again, begun anew where little of it is left."""
    rng = random.Random(seed)
    path = rng.choice(PROGRAMS)
    whole = text_of(path)
    text, analysis = whole, analyze(str(path), whole)
    for _ in range(AT_ONCE):
        text = edited(text, rng) if rng.random() < 0.8 else whole
        analysis = analyze(str(path), text, {}, analysis)
        asked(analysis, rng)
        yield analysis


@pytest.mark.parametrize("seed", range(EDITS // AT_ONCE))
def test_random_edits_are_answered(seed: int) -> None:
    broken = 0
    for analysis in session(seed):
        broken += any(d.severity == "error" for d in analysis.diagnostics)
        for diagnostic in analysis.diagnostics:
            assert diagnostic.span is not None
    assert broken, "no edit broke the program: this tests nothing"
