"""Located errors: the one form in which anything wrong with a program is told to its writer."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn

MOST_ERRORS = 20


@dataclass(frozen=True)
class Source:
    """One file's text; `name` is how messages call it."""

    name: str
    text: str

    @cached_property
    def starts(self) -> list[int]:
        """Offset of each line's first character."""
        found = [0]
        for i, char in enumerate(self.text):
            if char == "\n":
                found.append(i + 1)
        return found

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column (both from 1) of a character offset."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Text of line `number` (from 1), without its newline."""
        start = self.starts[number - 1]
        end = self.starts[number] - 1 if number < len(self.starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@dataclass(frozen=True)
class Span:
    """The characters `start` to `end` (exclusive) of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of another of the same file."""
        return Span(self.source, self.start, other.end)

    def word(self, word: str) -> Span:
        """Where a word first stands at the beginning of what a line or a list within this span holds; else the span."""
        found = re.search(rf"(?:^|[{{,]|\n)[ \t]*({re.escape(word)})\b", self.text)
        return Span(self.source, self.start + found.start(1), self.start + found.end(1)) if found else self

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


@dataclass(frozen=True)
class Diagnostic:
    """One mistake: what (`message`), where (`span`, with `label` under the caret), why (`notes`), how to cure it."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    notes: tuple[str, ...] = ()
    help: str | None = None

    @property
    def severity(self) -> str:
        return "warning" if self.code.startswith("W") else "error"


class ProgramError(Exception):
    """A mistake in a program, on its way to the nearest place that can go on without the part that has it."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(f"{diagnostic.code}: {diagnostic.message}")
        self.diagnostic = diagnostic


def fail(
    code: str, message: str, span: Span | None, label: str = "", *, notes: tuple[str, ...] = (), help: str | None = None
) -> NoReturn:
    """Raise the mistake as a `ProgramError`."""
    raise ProgramError(Diagnostic(code, message, span, label, notes, help))


@dataclass
class Reporter:
    """Collects what is wrong, each once, so that one run tells every independent mistake."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    told: set[object] = field(default_factory=set, repr=False)
    codes: dict[object, str] = field(default_factory=dict, repr=False)

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic that is not told yet. Of errors with one place but two codes, the first is the mistake."""
        span = diagnostic.span
        place = span and (span.source.name, span.start, span.end)
        first = self.codes.setdefault(place, diagnostic.code) if place and diagnostic.severity == "error" else None
        key = (diagnostic.code, diagnostic.message, place)
        if key not in self.told and first in (None, diagnostic.code):
            self.told.add(key)
            self.diagnostics.append(diagnostic)

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.diagnostics if d.severity == "error"]

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Collect the mistake that the body raises, and go on after it."""
        try:
            yield
        except ProgramError as error:
            self.add(error.diagnostic)
