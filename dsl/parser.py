"""Tokens to syntax tree, by the LALR(1) tables that `tablegen` makes of the grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tdsl.dsl import ast
from tdsl.dsl.build import Builder
from tdsl.dsl.diagnostics import ProgramError, Reporter, Source, Span, fail
from tdsl.dsl.lexer import SOFT_KEYWORDS, Token, tokenize
from tdsl.dsl.syntax_error import Failure, explain
from tdsl.dsl.tables import ACTIONS, END, GOTO, RULES, START

# Deeper trees than this could exhaust the stack of a recursive visitor.
MOST_DEPTH = 200
MOST_REPORTED = 100
# Rules that hand on their only symbol, as a `sum` without a sign: nine in ten reductions.
LEVELS = frozenset(i for i, (name, size, action, _) in enumerate(RULES) if size == 1 and not action and name[0] != "_")


class Entry(NamedTuple):
    """One place of the parser's stack: a state, the value that led to it, its text's ends, its tree's depth."""

    state: int
    value: Any
    start: int
    end: int
    depth: int


def parse(source: Source, reporter: Reporter) -> ast.File:
    """The syntax tree of a file, less the declarations that have syntax errors; those are reported.

    `File.broken` names the declarations left out, as far as their names can be told.
    """
    imports: list[ast.Import] = []
    declarations: list[ast.Declaration] = []
    broken: list[str] = []
    for chunk in tokenize(source, reporter):
        try:
            part = None if chunk.broken else parse_tokens(source, chunk.tokens, reporter)
        except ProgramError as error:
            reporter.add(error.diagnostic)
            part = None
        if part is None:
            broken += [chunk.name] if chunk.name else []
            if len(reporter.diagnostics) > MOST_REPORTED:
                break
            continue
        imports += part.imports
        declarations += part.declarations
    return ast.File(tuple(imports), tuple(declarations), tuple(broken))


def parse_tokens(source: Source, tokens: Sequence[Token], reporter: Reporter) -> ast.File:
    """The declarations that tokens make, the last of them a NEWLINE; raises ProgramError.

    What is only spelt otherwise than it should be is reported, and the declarations hold what it means.
    """
    file: ast.File = _Parser(source, tokens, reporter).run()
    return file


def parse_value(source: Source, start: int = 0) -> ast.Expr:
    """The one expression that a source holds from `start` on; raises ProgramError."""
    reporter = Reporter()
    chunks = tokenize(source, reporter, start)
    if reporter.diagnostics:
        raise ProgramError(reporter.diagnostics[0])
    tokens = [token for chunk in chunks for token in chunk.tokens]
    end = len(source.text)
    value: ast.Expr = _Parser(source, tokens or [Token("NEWLINE", "", end, end)], reporter, "option").run()
    if reporter.diagnostics:
        raise ProgramError(reporter.diagnostics[0])
    return value


class _Parser:
    def __init__(self, source: Source, tokens: Sequence[Token], reporter: Reporter, start: str = "start") -> None:
        self.source = source
        self.tokens = tokens
        self.builder = Builder(source, reporter)
        self.stack: list[Entry] = [Entry(START[start], None, tokens[0].start, tokens[0].start, 0)]
        self.end = END[start]

    def run(self) -> Any:
        for i, token in enumerate(self.tokens):
            self.take(i, token)
        while self.stack[-1].state != self.end:
            self.step(ACTIONS[self.stack[-1].state]["$END"], self.tokens[-1], "$END")
        return self.stack[-1].value

    def take(self, number: int, token: Token) -> None:
        """Reduce as long as the token asks for it, then shift it."""
        while True:
            row = ACTIONS[self.stack[-1].state]
            kind = token.kind
            if kind == "NAME" and token.text in SOFT_KEYWORDS and token.text in row:
                kind = "NAME" if "NAME" in row and self.tokens[number + 1].kind in ("=", ",") else token.text
            target = row.get(kind)
            if target is None:
                states = [entry.state for entry in self.stack]
                raise ProgramError(explain(Failure(self.source, self.tokens, number, states)))
            if self.step(target, token, kind):
                return

    def step(self, target: int, token: Token, kind: str) -> bool:
        """One action of the automaton; true where it took the token."""
        if target >= 0:
            self.stack.append(Entry(target, token, token.start, token.end, 0))
            return True
        self.reduce(~target, kind)
        return False

    def reduce(self, rule: int, kind: str) -> None:
        symbol, length, action, kept = RULES[rule]
        if rule in LEVELS:
            _, value, start, end, depth = self.stack.pop()
            self.stack.append(Entry(self.climb(symbol, kind), value, start, end, depth))
            return
        taken = self.stack[len(self.stack) - length :]
        del self.stack[len(self.stack) - length :]
        start, end, depth = self.extent(taken)
        values = _values(taken, kept)
        value = values
        if action:
            depth += 1
            span = Span(self.source, start, end)
            if depth > MOST_DEPTH:
                help = "name its parts: `a = ...`"
                fail("E003", f"more than {MOST_DEPTH} operations within one another", span, help=help)
            value = self.builder.action(action)(span, *values)
        elif not symbol.startswith("_"):
            (value,) = values
        self.stack.append(Entry(GOTO[self.stack[-1].state][symbol], value, start, end, depth))

    def climb(self, symbol: str, kind: str) -> int:
        """The state after `symbol` and all the levels of precedence that it passes without an operator."""
        below = GOTO[self.stack[-1].state]
        state = below[symbol]
        while (target := ACTIONS[state].get(kind, 0)) < 0 and ~target in LEVELS:
            state = below[RULES[~target][0]]
        return state

    def extent(self, taken: list[Entry]) -> tuple[int, int, int]:
        """Start, end and depth of what was taken; of nothing, the place after the symbol before."""
        written = [entry for entry in taken if entry.end > entry.start]
        if not written:
            end = self.stack[-1].end
            return end, end, 0
        return written[0].start, written[-1].end, max(entry.depth for entry in taken)


def _values(taken: list[Entry], kept: tuple[int, ...]) -> list[Any]:
    """What an action is given; a list that comes first is extended in place, so that long ones take linear time."""
    values: list[Any] = taken[~kept[0]].value if kept and kept[0] < 0 else []
    for i in kept[1:] if kept and kept[0] < 0 else kept:
        if i < 0:
            values += taken[~i].value
        else:
            values.append(taken[i].value)
    return values
