"""Runs of lines whose `=` stand in one column, and whose types do."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl.dsl.concrete import Block, Entry, Leaf
from tdsl.dsl.spacing import flat, flat_entry

# Names of statements stand further apart than settings: columns wider than this would part them from their values.
MOST_SPREAD = {"name": 3, "type": 6}
TYPED = {"module": ("param", "buffer"), "section": ("field",)}


def columns(block: Block, compact: Sequence[bool], width: int) -> list[dict[int, int]]:
    """For each entry, the spaces to add before its items, so that a run of like entries has columns.

    `compact` says which entries may stand on one line: the others end a run, as blank lines do.
    """
    found: list[dict[int, int]] = [{} for _ in block.entries]
    alone = {i for i, may in enumerate(compact) if not may}
    while True:
        for run in _runs(block, alone):
            for i, extra in zip(run, _aligned([block.entries[i] for i in run], block.kind)):
                found[i] = extra
        wide = {i for i, entry in enumerate(block.entries) if found[i] and len(flat_entry(entry, found[i])) > width}
        if not wide:
            return found
        alone |= wide
        found = [{} for _ in block.entries]


def _runs(block: Block, alone: set[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    last = ""
    for i, entry in enumerate(block.entries):
        kind = "" if i in alone else _kind(entry, block.kind)
        if kind and kind == last and not entry.blank and not any(comment.blank for comment in entry.above):
            runs[-1].append(i)
        elif kind:
            runs.append([i])
        last = kind
    return [run for run in runs if len(run) > 1]


def _kind(entry: Entry, block: str) -> str:
    """What an entry is aligned with; empty where it stands for itself."""
    words = [item.text if isinstance(item, Leaf) else "" for item in entry.items[:3]]
    if entry.blocks or len(words) < 3:
        return ""
    if words[1] == "=":
        return "name"
    if words[0] in TYPED.get(block, ()) and words[2] == ":":
        return words[0]
    if (words[0] == "transform" and block == "section") or (words[0] == "const" and block == "file"):
        return words[0]
    return ""


def _aligned(entries: Sequence[Entry], block: str) -> list[dict[int, int]]:
    found: list[dict[int, int]] = [{} for _ in entries]
    if _kind(entries[0], block) in TYPED.get(block, ()):
        _align(found, entries, [3] * len(entries), MOST_SPREAD["type"])
    equals = [next(i for i, item in enumerate(e.items) if isinstance(item, Leaf) and item.kind == "=") for e in entries]
    _align(found, entries, equals, MOST_SPREAD["name"] if block == "body" else None)
    return found


def _align(found: list[dict[int, int]], entries: Sequence[Entry], at: Sequence[int], most: int | None) -> None:
    """Add spaces so that the items at these places begin in one column, unless that takes more than `most`."""
    widths = [len(flat(entry.items[:i], "statement", extra)) for entry, i, extra in zip(entries, at, found)]
    widest = max(widths)
    if most is not None and widest - min(widths) > most:
        return
    for extra, i, width in zip(found, at, widths):
        if widest > width:
            extra[i] = widest - width
