"""What data files hold, told by their headers and first records, without NumPy or torch.

Whole files are read only for what is asked of their values: `Probe.rows` of text formats, `Probe.num_classes` and
`Probe.vocab_size`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from stat import S_ISDIR
from typing import Protocol, TypeVar

from tdsl.compiler import headers
from tdsl.compiler.headers import Column, Damaged
from tdsl.compiler.image_folders import ImageFolder
from tdsl.compiler.jsonl import Jsonl
from tdsl.compiler.parquet import Parquet
from tdsl.compiler.safetensors import Safetensors
from tdsl.compiler.saved_datasets import SavedDataset
from tdsl.compiler.texts import Tokens, tokenizer_size, windows

Result = TypeVar("Result")


class ProbeError(Exception):
    """What is wrong with a data file: `file`, `row` (from 1, headers not counted), `message`, `help`."""

    def __init__(self, message: str, *, file: str, row: int | None = None, help: str | None = None) -> None:
        super().__init__(f"{file}{'' if row is None else f', row {row}'}: {message}")
        self.message = message
        self.file = file
        self.row = row
        self.help = help


class NoClass(ProbeError):
    """A label below 0, which counts no class."""


class Header(Protocol):
    """One file of a format."""

    columns: Mapping[str, Column]

    def rows(self) -> int: ...
    def labels(self, column: str) -> tuple[int, int]: ...


FORMATS: Mapping[str, Callable[[Path], Header]] = {
    "parquet": Parquet,
    "npz": headers.Npz,
    "npy": headers.Npy,
    "jsonl": Jsonl,
    "safetensors": Safetensors,
}
# The sources whose headers are read.
SOURCES = frozenset((*FORMATS, "csv", "idx", "image_folder", "text", "tokens", "huggingface"))
# Those that are folders.
FOLDERS = ("image_folder", "huggingface")
# Bytes of files that are read as a whole for the sake of a warning or of a completion.
SMALL = 2 << 20


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
    told: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def exists(self) -> bool:
        return not self.missing

    @cached_property
    def rows(self) -> int:
        """Rows of all files."""
        return self._source.rows()

    @cached_property
    def vocab_size(self) -> int:
        """Distinct characters or tokens of a text, or the largest token of a file plus one."""
        return self._source.vocab_size()

    def is_small(self, folder: Path) -> bool:
        """Whether the files, which lie in `folder`, are there and quickly read as a whole."""
        try:
            return sum((folder / file).stat().st_size for file in self.files) <= SMALL
        except OSError:
            return False

    def num_classes(self, column: str) -> int:
        """The largest label of a column of integers, plus one; -100, which losses ignore, is no label."""
        if column not in self.classes:
            self.classes[column] = self._source.largest(column) + 1
        return self.classes[column]

    def texts(self, column: str) -> tuple[str, ...]:
        """The distinct values of a column of text, sorted; none where they are many, or can't be told."""
        if column not in self.told:
            try:
                self.told[column] = self._source.texts(column)
            except ProbeError:
                self.told[column] = ()
        return self.told[column]

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
    def texts(self, column: str) -> tuple[str, ...]: ...
    def vocab_size(self) -> int: ...


def probe(kind: str, args: Mapping[str, object], base: Path, *, allow_outside: bool = False) -> Probe:
    """Look at the files of the source `kind(args)`, with paths relative to the folder `base`.

    Raises `ProbeError` for a file that is damaged, lies outside of `base` or belongs to a source that can't be read. A
    file that is missing is told by the result. Files that have not changed since are not read again.
    """
    key = (
        kind,
        tuple(_paths(args)),
        *map(args.get, ("window", "dtype", "vocab_size", "mode", "split", "delimiter")),
        str(base),
        allow_outside,
    )
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
# So many categories are told in a message.
MOST_TEXTS = 20
# A file that was written this long ago may be written again without its time changing.
RACY = 50_000_000  # nanoseconds


def _paths(args: Mapping[str, object]) -> list[str]:
    """The paths of a source, those of its tokenizer and of the texts that share a vocabulary with it last."""
    tokenizer = getattr(args.get("tokenizer"), "args", {}).get("path")
    shared = args.get("shared") or ()
    assert isinstance(shared, tuple)
    return [
        str(path)
        for path in (*map(args.get, ("path", "images", "labels", "name")), tokenizer, *shared)
        if path is not None
    ]


def _state(args: Mapping[str, object], base: Path) -> object:
    """What changes when one of the files does; None where that can't be told."""
    found: list[object] = []
    for path in _paths(args):
        try:
            stat = (base / path).stat()
        except (OSError, ValueError):
            return None  # missing, or a glob
        if time.time_ns() - stat.st_mtime_ns < RACY or S_ISDIR(stat.st_mode):
            return None
        found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found


def _look(kind: str, args: Mapping[str, object], base: Path, allow_outside: bool) -> Probe:
    if kind not in SOURCES:
        listed = ", ".join(sorted(SOURCES))
        raise ProbeError(f"`{kind}` can't be read", file=kind, help=f"the sources that can be read are {listed}")
    folder = kind in FOLDERS
    found = {path: _located(path, partial(_resolve, base, path, allow_outside, folder)) for path in _paths(args)}
    missing = tuple(path for path, files in found.items() if not files)
    names = tuple(name for files in found.values() for name in files)
    if missing:
        return Probe(names, missing, {}, None)
    source = _source(kind, args, [*found.values()])
    return Probe(names, (), source.columns, source)


def _source(kind: str, args: Mapping[str, object], found: list[dict[str, Path]]) -> Source:
    window = int(str(args.get("window", 256)))
    if kind == "text" and getattr(args.get("tokenizer"), "name", "characters") != "characters":
        return _Tokenized(found[0], window, found[1])
    if kind == "text":
        return _Text(found[0], window, found[1:])
    if kind == "tokens":
        return _Tokens(found[0], partial(Tokens, dtype=str(args.get("dtype", "u16")), window=window), args)
    if kind == "csv":
        return _Files(found[0], partial(headers.Csv, delimiter=str(args.get("delimiter", ","))))
    if kind == "idx":
        return _Idx(*found)
    if kind == "huggingface":
        return _Files(found[0], partial(SavedDataset, split=str(args.get("split", "train"))))
    if kind == "image_folder":
        return _Files(found[0], partial(ImageFolder, mode=str(args.get("mode", "RGB"))))
    return _Files(found[0], FORMATS[kind])


def _resolve(base: Path, path: str, allow_outside: bool, folder: bool = False) -> dict[str, Path]:
    """The files that a path or a glob names, sorted, by what messages call them; none where there is none.

    With `folder` the path names a folder.
    """
    base = base.resolve()
    named = base / path
    if named.is_dir() and not folder:
        raise ProbeError("is a folder, not a file", file=path, help="name a file, or the files within as `folder/*`")
    if named.is_file() and folder:
        raise ProbeError("is a file, not a folder", file=path, help="name the folder that has one for each class")
    found = [named] if named.exists() else []
    if not found and not folder and re.search(r"[*?[]", path) and not Path(path).is_absolute():
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


def _few(header: Header, column: str) -> set[str]:
    """The distinct texts of a column, where its format has text, until they are too many to be told."""
    found: set[str] = set()
    for text in header.texts(column) if isinstance(header, (headers.Csv, Jsonl, Parquet)) else ():
        found.add(text)
        if len(found) > MOST_TEXTS:
            break
    return found


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
            numbered = f"categories({json.dumps(column)}, [{smallest}, {largest}])"
            help = f"labels count from 0: number them, as by `{numbered}`"
            raise NoClass(f"column `{column}` has the label {smallest}", file=name, help=help)
        if largest < 0:
            raise ProbeError(f"column `{column}` has no label that is not ignored", file=name)
        return largest

    def texts(self, column: str) -> tuple[str, ...]:
        found: set[str] = set()
        for name, header in self.headers.items():
            found.update(_located(name, partial(_few, header, column)))
        return tuple(sorted(found)) if len(found) <= MOST_TEXTS else ()

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
    """Text by characters; texts that share its vocabulary are `shared`."""

    def __init__(self, files: Mapping[str, Path], window: int, shared: list[dict[str, Path]]) -> None:
        self.files = files
        self.shared = shared
        self.window = window
        self.columns: Mapping[str, Column] = windows(window)

    @cached_property
    def text(self) -> str:
        return "".join(_located(name, partial(headers.decode, file)) for name, file in self.files.items())

    def rows(self) -> int:
        return max(len(self.text) - 1, 0) // self.window

    def vocab_size(self) -> int:
        letters = set(self.text)
        for files in self.shared:
            for name, file in files.items():
                letters.update(_located(name, partial(headers.decode, file)))
        return len(letters)

    def largest(self, column: str) -> int:
        return self.vocab_size() - 1

    def texts(self, column: str) -> tuple[str, ...]:
        return ()


class _Tokenized(_Text):
    """Text by the tokens of a `tokenizer.json`; only its library can count those of a text."""

    def __init__(self, files: Mapping[str, Path], window: int, tokenizer: Mapping[str, Path]) -> None:
        super().__init__(files, window, [])
        self.name, self.tokenizer = next(iter(tokenizer.items()))
        self.size = _located(self.name, partial(tokenizer_size, self.tokenizer))

    def rows(self) -> int:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            help = "pip install tokenizers, or write the number"
            raise ProbeError("its tokens are counted by the package `tokenizers`", file=self.name, help=help) from None
        tokenizer = Tokenizer.from_file(str(self.tokenizer))
        return max(len(tokenizer.encode(self.text, add_special_tokens=False).ids) - 1, 0) // self.window

    def vocab_size(self) -> int:
        return self.size


class _Tokens(_Files):
    """Files of token numbers."""

    def __init__(self, files: Mapping[str, Path], format: Callable[[Path], Header], args: Mapping[str, object]) -> None:
        super().__init__(files, format)
        self.known = args.get("vocab_size")

    def vocab_size(self) -> int:
        return self.known if isinstance(self.known, int) else self.largest("tokens") + 1
