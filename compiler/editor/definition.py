"""From a name to where it is declared, and to everywhere else that it stands."""

from __future__ import annotations

import os

from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.symbols import Symbol
from tdsl.dsl.diagnostics import Source, Span


def symbol_at(analysis: Analysis, offset: int) -> Symbol | None:
    """The declared name that an offset touches."""
    found = analysis.index.at(analysis.path, offset)
    return found.symbol if found is not None else None


def definition(analysis: Analysis, offset: int) -> Span | None:
    """Where the name at an offset is declared; of an `import`, the beginning of the file."""
    symbol = symbol_at(analysis, offset)
    if symbol is not None:
        return symbol.span
    for each in analysis.tree.imports:
        if each.span.start <= offset <= each.span.end:
            name = os.path.normpath(os.path.join(os.path.dirname(analysis.path), each.path))
            known = next((source for source, _ in analysis.trees if source.name == name), None)
            return Span(known or Source(name, ""), 0, 0) if known is not None or os.path.isfile(name) else None
    return None


def references(analysis: Analysis, symbol: Symbol, declaration: bool = True) -> list[Span]:
    """Where a symbol stands in the files of one program."""
    return [each.span for each in analysis.index.of(symbol) if declaration or not each.declares]


def highlights(analysis: Analysis, offset: int) -> list[Span]:
    """Where the name at an offset stands in its own file."""
    symbol = symbol_at(analysis, offset)
    if symbol is None:
        return []
    return [span for span in references(analysis, symbol) if span.source.name == analysis.path]
