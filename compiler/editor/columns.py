"""Columns of a dataset's files, and the values of a column, as words that can stand at the cursor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Completion
from tdsl.compiler.editor.context import Context
from tdsl.compiler.probe import Probe, probe
from tdsl.dsl.signatures import READABLE

# The column in `categories("species", `.
_COLUMN = re.compile(r'\(\s*"((?:[^"\\]|\\.)*)"\s*,')
_STRINGS = re.compile(r'"((?:[^"\\]|\\.)*)"')


def columns(analysis: Analysis, here: Context, globs: bool) -> Iterator[Completion]:
    """The columns of the data's files, and `globs` of them."""
    found = _files(analysis, here)
    if found is None:
        return
    for name, column in found.columns.items():
        shape = "" if not column.shape else str(list(column.shape))
        yield Completion(name, "field", f"{column.kind}{shape}", rank=1)
    prefixes = {match[1] for name in found.columns if (match := re.fullmatch(r"(\D+)\d+", name))}
    if globs:
        yield from (Completion(f"{prefix}*", "field", "all columns of that name", rank=0) for prefix in prefixes)


def is_list_of_categories(here: Context) -> bool:
    """Whether the cursor is in the list of `categories("species", ["setosa"])`."""
    callee = here.call.callee if here.call is not None else None
    return here.inner.bracket == "[" and callee is not None and callee.text == "categories"


def categories(analysis: Analysis, here: Context) -> Iterator[Completion]:
    """The texts of the column whose list is written, without those that are in it; none where there are many."""
    assert here.call is not None
    text = analysis.source.text
    column = _COLUMN.match(text, here.begin + here.call.start)
    found = _files(analysis, here)
    if column is None or found is None or not found.is_small(Path(analysis.path).parent):
        return
    written = _STRINGS.findall(text, here.begin + here.inner.start, here.start - (here.string is not None))
    for each in found.texts(column[1]) if column[1] in found.columns else ():
        inner = json.dumps(each, ensure_ascii=False)[1:-1]
        if inner not in written:
            yield Completion(inner if here.string is not None else f'"{inner}"', "enummember", rank=0)


def _files(analysis: Analysis, here: Context) -> Probe | None:
    """What the files of the dataset around the cursor hold; None where that can't be told."""
    declaration = analysis.declaration(here.start)
    spec = analysis.program.data.get(declaration.name) if analysis.program and declaration is not None else None
    source = spec.sources.get("source") if spec is not None else None
    if source is None or source.name not in READABLE:
        return None
    try:
        return probe(source.name, source.args, Path(analysis.path).parent)
    except Exception:  # the source's own error tells what is wrong with the file
        return None
