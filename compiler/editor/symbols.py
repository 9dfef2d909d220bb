"""Declared names, and the places that speak of them."""

from __future__ import annotations

from dataclasses import dataclass

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span

# A file and an offset: what tells a declaration from all others.
Place = tuple[str, int]


@dataclass(frozen=True)
class Symbol:
    """A declared name. `scope` is where it can be used; None for one that the whole program sees.

    `kind`: `const fn module extern data train evaluate field parameter input member param buffer forward size local
    loop model batch tracked`.
    """

    kind: str
    name: str
    span: Span
    node: ast.Node
    scope: Span | None = None

    @property
    def key(self) -> Place:
        """What tells it from all others."""
        return self.span.source.name, self.span.start

    def is_visible(self, file: str, offset: int) -> bool:
        if self.scope is None:
            return True
        within = self.scope.source.name == file and self.scope.start <= offset <= self.scope.end
        return within and (self.kind in ("parameter", "input", "size", "model", "batch") or self.span.end < offset)


@dataclass(frozen=True)
class Occurrence:
    """A place where a symbol's name stands."""

    span: Span
    symbol: Symbol

    @property
    def declares(self) -> bool:
        return self.span.start == self.symbol.span.start and self.span.source.name == self.symbol.span.source.name
