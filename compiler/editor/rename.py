"""Rename a declared name everywhere, or say why not: the program is checked with the new name before it is given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tdsl.compiler.editor import rename_globs
from tdsl.compiler.editor.analysis import Analysis, analyze
from tdsl.compiler.editor.answers import Edit, Refused
from tdsl.compiler.editor.definition import symbol_at
from tdsl.compiler.editor.index import Index
from tdsl.compiler.editor.symbols import Symbol
from tdsl.compiler.editor.text import WORD
from tdsl.compiler.probe import probe
from tdsl.dsl.build import DTYPES
from tdsl.dsl.diagnostics import Span
from tdsl.dsl.lexer import KEYWORDS
from tdsl.dsl.names import why_reserved
from tdsl.dsl.resolve import load
from tdsl.dsl.signatures import EVALUATE_SETTINGS, TRAIN_SETTINGS

FIXED = ("forward", "model")


def renamable(analysis: Analysis, offset: int) -> Span:
    """The name at an offset; raises `Refused` where there is none that the program declares."""
    found = analysis.index.at(analysis.path, offset)
    if found is None:
        raise Refused("only names that a program declares can be changed")
    symbol = found.symbol
    if symbol.name in FIXED and symbol.kind in ("forward", "model"):
        raise Refused(f"`{symbol.name}` is a name of the language")
    return found.span


def rename(roots: Sequence[Analysis], analysis: Analysis, offset: int, name: str) -> list[Edit]:
    """The edits that give the name at an offset another one; raises `Refused`.

    `roots` are the programs that may speak of it: `analysis`, and those of files that import it.
    """
    renamable(analysis, offset)
    symbol = symbol_at(analysis, offset)
    assert symbol is not None
    _check_name(symbol, name)
    if name == symbol.name:
        return []
    wanted = [root for root in {each.path: each for each in (analysis, *roots)}.values() if root.index.of(symbol)]
    spans: dict[tuple[str, int], Span] = {}
    for root in wanted:
        for occurrence in root.index.of(symbol):
            spans[occurrence.span.source.name, occurrence.span.start] = occurrence.span
    edits = [Edit(span, name) for span in spans.values()]
    if symbol.kind in rename_globs.NAMED:
        texts = _edited(edits)
        for root in wanted:
            edits += [each for each in _of_globs(root, texts, symbol.name, name) if each not in edits]
    texts = _edited(edits)
    for root in wanted:
        _check_program(root, texts, symbol.name, name)
    return sorted(edits, key=lambda each: (each.span.source.name, each.span.start))


def _of_globs(root: Analysis, texts: Mapping[str, str], before: str, name: str) -> Iterator[Edit]:
    """The edits of globs that name a member, once it has another name."""
    after, _ = load(root.path, text=texts.get(root.path, root.source.text), probe=probe, buffers=_buffers(root, texts))
    if root.program is not None and after is not None:
        yield from rename_globs.followed(root.program, after, before, name)


def _buffers(root: Analysis, texts: Mapping[str, str]) -> Mapping[str, str]:
    """The texts of files that are open, or edited."""
    return {**root.buffers, **{os.path.realpath(file): text for file, text in texts.items()}}


def _check_name(symbol: Symbol, name: str) -> None:
    if not WORD.fullmatch(name):
        raise Refused(f"`{name}` is not a name: letters, digits and `_`")
    if name in KEYWORDS:
        raise Refused(f"`{name}` is a keyword")
    why = why_reserved(name, symbol.kind in ("member", "param", "buffer"))
    if why:
        raise Refused(f"`{name}` {why}")
    if name in DTYPES:
        raise Refused(f"`{name}` is a dtype")
    if symbol.kind == "size" and not name[0].isupper():
        raise Refused("a size of the run is capitalised")
    if symbol.kind == "model" and any(arg.name == name for arg in (*TRAIN_SETTINGS, *EVALUATE_SETTINGS)):
        raise Refused(f"`{name}` is a setting")


def _edited(edits: Iterable[Edit]) -> Mapping[str, str]:
    """The texts of the files after the edits, by name."""
    texts: dict[str, str] = {}
    for edit in sorted(edits, key=lambda each: -each.span.start):
        span = edit.span
        text = texts.get(span.source.name, span.source.text)
        texts[span.source.name] = text[: span.start] + edit.text + text[span.end :]
    return texts


def _check_program(root: Analysis, texts: Mapping[str, str], before: str, name: str) -> None:
    """Refuse a name with which the program would have new mistakes, or mean something else."""
    after = analyze(root.path, texts.get(root.path, root.source.text), _buffers(root, texts))
    known = {d.code for d in root.diagnostics}
    new = next((d for d in after.diagnostics if d.code not in known and d.severity == "error"), None)
    if new is not None:
        raise Refused(f"with `{name}` the program would have a mistake: {new.message}")
    if _meaning(root.index) != _meaning(after.index):
        raise Refused(f"`{name}` has a meaning already where `{before}` stands")


def _meaning(index: Index) -> list[int]:
    """Which of the names stand for the same thing, in the order of the files."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(each.symbol.key, len(numbers)) for each in index.occurrences]
