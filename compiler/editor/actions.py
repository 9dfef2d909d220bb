"""Quick fixes: what an error's help offers, done."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Edit, Fix
from tdsl.compiler.editor.text import WORD
from tdsl.dsl.diagnostics import Diagnostic, Span

MEANT = re.compile(r"did you mean `([^`]+)`\?")
WRITE = re.compile(r"(?:^|: |it is spelt |\bor )(?:write )?`([^`]+)`$")
# Errors whose caret is under exactly what the help's text stands for.
WRITTEN = ("E019", "E021", "E406")
EITHER = re.compile(r"write `(.+)` if that is meant, `(.+)` if only `")


def fixes(analysis: Analysis, start: int, end: int) -> list[Fix]:
    """Fixes of the mistakes that touch the characters between two offsets."""
    found: list[Fix] = []
    for number, diagnostic in enumerate(analysis.diagnostics):
        span = diagnostic.span
        if span is not None and span.source.name == analysis.path and span.start <= end and start <= span.end:
            found += [Fix(title, edit, number) for title, edit in _edits(diagnostic, span)]
    return found


def _edits(diagnostic: Diagnostic, span: Span) -> Iterator[tuple[str, Edit]]:
    meant = MEANT.search(diagnostic.help or "")
    if meant is not None:
        place = _wrong(diagnostic, span)
        if place is not None:
            yield f"Change to `{meant[1]}`", Edit(place, meant[1])
        return
    for meaning in EITHER.findall(diagnostic.help or ""):
        yield from ((f"Write `{text}`", Edit(span, text)) for text in meaning)
    written = WRITE.search(diagnostic.help or "")
    if written is not None and diagnostic.code in WRITTEN and "..." not in written[1]:
        yield f"Write `{written[1]}`", Edit(span, written[1])


def _wrong(diagnostic: Diagnostic, span: Span) -> Span | None:
    """Where the wrong word stands: under the caret, or the one there that the message quotes."""
    text = span.text
    if WORD.fullmatch(text):
        return span
    for quoted in reversed(re.findall(r"[`\"]([^`\"]+)[`\"]", diagnostic.message)):
        places = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(quoted)}(?!\w)", text)]
        if len(places) == 1 or (places and places[0] == 0):
            start = span.start + places[0]
            return Span(span.source, start, start + len(quoted))
    return None
