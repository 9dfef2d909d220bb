"""Where in a program a cursor stands, told by the tokens before it alone: they are there while the rest is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.lexer import DECLARATIONS, Token, tokenize

_BEGINS = re.compile(rf"^(?:{'|'.join(sorted(DECLARATIONS))})\b", re.MULTILINE)


@dataclass
class Opened:
    """A bracket that is open at the cursor.

    `head` is what stands before it in its statement, `parts` what stands since it, or since the last `,` or newline
    after it; `given` are the names of the arguments before.
    """

    bracket: str
    start: int
    head: list[Token]
    parts: list[Token] = field(default_factory=list)
    commas: int = 0
    given: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return [token.text for token in self.parts]

    @property
    def first(self) -> str:
        """The first word before the bracket: `forward`, `checkpoint`, `for`."""
        return self.head[0].text if self.head else ""

    @property
    def callee(self) -> Token | None:
        """The name before a `(`."""
        last = self.head[-1] if self.head else None
        return last if self.bracket == "(" and last is not None and last.kind == "NAME" else None

    @property
    def keyword(self) -> str:
        """The name of the argument that the cursor is in; empty where it has none yet."""
        words = self.words
        return words[0] if len(words) > 1 and words[1] == "=" else ""


@dataclass(frozen=True)
class Context:
    """`prefix` is the part of a word before the cursor, which begins at `start`.

    The tokens count from `begin`. `place`: `top`, `members` of a module, `body` of a function or block, `data`, `run`,
    `section`, or `nothing` in a comment. `dot` is the offset of the `.` that the word stands behind; `string` the text
    of the string so far.
    """

    place: str
    prefix: str
    start: int
    begin: int
    opened: tuple[Opened, ...]
    dot: int | None = None
    string: str | None = None

    @property
    def inner(self) -> Opened:
        return self.opened[-1]

    @property
    def declaration(self) -> Sequence[Token]:
        """The first words of the declaration: `train gpt`."""
        return self.opened[1].head if len(self.opened) > 1 else self.opened[0].parts

    @property
    def section(self) -> str:
        """The section or block around the cursor."""
        braces = [each for each in self.opened if each.bracket == "{"]
        return braces[-1].first if len(braces) > 1 else ""

    @property
    def call(self) -> Opened | None:
        """The innermost call that the cursor is in."""
        for each in reversed(self.opened):
            if each.bracket == "{":
                return None
            if each.bracket == "(":
                return each if each.callee is not None else None
        return None

    @property
    def statement(self) -> list[str]:
        """The words of the statement so far, up to its first open bracket."""
        for number in range(len(self.opened) - 1, -1, -1):
            if self.opened[number].bracket in ("{", ""):
                return self.opened[number].words
        return []

    @property
    def is_value(self) -> bool:
        """Whether the statement has its `=` behind it."""
        return "=" in self.statement

    @property
    def targets(self) -> set[int]:
        """Where the names stand that the statement binds."""
        base = next((each for each in reversed(self.opened) if each.bracket in ("{", "")), self.inner)
        words = base.words
        end = words.index("=") if "=" in words else len(words)
        return {self.begin + token.start for token in base.parts[:end]}

    @property
    def is_stage(self) -> bool:
        """Whether the cursor is right behind a `|>`."""
        return self.inner.words[-1:] == ["|>"]

    @property
    def is_start(self) -> bool:
        """Whether a statement, or a setting, begins here."""
        return self.inner.bracket in ("{", "") and not self.inner.parts

    @property
    def is_type(self) -> bool:
        """Whether a dtype is expected: behind the `:` of an input, a parameter or a field."""
        words = self.inner.words
        return bool(words) and words[-1] in (":", "->") and "=" not in words

    @property
    def is_dimension(self) -> bool:
        """Whether the cursor is within the sizes of a type."""
        if self.inner.bracket != "[" or not self.inner.head:
            return False
        words = [token.text for token in self.inner.head]
        return words[-1] in (":", "->", "(", ",") or (len(words) > 1 and words[-2] in (":", "->", "(", ","))


def context(text: str, offset: int) -> Context:
    """The context of an offset."""
    begins = [match.start() for match in _BEGINS.finditer(text, 0, offset)]
    begin = begins[-1] if begins else 0
    source = Source("", text[begin:offset])
    comments: list[Token] = []
    tokens = [t for chunk in tokenize(source, Reporter(), comments=comments) for t in chunk.tokens if t.start < t.end]
    size = offset - begin
    prefix, string = "", None
    if comments and comments[-1].end == size:
        return Context("nothing", "", offset, begin, (Opened("", 0, []),))
    if tokens and tokens[-1].end == size and tokens[-1].kind != "NEWLINE":
        last = tokens[-1]
        if last.kind == "STRING" and not _is_closed(last.text):
            string = last.text[1:]
            tokens.pop()
        elif last.text.isidentifier():
            prefix = tokens.pop().text
    dot = tokens[-1].start + begin if tokens and tokens[-1].text == "." else None
    opened = _opened(tokens)
    start = offset - len(string if string is not None else prefix)
    return Context(_place(opened), prefix, start, begin, opened, dot, string)


def _is_closed(text: str) -> bool:
    return re.fullmatch(r'"(?:[^"\\]|\\.)*"', text) is not None


def _opened(tokens: Sequence[Token]) -> tuple[Opened, ...]:
    stack = [Opened("", 0, [])]
    for token in tokens:
        inner = stack[-1]
        if token.text in ("(", "[", "{") and token.kind != "STRING":
            stack.append(Opened(token.text, token.start, list(inner.parts)))
        elif token.text in (")", "]", "}") and token.kind != "STRING":
            if len(stack) > 1:
                stack.pop()
            stack[-1].parts += (Token("()", token.text, token.start, token.end),)
        elif token.kind == "NEWLINE":
            inner.parts.clear()
        elif token.text == "," and token.kind != "STRING" and inner.bracket:
            inner.given += [inner.keyword] if inner.keyword else []
            inner.commas += 1
            inner.parts.clear()
        else:
            inner.parts.append(token)
    return tuple(stack)


def _place(opened: Sequence[Opened]) -> str:
    braces = [each for each in opened if each.bracket == "{"]
    if not braces:
        return "top"
    outer = braces[0].first
    if outer == "fn":
        return "body"
    if outer in ("module", "extern"):
        return "members" if len(braces) == 1 else "body"
    if outer == "data":
        return "data"
    if len(braces) == 1:
        return "run"
    is_block = any(token.kind == "()" for token in braces[1].head)
    return "body" if is_block or len(braces) > 2 else "section"
