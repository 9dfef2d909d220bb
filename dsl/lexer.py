"""Text to tokens: one list for each declaration, so that a mistake in one does not hide those in the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from tdsl.dsl.diagnostics import Diagnostic, Reporter, Source, Span

MOST_CHARACTERS = 1 << 20
MOST_NESTING = 64

# Always keywords; each of the others is one only where the parser can take it.
KEYWORDS = frozenset(["import", "return", "for", "in", "if", "else", "and", "or", "not", "true", "false", "none"])
SOFT_KEYWORDS = frozenset(
    [
        "extern",
        "const",
        "fn",
        "module",
        "data",
        "train",
        "evaluate",
        "param",
        "buffer",
        "forward",
        "field",
        "transform",
        "track",
        "assume",
        "no_grad",
    ]
)
DECLARATIONS = frozenset(["import", "extern", "const", "fn", "module", "data", "train", "evaluate"])

TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]+|\#[^\n]*)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<newline>\n)
      | (?P<operator>\|>|->|\*\*|//|\.\.\.|[=!<>]=|[-+*/%@<>=(){}\[\],.:])
      | (?P<number>[0-9](?:[eE][-+][0-9]|\.[0-9]|[A-Za-z0-9_])*)
      | (?P<docstring>"{3}(?:.*?"{3}|[^\n]*))
      | (?P<string>"(?:[^"\\\n]|\\[^\n])*(?P<close>")?)
      | (?P<quoted>'(?:[^'\\\n]|\\[^\n])*'?)
      | (?P<other>&&|\|\||[^\W\d]\w*|.)""",
    re.VERBOSE | re.DOTALL,
)
OPERATORS = {
    **dict.fromkeys(("==", "!=", "<", ">", "<=", ">="), "COMPARE"),
    **dict.fromkeys(("+", "-"), "SIGN"),
    **dict.fromkeys(("*", "/", "//", "%", "@"), "TIMES"),
}
CLOSERS = {"(": ")", "[": "]", "{": "}"}


class Token(NamedTuple):
    """`kind` is a terminal of the grammar; `text` what stands at `start` to `end`."""

    kind: str
    text: str
    start: int
    end: int


@dataclass
class Chunk:
    """The tokens of one declaration; `broken` where a mistake in them has been reported already."""

    tokens: list[Token] = field(default_factory=list)
    broken: bool = False

    @property
    def name(self) -> str | None:
        """The name declared, as far as it can be told."""
        words = [token.text for token in self.tokens[:3] if token.kind == "NAME"]
        return words[-1] if len(words) > 1 else None


@dataclass
class Opener:
    token: Token
    indent: int
    suspect: bool = False


def tokenize(source: Source, reporter: Reporter, start: int = 0, comments: list[Token] | None = None) -> list[Chunk]:
    """Tokens of each declaration from `start` on, the last a NEWLINE; mistakes mark their chunk as broken.

    Comments are no tokens of the grammar: they are added to `comments`, if that is given.
    """
    if len(source.text) > MOST_CHARACTERS:
        limit = Span(source, MOST_CHARACTERS, MOST_CHARACTERS + 1)
        help = "divide it, with `import`"
        reporter.add(Diagnostic("E002", "the file is longer than 1 MiB", limit, "the limit is here", help=help))
        return []
    return _Lexer(source, reporter, comments).run(start)


class _Lexer:
    def __init__(self, source: Source, reporter: Reporter, comments: list[Token] | None) -> None:
        self.source = source
        self.reporter = reporter
        self.comments = comments
        self.chunk = Chunk()
        self.chunks: list[Chunk] = []
        self.openers: list[Opener] = []
        self.suspect: Token | None = None
        self.line_start = 0
        self.indent = 0
        self.first = True  # nothing but blanks on this line yet

    def run(self, start: int) -> list[Chunk]:
        text = self.source.text
        position = start or int(text.startswith("\ufeff"))
        while position < len(text) and len(self.openers) <= MOST_NESTING:
            match = TOKEN.match(text, position)
            assert match is not None
            position = match.end()
            kind = match.lastgroup or ""
            if kind == "blank":
                if self.comments is not None and match.group()[0] == "#":
                    self.comments.append(Token("COMMENT", match.group(), match.start(), position))
                continue
            if kind == "newline":
                self.newline(match.start(), position)
                continue
            if self.first:
                self.begin_line(match)
            getattr(self, "string" if kind == "close" else kind)(match.group(), match.start(), position)
        self.finish()
        return self.chunks

    def begin_line(self, match: re.Match[str]) -> None:
        self.first = False
        self.indent = match.start() - self.line_start
        if self.openers and self.is_declaration(match):
            self.unclosed(f"`{match.group()}` begins a new declaration here", match.start())
            self.end_chunk(match.start())
        elif not self.openers and self.begins(match.group()):
            self.end_chunk(match.start())

    def begins(self, word: str) -> bool:
        """Whether a line outside of brackets begins something new: one that is indented goes on what is above it."""
        return word in DECLARATIONS or (not self.indent and word not in ("|>", "else", "{"))

    def is_declaration(self, match: re.Match[str]) -> bool:
        """Whether a line within open brackets can only be the next declaration: the sign of a lost bracket."""
        if match.group() not in DECLARATIONS or self.indent > self.openers[0].indent:
            return False
        return re.compile(r'[ \t]+["A-Za-z_]').match(self.source.text, match.end()) is not None

    def newline(self, start: int, end: int) -> None:
        self.line_start = end
        self.first = True
        tokens = self.chunk.tokens
        if self.openers and self.openers[-1].token.text != "{":
            return
        if tokens and tokens[-1].kind != "NEWLINE":
            tokens.append(Token("NEWLINE", "\n", start, end))

    def word(self, text: str, start: int, end: int) -> None:
        if text == "else":
            self.join()
        self.add(text if text in KEYWORDS else "NAME", text, start, end)

    def operator(self, text: str, start: int, end: int) -> None:
        if text == "|>":
            self.join()
        elif text in "([{":
            self.open(text, start, end)
        elif text in ")]}":
            self.close(text, start, end)
        self.add(OPERATORS.get(text, text), text, start, end)

    def number(self, text: str, start: int, end: int) -> None:
        if not re.fullmatch(r"[0-9]+(_[0-9]+)*(\.[0-9]+(_[0-9]+)*)?([eE][-+]?[0-9]+)?", text):
            self.mistake("E008", f"`{text}` is not a number", start, end, help="numbers look like 12, 1_000, 0.5, 3e-4")
        elif text.replace("_", "").isdigit() and (len(text) > 40 or int(text) >= 1 << 63):
            self.mistake(
                "E004", "an integer has at most 64 bits", start, end, help="the largest is 9223372036854775807"
            )
        elif len(text) > 400 or float(text) == float("inf"):
            self.mistake("E004", "the number is too large", start, end, help="the largest is about 1.8e308")
        self.add("NUMBER", text, start, end)

    def string(self, text: str, start: int, end: int) -> None:
        if len(text) < 2 or not re.fullmatch(r'"(?:[^"\\]|\\.)*"', text):
            self.mistake("E006", "the string is not closed", start, end, help='end it with `"` on the same line')
        for match in re.finditer(r"\\(.)", text):
            if match[1] not in '"\\nt':
                where = start + match.start()
                help = r"the escapes are \" \\ \n \t"
                self.mistake("E007", f"`{match[0]}` is not an escape", where, where + 2, help=help)
        self.add("STRING", text, start, end)

    def quoted(self, text: str, start: int, end: int) -> None:
        inner = text.strip("'")
        help = f'write "{inner}"' if len(inner) < 40 else 'write "..."'
        self.mistake("E005", "strings stand in double quotes", start, end, help=help)
        self.add("STRING", text, start, end)

    def docstring(self, text: str, start: int, end: int) -> None:
        help = "comment lines directly above a declaration are its documentation"
        self.mistake("E019", "there are no strings of several lines", start, start + 3, help=help)
        self.line_start = start + text.rfind("\n") + 1 if "\n" in text else self.line_start
        self.add("STRING", text, start, end)

    def other(self, text: str, start: int, end: int) -> None:
        shown = text if text.isprintable() else f"U+{ord(text[0]):04X}"
        self.mistake("E005", f"unexpected character `{shown}`", start, end, help=_cure(text))

    def add(self, kind: str, text: str, start: int, end: int) -> None:
        self.chunk.tokens.append(Token(kind, text, start, end))

    def join(self) -> None:
        """Let the line go on the one before it."""
        if self.chunk.tokens and self.chunk.tokens[-1].kind == "NEWLINE":
            self.chunk.tokens.pop()

    def open(self, text: str, start: int, end: int) -> None:
        while text == "{" and self.openers and self.openers[-1].token.text != "{":
            self.unclosed("no `{` can stand within it", start, keep=True)
        self.openers.append(Opener(Token(text, text, start, end), self.indent))
        if len(self.openers) == MOST_NESTING + 1:
            self.mistake(
                "E003", f"more than {MOST_NESTING} levels of nesting", start, end, help="give inner parts a name"
            )

    def close(self, text: str, start: int, end: int) -> None:
        matching = [i for i, opener in enumerate(self.openers) if CLOSERS[opener.token.text] == text]
        if not matching:
            self.mistake(
                "E011", f"`{text}` closes nothing", start, end, help="remove it, or open it where it should begin"
            )
            return
        while len(self.openers) > matching[-1] + 1:
            self.unclosed(f"`{text}` closes what is around it", start, keep=True)
        opener = self.openers.pop()
        alone = start == self.line_start + self.indent
        if text == "}" and alone and self.indent != opener.indent and self.suspect is None:
            self.suspect = opener.token
        if not self.openers:
            self.suspect = None

    def unclosed(self, why: str, noticed: int, keep: bool = False) -> None:
        """Report the innermost open bracket; of braces, one whose `}` stood at another's indentation where there is."""
        opener = self.openers.pop().token
        token = self.suspect if self.suspect is not None and opener.text == "{" and not keep else opener
        line = self.source.position(noticed)[0]
        expected = CLOSERS[token.text]
        note = f"line {line}: {why}"
        help = f"write the `{expected}` where what it opens ends"
        what = f"`{token.text}` is not closed"
        self.mistake("E010", what, token.start, token.end, f"expected a `{expected}`", note, help)

    def mistake(
        self, code: str, message: str, start: int, end: int, label: str = "", note: str = "", help: str | None = None
    ) -> None:
        self.chunk.broken = True
        span = Span(self.source, start, end)
        if len(self.reporter.diagnostics) < 200:
            self.reporter.add(Diagnostic(code, message, span, label, (note,) if note else (), help))

    def end_chunk(self, position: int) -> None:
        tokens = self.chunk.tokens
        if tokens and tokens[-1].kind != "NEWLINE":
            tokens.append(Token("NEWLINE", "", position, position))
        if tokens:
            self.chunks.append(self.chunk)
        self.chunk = Chunk()
        self.openers.clear()
        self.suspect = None

    def finish(self) -> None:
        if self.openers and len(self.openers) <= MOST_NESTING:
            self.unclosed("the file ends here", max(len(self.source.text.rstrip()) - 1, 0))
        self.end_chunk(len(self.source.text))


CURES = {
    ";": "a newline ends a statement; the settings of a section may be separated by commas",
    **dict.fromkeys(("&", "&&"), "write `and`; of tensors, `logical_and(a, b)`"),
    **dict.fromkeys(("|", "||"), "write `or`; of tensors, `logical_or(a, b)`"),
    "!": "write `not`",
    "~": "write `not`; of a tensor, `logical_not(a)`",
    "^": "a power is `x ** 2`",
    "?": "a choice is `a if c else b`",
    "$": "names are used as they are declared",
    "`": "names are used as they are declared",
    "\\": "a statement goes over several lines within `( )` or `[ ]`",
}


def _cure(text: str) -> str | None:
    if not text.isascii() and text[0].isalpha():
        return "names are ASCII: letters, digits and `_`"
    return CURES.get(text)
