"""Lints of data: what their sections may say and hardly mean."""

from __future__ import annotations

from collections.abc import Iterator

from tdsl.compiler.build.unit import Unit
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.program import DataSpec
from tdsl.dsl.resolve_data import splits_of

DRAWN = frozenset(
    ["RandomCrop", "RandomResizedCrop", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation", "ColorJitter",
     "RandomErasing", "RandAugment"]
)  # fmt: skip
HELD_OUT = {"val": "validation", "test": "testing"}


def drawn(unit: Unit) -> Iterator[Diagnostic]:
    """Images that are changed at random where a model is validated or tested."""
    for data in unit.program.data.values():
        yield from _drawn(data)


def _drawn(data: DataSpec) -> Iterator[Diagnostic]:
    splits = splits_of(data)
    for each in data.transforms:
        own = {other.split for other in data.transforms if other.field == each.field and other.split is not None}
        meant = (each.split,) if each.split is not None else tuple(name for name in HELD_OUT if name not in own)
        where = [HELD_OUT[name] for name in meant if name in HELD_OUT and name in splits]
        call = next((call for call in each.calls if call.name in DRAWN), None)
        if where and call is not None:
            message = f"`{call.name}` changes the images of {' and of '.join(where)}"
            help = "leave it out: what is evaluated should not depend on chance"
            if each.split is None:
                message += ", too"
                help = f"write it in `transform train {each.field} = [...]`, and here what all splits have"
            yield Diagnostic("W402", message, call.span, help=help)
