"""What is said where the parser can't go on: what stands there, and what could. `slips.py` has the usual slips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tdsl.dsl.diagnostics import Diagnostic, Source, Span
from tdsl.dsl.lexer import SOFT_KEYWORDS, Token
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.tables import ACTIONS, GOTO, RULES

EXPRESSION = frozenset(("NAME", "NUMBER", "STRING", "(", "[", "true", "false", "none", "SIGN", "not"))
OPERATORS = frozenset(("COMPARE", "SIGN", "TIMES", "**", "and", "or", "if", "|>", ".", "(", "[", "else"))
SHOWN = {"NAME": "a name", "NUMBER": "a number", "STRING": "a string", "NEWLINE": "the end of the line"}
MOST_SHOWN = 6
# By a word that can begin a part of it: what may stand in each part of a program.
HOLDS = {
    "extern": "a file holds `import`, `extern module`, `const`, `fn`, `module`, `data`, `train` and `evaluate`",
    "buffer": "a module holds `param NAME: type = ...`, `buffer ...`, `NAME = ...` and one `forward(...) -> ... { }`",
    "return": "statements are `NAME = ...`, `return`, `for`, `if`, `track`, `assume` and `no_grad`",
    "transform": "a dataset holds `NAME = ...`, `field NAME: type = ...` and `transform NAME = [...]`",
}


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

    def after(self, places: int = 1) -> Token | None:
        """The token so many places behind the one that could not be taken."""
        return self.tokens[self.number + places] if self.number + places < len(self.tokens) else None

    @property
    def line(self) -> Sequence[Token]:
        """The tokens before it on its line."""
        start = self.number
        while start and self.tokens[start - 1].kind != "NEWLINE":
            start -= 1
        return self.tokens[start : self.number]

    @property
    def expected(self) -> list[str]:
        return [kind for kind in ACTIONS[self.states[-1]] if kind != "$END" and self.accepts(kind)]


def explain(failure: Failure) -> Diagnostic:
    """The diagnostic of a syntax error: of the first slip that is recognised, or of what was expected."""
    from tdsl.dsl.slips import SLIPS  # the slips are written in terms of a `Failure`

    for slip in SLIPS:
        told = slip(failure)
        if told is not None:
            return told
    expected = _described(failure.expected)
    word = failure.token.text
    soft = [kind for kind in failure.expected if kind in SOFT_KEYWORDS]
    help = (did_you_mean(word, soft) if failure.token.kind == "NAME" else None) or _holds(failure)
    return Diagnostic("E012", f"expected {expected}, found {found(failure.token)}", failure.span, help=help)


def _holds(failure: Failure) -> str | None:
    """What may stand in the part of a program in which the parser stopped."""
    kinds = failure.expected
    if kinds == ["NAME"]:
        return "a name is made of letters, digits and `_`, such as `hidden_size`"
    for kind, holds in HOLDS.items():
        if kind in kinds:
            return holds
    return None


def found(token: Token) -> str:
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
