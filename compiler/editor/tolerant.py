"""Syntax trees of programs as they are being typed: what is missing is put in, what can't be read left out.

A declaration that has a syntax error is mended and read again; its spans are those of the text as it stands. `HOLE` is
the name that stands where one is missing, as in `x.` and `h =`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, ProgramError, Reporter, Source
from tdsl.dsl.lexer import Token, tokenize
from tdsl.dsl.parser import parse_tokens

HOLE = "_hole"
MOST_REPAIRS = 8
LONGEST = 20_000


def mend(source: Source, parsed: ast.File) -> ast.File:
    """What `parse` made of a source, with the declarations that have syntax errors in it, as far as they can be mended.

    `File.broken` names those that can't be.
    """
    chunks = tokenize(source, Reporter())
    read = {each.span.start for each in (*parsed.imports, *parsed.declarations)}
    parts: list[ast.File] = [parsed]
    broken: list[str] = []
    for number, chunk in enumerate(chunks):
        start = chunk.tokens[0].start
        end = chunks[number + 1].tokens[0].start if number + 1 < len(chunks) else len(source.text)
        if any(start <= each < end for each in read):
            continue
        found = _mended(source, start, end)
        if found is not None:
            parts.append(found)
        elif chunk.name:
            broken.append(chunk.name)
    imports = sorted((each for part in parts for each in part.imports), key=_place)
    declarations = sorted((each for part in parts for each in part.declarations), key=_place)
    return ast.File(tuple(imports), tuple(declarations), tuple(broken))


def _place(node: ast.Node) -> int:
    return node.span.start


@dataclass(frozen=True)
class Patched:
    """A text with edits; `origins` has for each of its offsets the offset in the file."""

    text: str
    origins: tuple[int, ...]

    def replaced(self, start: int, end: int, by: str) -> Patched:
        """Put text in at a place, or in the place of as many characters."""
        inserted = (self.origins[start],) * len(by) if start == end else self.origins[start:end]
        return Patched(self.text[:start] + by + self.text[end:], self.origins[:start] + inserted + self.origins[end:])

    def blanked(self, start: int, end: int) -> Patched:
        """With spaces, and line breaks where they were."""
        return self.replaced(start, end, "".join("\n" if c == "\n" else " " for c in self.text[start:end]))

    def line_end(self, offset: int) -> int:
        end = self.text.find("\n", offset)
        return len(self.text) if end < 0 else end

    def line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1


@dataclass(frozen=True)
class Attempt:
    """What became of a patched text: its tree, or its first mistake with the tokens that were read."""

    file: ast.File | None
    mistake: Diagnostic | None
    tokens: tuple[Token, ...]

    def reached(self, patch: Patched) -> int:
        """How far into the file it was understood."""
        if self.mistake is None or self.mistake.span is None:
            return patch.origins[-1] + 1
        return patch.origins[min(self.mistake.span.start, len(patch.text))]


def _mended(source: Source, start: int, end: int) -> ast.File | None:
    """The declarations between two offsets, mended; None where that can't be done."""
    if end - start > LONGEST:
        return None
    patch = Patched(source.text[start:end], tuple(range(start, end + 1)))
    attempt = _attempt(patch, source)
    for _ in range(MOST_REPAIRS):
        if attempt.mistake is None:
            return attempt.file
        found = _repaired(patch, attempt, source)
        if found is None:
            return None
        patch, attempt = found
    return attempt.file if attempt.mistake is None else None


def _attempt(patch: Patched, source: Source) -> Attempt:
    """Read a patched text."""
    reporter = Reporter()
    part = Source(source.name, patch.text)
    chunks = tokenize(part, reporter)
    tokens = [token for chunk in chunks for token in chunk.tokens]
    if reporter.diagnostics:
        return Attempt(None, reporter.diagnostics[0], tuple(tokens))
    files: list[ast.File] = []
    try:
        for chunk in chunks:
            parse_tokens(part, chunk.tokens, Reporter())
            placed = [t._replace(start=patch.origins[t.start], end=patch.origins[t.end]) for t in chunk.tokens]
            files.append(parse_tokens(source, placed, Reporter()))
    except ProgramError as error:
        return Attempt(None, error.diagnostic, tuple(tokens))
    imports = tuple(each for file in files for each in file.imports)
    return Attempt(ast.File(imports, tuple(d for f in files for d in f.declarations)), None, tuple(tokens))


def _repaired(patch: Patched, attempt: Attempt, source: Source) -> tuple[Patched, Attempt] | None:
    """The first repair of a mistake after which more is understood."""
    mistake = attempt.mistake
    if mistake is None or mistake.span is None:
        return None
    brackets = ("E006", "E010", "E011")
    for candidate in _candidates(patch, mistake, attempt.tokens):
        tried = _attempt(candidate, source)
        # A bracket that is put in lets the reading begin, which may fail before the place where it was missed.
        if tried.reached(candidate) > attempt.reached(patch) or mistake.code in brackets:
            return candidate, tried
    return None


def _candidates(patch: Patched, mistake: Diagnostic, tokens: tuple[Token, ...]) -> list[Patched]:
    assert mistake.span is not None
    start, end = min(mistake.span.start, len(patch.text)), min(mistake.span.end, len(patch.text))
    if mistake.code == "E006":
        return [patch.replaced(end, end, '"')]
    if mistake.code == "E010":
        return [_closed(patch, start, tokens)]
    if mistake.code == "E011":
        return [patch.blanked(start, end)]
    if mistake.code in ("E004", "E008"):
        return [patch.replaced(start, end, "0" * (end - start)), patch.blanked(start, end)]
    line = patch.line_end(start)
    return [
        patch.replaced(start, start, f" {HOLE} "),
        patch.replaced(start, start, f" = {HOLE} "),
        patch.blanked(start, end),
        patch.blanked(start, line),
        patch.blanked(patch.line_start(start), line),
    ]


def _closed(patch: Patched, opener: int, tokens: tuple[Token, ...]) -> Patched:
    """With the bracket closed: `(` and `[` where their line ends, `{` at the end of the declaration."""
    if patch.text[opener] == "{":
        end = tokens[-1].start
        return patch.replaced(end, end, "\n}\n")
    line = patch.line_end(opener)
    end = max((token.end for token in tokens if opener <= token.start and token.end <= line), default=opener + 1)
    # What a line ends with may belong to a block that it opens.
    last = patch.text[end - 1]
    if last == "{" and end - 1 > opener:
        end -= 1
    return patch.replaced(end, end, ")" if patch.text[opener] == "(" else "]")
