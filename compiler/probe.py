"""What data files hold, told by their headers and first records, without NumPy or torch.

Whole files are read only for what is asked of their values: `Probe.rows` of text formats, `Probe.num_classes` and
`Probe.vocab_size`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

from tdsl.compiler import headers
from tdsl.compiler.headers import Column, Damaged
from tdsl.compiler.parquet import Parquet

Result = TypeVar("Result")


class ProbeError(Exception):
    """What is wrong with a data file: `file`, `row` (from 1, headers not counted), `message`, `help`."""

    def __init__(self, message: str, *, file: str, row: int | None = None, help: str | None = None) -> None:
        super().__init__(f"{file}{'' if row is None else f', row {row}'}: {message}")
        self.message = message
        self.file = file
        self.row = row
        self.help = help


class Header(Protocol):
    """One file of a format."""

    columns: Mapping[str, Column]

    def rows(self) -> int: ...
    def labels(self, column: str) -> tuple[int, int]: ...


FORMATS: Mapping[str, Callable[[Path], Header]] = {
    "csv": headers.Csv,
    "parquet": Parquet,
    "npz": headers.Npz,
    "npy": headers.Npy,
}
# The sources that can be read.
SOURCES = frozenset((*FORMATS, "idx", "text"))


@dataclass(frozen=True)
class Probe:
    """The files of a source: those found, the paths that name no file, and the columns that all files have.

    A column's `kind` is `int`, `float`, `bool`, `text` or `other`; its `shape` is that of one row, and None where the
    header does not tell it. With a file missing there are no columns, and `rows` and the like raise `ProbeError`.
    """

    files: tuple[str, ...]
    missing: tuple[str, ...]
    columns: Mapping[str, Column]
    source: Source | None
    classes: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def exists(self) -> bool:
        return not self.missing

    @cached_property
    def rows(self) -> int:
        """Rows of all files."""
        return self._source.rows()

    @cached_property
    def vocab_size(self) -> int:
        """Distinct characters of a text."""
        return self._source.vocab_size()

    def num_classes(self, column: str) -> int:
        """The largest label of a column of integers, plus one; -100, which losses ignore, is no label."""
        if column not in self.classes:
            self.classes[column] = self._source.largest(column) + 1
        return self.classes[column]

    @property
    def _source(self) -> Source:
        if self.source is None:
            raise ProbeError("no such file", file=self.missing[0])
        return self.source


class Source(Protocol):
    """What a probe can be asked."""

    columns: Mapping[str, Column]

    def rows(self) -> int: ...
    def largest(self, column: str) -> int: ...
    def vocab_size(self) -> int: ...


def probe(kind: str, args: Mapping[str, object], base: Path, *, allow_outside: bool = False) -> Probe:
    """Look at the files of the source `kind(args)`, with paths relative to the folder `base`.

    Raises `ProbeError` for a file that is damaged, lies outside of `base` or belongs to a source that can't be read. A
    file that is missing is told by the result. Files that have not changed since are not read again.
    """
    key = (kind, repr(sorted(args.items())), str(base), allow_outside)
    state = _state(args, base)
    known = _KNOWN.get(key)
    if known is None or state is None or known[0] != state:
        known = (state, _look(kind, args, base, allow_outside))
        _KNOWN[key] = known
        while len(_KNOWN) > MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]
    return known[1]


# What probes have told, with the state of their files then: one check asks for the same more than once, an editor again
# and again.
_KNOWN: dict[object, tuple[object, Probe]] = {}
MOST_KNOWN = 64
# A file that was written this long ago may be written again without its time changing.
RACY = 50_000_000  # nanoseconds


def _state(args: Mapping[str, object], base: Path) -> object:
    """What changes when one of the files does; None where that can't be told."""
    found: list[object] = []
    for name in ("path", "images", "labels"):
        path = args.get(name)
        if path is None:
            continue
        try:
            stat = (base / str(path)).stat()
        except (OSError, ValueError):
            return None  # missing, or a glob
        if time.time_ns() - stat.st_mtime_ns < RACY:
            return None
        found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found


def _look(kind: str, args: Mapping[str, object], base: Path, allow_outside: bool) -> Probe:
    if kind not in SOURCES:
        listed = ", ".join(sorted(SOURCES))
        raise ProbeError(f"`{kind}` can't be read", file=kind, help=f"the sources that can be read are {listed}")
    paths = [str(args[name]) for name in ("path", "images", "labels") if args.get(name) is not None]
    found = {path: _located(path, partial(_resolve, base, path, allow_outside)) for path in paths}
    missing = tuple(path for path, files in found.items() if not files)
    names = tuple(name for files in found.values() for name in files)
    if missing:
        return Probe(names, missing, {}, None)
    source = _source(kind, args, [*found.values()])
    return Probe(names, (), source.columns, source)


def _source(kind: str, args: Mapping[str, object], found: list[dict[str, Path]]) -> Source:
    if kind == "text":
        return _Text(found[0], int(str(args.get("window", 256))))
    if kind == "idx":
        return _Idx(*found)
    return _Files(found[0], FORMATS[kind])


def _resolve(base: Path, path: str, allow_outside: bool) -> dict[str, Path]:
    """The files that a path or a glob names, sorted, by what messages call them; none where there is none."""
    base = base.resolve()
    named = base / path
    if named.is_dir():
        raise ProbeError("is a folder, not a file", file=path, help="name a file, or the files within as `folder/*`")
    found = [named] if named.is_file() else []
    if not found and re.search(r"[*?[]", path) and not Path(path).is_absolute():
        found = sorted(each for each in base.glob(path) if each.is_file())
    for file in found:
        if not allow_outside and not file.resolve().is_relative_to(base):
            raise ProbeError(
                "lies outside of the program's folder",
                file=path,
                help="copy it into the folder of the program, or allow this with `--allow-outside`",
            )
    return {str(file.relative_to(base)) if file.is_relative_to(base) else str(file): file for file in found}


def _located(name: str, look: Callable[[], Result]) -> Result:
    """What `look` finds, its complaints told with the file's name."""
    try:
        return look()
    except Damaged as error:
        raise ProbeError(error.message, file=name, row=error.row, help=error.help) from None
    except OSError as error:
        raise ProbeError(f"can't be read: {error.strerror or error}", file=name) from None


class _Files:
    """Files of one format, one below the other."""

    def __init__(self, files: Mapping[str, Path], format: Callable[[Path], Header]) -> None:
        self.headers = {name: _located(name, partial(format, file)) for name, file in files.items()}
        first, *others = self.headers
        self.columns = self.headers[first].columns
        for name in others:
            columns = self.headers[name].columns
            lacking = [column for column in self.columns if column not in columns]
            if lacking:
                raise ProbeError(f"has no column `{lacking[0]}`, which {first} has", file=name)

    def rows(self) -> int:
        return sum(_located(name, header.rows) for name, header in self.headers.items())

    def largest(self, column: str) -> int:
        """The largest label, once all are known to be labels."""
        return max(self._largest(name, header, column) for name, header in self.headers.items())

    def _largest(self, name: str, header: Header, column: str) -> int:
        smallest, largest = _located(name, lambda: header.labels(column))
        if smallest < 0 and smallest != -100:
            raise ProbeError(f"column `{column}` has the label {smallest}", file=name, help="labels count from 0")
        if largest < 0:
            raise ProbeError(f"column `{column}` has no label that is not ignored", file=name)
        return largest

    def vocab_size(self) -> int:
        raise ProbeError("only a text has a vocabulary", file=next(iter(self.headers)))


class _Idx(_Files):
    """Images, and the labels in a file of their own."""

    def __init__(self, images: Mapping[str, Path], labels: Mapping[str, Path] | None = None) -> None:
        super().__init__(images, partial(headers.Idx, name="image"))
        self.labels = None if labels is None else _Files(labels, partial(headers.Idx, name="label"))
        if self.labels is not None:
            self.columns = {**self.columns, **self.labels.columns}
            if self.labels.rows() != self.rows():
                what = f"{self.labels.rows()} labels for the {self.rows()} images of {next(iter(images))}"
                raise ProbeError(what, file=next(iter(labels or {})), help="name the labels that belong to the images")

    def largest(self, column: str) -> int:
        return super().largest(column) if self.labels is None or column == "image" else self.labels.largest(column)


class _Text:
    """Text by characters, in windows that do not overlap; every target is one position behind its token."""

    def __init__(self, files: Mapping[str, Path], window: int) -> None:
        self.files = files
        self.window = window
        self.columns: Mapping[str, Column] = dict.fromkeys(("tokens", "targets"), Column("int", (window,)))

    @cached_property
    def text(self) -> str:
        return "".join(_located(name, partial(headers.decode, file)) for name, file in self.files.items())

    def rows(self) -> int:
        return max(len(self.text) - 1, 0) // self.window

    def vocab_size(self) -> int:
        return len(set(self.text))

    def largest(self, column: str) -> int:
        return self.vocab_size() - 1
