"""What the front end asks of data files. It reads none itself: the reader is handed to `load`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

# Classes of well-known datasets, of which no header tells them.
KNOWN_CLASSES = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS", "SVHN", "CIFAR10", "STL10"), 10),
    "CIFAR100": 100,
}

# What stands between the values of files that are called csv.
DELIMITERS = (",", ";", "\t", "|")


def other_delimiter(names: Collection[str], delimiter: str) -> str | None:
    """How the delimiter is written that a header of one column points to, as `delimiter=";"`; None where none does."""
    others = [each for each in DELIMITERS if each != delimiter and each in "".join(names)]
    if len(names) != 1 or not others:
        return None
    found = max(others, key="".join(names).count)
    return f"delimiter={json.dumps(found)}"


class Column(Protocol):
    """`kind` is `int`, `float`, `bool`, `text` or `other`; `shape` that of one row, None where it is not known.

    `varies` says that it is that of the first row, and that others may have other sizes.
    """

    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
    @property
    def varies(self) -> bool: ...


class Probe(Protocol):
    """The files of one source. Asking a missing or damaged file raises what `Prober` raises."""

    @property
    def missing(self) -> tuple[str, ...]: ...
    @property
    def columns(self) -> Mapping[str, Column]: ...
    @property
    def rows(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def num_classes(self, column: str) -> int: ...
    def texts(self, column: str) -> tuple[str, ...]: ...


class Prober(Protocol):
    """Looks at the files of the source `kind(args)`, with paths relative to `base`.

    Raises an exception with the attributes `message`, `file`, `row` and `help` for files that can't be used.
    """

    def __call__(self, kind: str, args: Mapping[str, object], base: Path, *, allow_outside: bool = False) -> Probe: ...
