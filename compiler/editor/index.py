"""Which name means what: every declared name of a program, and every place that speaks of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

from tdsl.compiler.editor.scopes import Fact, Walk
from tdsl.compiler.editor.symbols import Occurrence, Place, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Source

Trees = Sequence[tuple[Source, ast.File]]


class Index:
    """The symbols of a program's files and their occurrences. `fact` tells what the builder made of an expression."""

    def __init__(self, trees: Trees, fact: Fact) -> None:
        walk = Walk(fact)
        walk.declare(chain.from_iterable(tree.declarations for _, tree in trees))
        for _, tree in trees:
            for declaration in tree.declarations:
                walk.declaration(declaration)
        self.occurrences = sorted(walk.found.values(), key=lambda each: (each.span.source.name, each.span.start))
        self.fields = walk.fields

    @cached_property
    def symbols(self) -> list[Symbol]:
        """Each once, in the order of the files and of their declaration."""
        return list({each.symbol.key: each.symbol for each in self.occurrences}.values())

    @cached_property
    def _starts(self) -> list[Place]:
        return [(each.span.source.name, each.span.start) for each in self.occurrences]

    def at(self, file: str, offset: int) -> Occurrence | None:
        """The occurrence that an offset touches."""
        number = bisect_right(self._starts, (file, offset)) - 1
        for each in self.occurrences[max(number - 1, 0) : number + 1][::-1]:
            if each.span.source.name == file and each.span.start <= offset <= each.span.end:
                return each
        return None

    def of(self, symbol: Symbol) -> list[Occurrence]:
        """Every occurrence of a symbol."""
        return [each for each in self.occurrences if each.symbol.key == symbol.key]

    def visible(self, file: str, offset: int) -> list[Symbol]:
        """The symbols that can be spoken of at an offset, the innermost of a name alone, those nearest first."""
        found: dict[str, Symbol] = {}
        for symbol in sorted(self.symbols, key=lambda s: s.scope is None):
            if symbol.kind not in ("field", "tracked", "evaluate", "forward") and symbol.is_visible(file, offset):
                found[symbol.name] = symbol if symbol.scope or symbol.name not in found else found[symbol.name]
        return list(found.values())
