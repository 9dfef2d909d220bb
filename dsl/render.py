"""Diagnostics as a person reads them, with the lines they speak of, and as programs do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tdsl.dsl.diagnostics import MOST_ERRORS, Diagnostic, Span

TAB = 4
MOST_COLUMNS = 120
RED, YELLOW, BLUE, BOLD, RESET = "\033[1;31m", "\033[1;33m", "\033[1;34m", "\033[1m", "\033[0m"


def render(diagnostics: Sequence[Diagnostic], color: bool = False) -> str:
    """Text for a terminal: the first 20 errors and the warnings, a blank line between them, a count of the rest."""
    shown, left = _first(diagnostics)
    parts = [_Painter(color).diagnostic(each) for each in shown]
    if left:
        parts.append(f"... and {left} more error{'s' if left > 1 else ''}\n")
    return "\n".join(parts)


def to_json(diagnostics: Sequence[Diagnostic]) -> str:
    """An array of objects `code severity message file line column end_line end_column notes help`, at most 20 errors.

    Lines and columns count from 1, the end lies behind the last character; what has no place has `null` for them. What
    the terminal shows under the caret is the first note.
    """
    import json  # not needed by a run that prints text: startup time counts

    return json.dumps([_record(each) for each in _first(diagnostics)[0]], indent=2)


def _first(diagnostics: Sequence[Diagnostic]) -> tuple[list[Diagnostic], int]:
    """The diagnostics to show, in the order of their places within each file, and the number of errors left out."""
    names: dict[str, int] = {}
    for each in diagnostics:
        if each.span is not None:
            names.setdefault(each.span.source.name, len(names))
    ordered = sorted(
        diagnostics, key=lambda each: (names[each.span.source.name], each.span.start) if each.span else (-1, 0)
    )
    errors = [each for each in ordered if each.severity == "error"]
    warnings = [each for each in ordered if each.severity != "error"]
    return [*errors[:MOST_ERRORS], *warnings[:MOST_ERRORS]], max(len(errors) - MOST_ERRORS, 0)


def _record(diagnostic: Diagnostic) -> dict[str, object]:
    span = diagnostic.span
    line, column = span.source.position(span.start) if span else (None, None)
    end_line, end_column = span.source.position(span.end) if span else (None, None)
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "file": span.source.name if span else None,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "notes": [*([diagnostic.label] if diagnostic.label else []), *diagnostic.notes],
        "help": diagnostic.help,
    }


class _Painter:
    def __init__(self, color: bool) -> None:
        self.color = color

    def paint(self, text: str, color: str) -> str:
        return f"{color}{text}{RESET}" if self.color and text else text

    def diagnostic(self, each: Diagnostic) -> str:
        tint = RED if each.severity == "error" else YELLOW
        head = self.paint(f"{each.severity}[{each.code}]", tint) + self.paint(f": {_plain(each.message)}", BOLD)
        return "\n".join([head, *self.body(each, tint)]) + "\n"

    def body(self, each: Diagnostic, tint: str) -> Iterator[str]:
        margin = 1
        if each.span is not None:
            last = each.span.source.position(max(each.span.end - 1, each.span.start))[0]
            margin = len(str(last))
            yield f"{' ' * margin}{self.paint('-->', BLUE)} {_plain(str(each.span))}"
            yield from self.excerpt(each.span, each.label, margin, tint)
        notes = [f"note: {note}" for note in each.notes] + ([f"help: {each.help}"] if each.help else [])
        if notes and each.span is not None:
            yield self.gutter("", margin)
        for note in notes:
            yield f"{' ' * margin} {self.paint('=', BLUE)} {_plain(note)}"

    def gutter(self, number: str, margin: int) -> str:
        return self.paint(f"{number:>{margin}} |", BLUE)

    def excerpt(self, span: Span, label: str, margin: int, tint: str) -> Iterator[str]:
        """The first and the last line of a span, each with carets below."""
        yield self.gutter("", margin)
        lines = _marked(span)
        for i, (number, start, end) in enumerate(lines):
            if i and number > lines[0][0] + 1:
                yield self.paint("...", BLUE)
            text, before, width = _window(span.source.line(number), start, end)
            tail = f" {_plain(label)}" if label and i == len(lines) - 1 else ""
            yield f"{self.gutter(str(number), margin)} {text}".rstrip()
            yield f"{self.gutter('', margin)} {' ' * before}{self.paint('^' * width + tail, tint)}"


def _marked(span: Span) -> list[tuple[int, int, int]]:
    """The lines to show of a span: number, and the part that is marked, as offsets from 0."""
    source = span.source
    first, column = source.position(span.start)
    last, end = source.position(max(span.end, span.start + 1))
    if last == first:
        return [(first, column - 1, end - 1)]
    rows = [(first, column - 1, max(len(source.line(first)), column))]
    if end == 1:  # up to a newline: nothing of the last line is marked
        return rows
    text = source.line(last)
    return [*rows, (last, len(text) - len(text.lstrip()), end - 1)]


def _window(line: str, start: int, end: int) -> tuple[str, int, int]:
    """A line as it is shown, the columns before the marked part, and the columns that it takes.

    Of a line too long for a terminal the part around the mark is shown.
    """
    cut = max(0, start - MOST_COLUMNS // 2) if len(line) > MOST_COLUMNS else 0
    shown = line[cut : cut + MOST_COLUMNS]
    lead = "..." if cut else ""
    before = _shown(lead + shown[: start - cut])
    marked = _shown(shown[start - cut : end - cut], len(before))
    rest = _shown(shown[end - cut :]) + ("..." if cut + MOST_COLUMNS < len(line) else "")
    return before + marked + rest, _width(before), max(_width(marked), 1)


def _shown(text: str, column: int = 0) -> str:
    """Text with tabs as spaces and what can't be printed as a box."""
    parts: list[str] = []
    for char in text:
        piece = " " * (TAB - column % TAB) if char == "\t" else char if char.isprintable() else "\ufffd"
        parts.append(piece)
        column += len(piece)
    return "".join(parts)


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # rarely needed

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
