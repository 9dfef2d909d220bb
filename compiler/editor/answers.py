"""What an editor is answered, in offsets of the text: plain data, before it becomes a protocol's."""

from __future__ import annotations

from dataclasses import dataclass

from tdsl.dsl.diagnostics import Span


@dataclass(frozen=True)
class Hover:
    """Markdown about what stands between two offsets."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Completion:
    """A word that can stand at the cursor.

    `kind` is that of the language server protocol, in lower case; `insert` what is typed in place of `label`, a snippet
    with `$1` where `snippet` says so. Smaller ranks come first.
    """

    label: str
    kind: str
    detail: str = ""
    doc: str = ""
    insert: str = ""
    snippet: bool = False
    rank: int = 5


@dataclass(frozen=True)
class Completions:
    """The words that can stand from `start` on."""

    start: int
    items: tuple[Completion, ...]


@dataclass(frozen=True)
class Hint:
    """Text shown behind an offset, which is not in the file."""

    offset: int
    text: str
    tooltip: str = ""


@dataclass(frozen=True)
class Help:
    """The signature of the call around the cursor; `parameters` are ends of each in `label`, `active` counts them."""

    label: str
    doc: str
    parameters: tuple[tuple[int, int], ...]
    active: int | None


@dataclass(frozen=True)
class Edit:
    span: Span
    text: str


@dataclass(frozen=True)
class Fix:
    """A quick fix of one of the analysis's diagnostics."""

    title: str
    edit: Edit
    diagnostic: int


@dataclass(frozen=True)
class Outline:
    """A declaration or a part of one, for the list of a file's symbols."""

    name: str
    kind: str
    detail: str
    span: Span
    name_span: Span
    children: tuple[Outline, ...] = ()


class Refused(Exception):
    """Why a name can't be changed."""
