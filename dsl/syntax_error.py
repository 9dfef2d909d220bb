"""What is said where the parser can't go on: what stands there, what could, and the usual slips by their own codes."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import dataclass

from tdsl.dsl.diagnostics import Diagnostic, Source, Span
from tdsl.dsl.lexer import KEYWORDS, SOFT_KEYWORDS, Token
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.tables import ACTIONS, GOTO, RULES

EXPRESSION = frozenset(("NAME", "NUMBER", "STRING", "(", "[", "true", "false", "none", "SIGN", "not"))
OPERATORS = frozenset(("COMPARE", "SIGN", "TIMES", "**", "and", "or", "if", "|>", ".", "(", "[", "else"))
SHOWN = {"NAME": "a name", "NUMBER": "a number", "STRING": "a string", "NEWLINE": "the end of the line"}
MOST_SHOWN = 6


@dataclass(frozen=True)
class Failure:
    """The parser's states when it could not take `tokens[number]`."""

    source: Source
    tokens: Sequence[Token]
    number: int
    states: Sequence[int]

    @property
    def token(self) -> Token:
        return self.tokens[self.number]

    @property
    def before(self) -> Token | None:
        return self.tokens[self.number - 1] if self.number else None

    @property
    def span(self) -> Span:
        token = self.token
        if token.kind == "NEWLINE":  # the caret goes behind what the line ends with
            end = self.before.end if self.before else token.start
            return Span(self.source, end, end + 1)
        return Span(self.source, token.start, token.end)

    def accepts(self, kind: str) -> bool:
        """Whether the parser could have taken a token of this kind."""
        states = list(self.states)
        while (target := ACTIONS[states[-1]].get(kind)) is not None:
            if target >= 0:
                return True
            symbol, length, _, _ = RULES[~target]
            del states[len(states) - length :]
            states.append(GOTO[states[-1]][symbol])
        return False

    @property
    def expected(self) -> list[str]:
        return [kind for kind in ACTIONS[self.states[-1]] if kind != "$END" and self.accepts(kind)]


def explain(failure: Failure) -> Diagnostic:
    """The diagnostic of a syntax error: of the first slip that is recognised, or of what was expected."""
    for slip in SLIPS:
        found = slip(failure)
        if found is not None:
            return found
    expected = _described(failure.expected)
    word = failure.token.text
    soft = [kind for kind in failure.expected if kind in SOFT_KEYWORDS]
    help = did_you_mean(word, soft) if failure.token.kind == "NAME" else None
    return Diagnostic("E012", f"expected {expected}, found {_found(failure.token)}", failure.span, help=help)


def _found(token: Token) -> str:
    if token.kind == "NEWLINE":
        return "the end of the line" if token.text else "the end of the file"
    return f"`{token.text}`" if token.kind != "STRING" else "a string"


def _described(kinds: Sequence[str]) -> str:
    found = set(kinds)
    named: list[str] = []
    if found >= EXPRESSION - {"SIGN", "not"}:
        named.append("an expression")
        found -= EXPRESSION
    elif found & {"COMPARE", "TIMES"}:  # behind an expression: what could end it says more than what could continue it
        found -= OPERATORS
    named += [SHOWN.get(kind, f"`{kind}`") for kind in sorted(found, key=lambda kind: (kind in SHOWN, kind))]
    if not named:
        return "an operator"
    if len(named) > MOST_SHOWN:
        named = [*named[:MOST_SHOWN], "..."]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"


# The usual slips -----------------------------------------------------------------------------------------------------


def _equals(failure: Failure) -> Diagnostic | None:
    """`a == 1` where a value is given, `if a = 1` where values are compared, `a += 1`."""
    token, before = failure.token, failure.before
    if token.text == "==" and failure.accepts("="):
        return Diagnostic("E021", "`==` compares; a value is given with `=`", failure.span, help="write `=`")
    if token.kind != "=" or before is None:
        return None
    if before.kind in ("SIGN", "TIMES", "**"):
        name = failure.tokens[failure.number - 2].text
        help = f"write `{name} = {name} {before.text} ...`"
        span = Span(failure.source, before.start, token.end)
        return Diagnostic("E022", f"there is no `{before.text}=`", span, help=help)
    if failure.accepts("COMPARE"):
        return Diagnostic("E021", "`=` gives a value; comparing is `==`", failure.span, help="write `==`")
    return None


def _update(failure: Failure) -> Diagnostic | None:
    """`a += 1`, noticed at the operator."""
    following = failure.tokens[failure.number + 1 : failure.number + 2]
    if failure.token.kind not in ("SIGN", "TIMES", "**") or not following or following[0].kind != "=":
        return None
    name = failure.before.text if failure.before else "a"
    operator = failure.token.text
    span = Span(failure.source, failure.token.start, following[0].end)
    return Diagnostic("E022", f"there is no `{operator}=`", span, help=f"write `{name} = {name} {operator} ...`")


def _python(failure: Failure) -> Diagnostic | None:
    """Python's own words."""
    cures = {
        "elif": "write `else if COND { }`",
        "def": "write `fn name(x: type) -> type { ... }`",
        "class": "write `module Name(params) { ... }`",
        "lambda": "declare a `fn` and give its name",
        "from": 'write `import "file.model"`',
        "while": "loops are `for i in range(n) { }`",
        "is": "compare with `==`",
    }
    for token in (failure.token, failure.before):
        if token is not None and token.kind == "NAME" and keyword.iskeyword(token.text):
            span = Span(failure.source, token.start, token.end)
            return Diagnostic("E019", f"`{token.text}` is Python, not tdsl", span, help=cures.get(token.text))
    return None


def _keyword(failure: Failure) -> Diagnostic | None:
    token = failure.token
    if token.kind not in KEYWORDS or not failure.accepts("NAME") or failure.accepts("NUMBER"):
        return None
    return Diagnostic("E023", f"`{token.text}` is a keyword and cannot be a name", failure.span, help="choose another")


def _chain(failure: Failure) -> Diagnostic | None:
    """`a < b < c`."""
    if failure.token.kind != "COMPARE" or failure.accepts("="):
        return None
    inside = any(token.kind == "COMPARE" for token in failure.tokens[: failure.number])
    if not inside or not failure.accepts("and"):
        return None
    return Diagnostic("E024", "comparisons do not chain", failure.span, help="write `a < b and b < c`")


def _comma(failure: Failure) -> Diagnostic | None:
    """Two values side by side where a comma could separate them."""
    token = failure.token
    starts = token.kind in ("NAME", "NUMBER", "STRING", "true", "false", "none")
    if not starts or not failure.accepts(",") or failure.before is None:
        return None
    where = Span(failure.source, failure.before.end, failure.before.end + 1)
    return Diagnostic("E025", f"expected a `,` before {_found(token)}", where)


def _statement(failure: Failure) -> Diagnostic | None:
    """A call that stands alone, where only its result could matter."""
    if failure.accepts("=") and failure.accepts(",") and failure.token.kind in ("(", ".", "|>"):
        help = "name what it gives: `y = ...`, or `return` it"
        return Diagnostic(
            "E026", "a value that nothing uses", failure.span, "only `NAME = ...` can stand here", help=help
        )
    return None


def _brace(failure: Failure) -> Diagnostic | None:
    """`{` on the next line."""
    following = failure.tokens[failure.number + 1 : failure.number + 2]
    if failure.token.kind == "NEWLINE" and failure.accepts("{") and following and following[0].kind == "{":
        return Diagnostic("E027", "the `{` belongs on the line before", failure.span, "expected `{` here")
    return None


SLIPS = (_equals, _update, _python, _keyword, _chain, _comma, _statement, _brace)
