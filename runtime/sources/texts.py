"""Texts and files of token numbers, cut into windows: the columns `tokens` and `targets`.

Windows do not overlap; what is behind the last full one is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tdsl.runtime.columns import Column, Files, place
from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.extras import extra
from tdsl.runtime.sources.files import named, resolve
from tdsl.runtime.table import Array, Table

# What the language calls the types of numbers in a file; all are little-endian.
TYPES = {"u8": "u1", "u16": "<u2", "u32": "<u4", "i16": "<i2", "i32": "<i4", "i64": "<i8"}
NUMPY = b"\x93NUMPY"
# What a record of `Characters` has; one of the library's tokenizers has other keys.
CHARACTERS = "characters"


class Tokenizer(Protocol):
    """Makes numbers of text."""

    def encode(self, text: str, file: str) -> Array:
        """The numbers of the tokens of a text (int64); `file` is what errors call it."""

    def record(self) -> str:
        """It as JSON, of which `recorded` makes it again."""


class Characters:
    """Characters by their rank among those of `letters`, in code point order."""

    def __init__(self, letters: Array) -> None:
        self.letters = letters

    def encode(self, text: str, file: str) -> Array:
        codes = _codes(text)
        ranks = np.searchsorted(self.letters, codes)
        wrong = np.flatnonzero(self.letters[np.minimum(ranks, len(self.letters) - 1)] != codes)
        if len(wrong):
            line = text.count("\n", 0, int(wrong[0])) + 1
            what = f"the character {chr(codes[wrong[0]])!r} in line {line} is not in the vocabulary"
            raise DataError(what, file=file, help="a model knows the characters of all texts that its data have")
        return ranks.astype(np.int64)

    def record(self) -> str:
        return json.dumps({CHARACTERS: "".join(map(chr, self.letters))}, ensure_ascii=False) + "\n"


class HuggingFace:
    """A tokenizer of the library `tokenizers`; no special tokens are added."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str, file: str) -> Array:
        return np.asarray(self.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def record(self) -> str:
        """As the library writes it: others can read it, too."""
        return str(self.tokenizer.to_str())


def recorded(record: str, file: str) -> Tokenizer:
    """The tokenizer of a `record`; `file` is where it was read. Raises `DataError` where its library is not there."""
    found = json.loads(record)
    if CHARACTERS in found:
        return Characters(_codes(found[CHARACTERS]))
    return HuggingFace(extra("tokenizers", f"the tokenizer {file}").Tokenizer.from_str(record))


def characters(base: Path, *paths: str, allow_outside: bool = False) -> Characters:
    """The vocabulary of all characters that the texts have."""
    files = [file for path in paths for file in resolve(base, path, allow_outside)]
    return Characters(np.unique(np.concatenate([_codes(_decode(base, file)) for file in files])))


def hf(base: Path, path: str, *, allow_outside: bool = False) -> HuggingFace:
    """The tokenizer of a `tokenizer.json`, as the library `tokenizers` writes it."""
    tokenizers = extra("tokenizers", f"the tokenizer {path}")
    (file,) = resolve(base, path, allow_outside)[:1]
    try:
        return HuggingFace(tokenizers.Tokenizer.from_str(_decode(base, file)))
    except DataError:
        raise
    except Exception as error:  # it raises bare exceptions
        what = str(error) if _is_json(file) else "it is not JSON"
        help = "it is written by `tokenizer.save(...)`"
        raise DataError(f"is no tokenizer that can be read: {what:.200}", file=path, help=help) from None


def text(
    base: Path, path: str, *, tokenizer: Tokenizer | None = None, window: int = 256, allow_outside: bool = False
) -> Table:
    """A text cut into windows: columns `tokens` and `targets` [window], the targets one position on.

    Without a tokenizer, a character's number is its rank among the text's distinct characters in code point order.
    """
    files = resolve(base, path, allow_outside)
    whole = "".join(_decode(base, file) for file in files)
    tokenizer = tokenizer or Characters(np.unique(_codes(whole)))
    tokens = tokenizer.encode(whole, path) if whole else np.empty(0, dtype=np.int64)
    unit = "characters" if isinstance(tokenizer, Characters) else "tokens"
    rows = _rows(len(tokens), window, unit, path)
    columns = {"tokens": tokens[: rows * window], "targets": tokens[1 : rows * window + 1]}
    letters = list(map(chr, tokenizer.letters.tolist())) if isinstance(tokenizer, Characters) else []
    names = dict.fromkeys(columns, letters) if letters else {}
    return Table({name: column.reshape(rows, window) for name, column in columns.items()}, ((path, rows),), names)


def tokens(
    base: Path,
    path: str,
    *,
    dtype: str = "u16",
    window: int = 256,
    vocab_size: int | None = None,
    allow_outside: bool = False,
) -> Table:
    """Numbers in a flat file of `dtype`, or in an .npy file of integers: columns `tokens` and `targets` [window].

    Files stay where they are: a window is read when it is asked for. With `vocab_size`, a number beyond it is an error
    that names the window. No window spans two files.
    """
    files = resolve(base, path, allow_outside)
    names = [named(base, file) for file in files]
    arrays = [_mapped(file, name, dtype) for file, name in zip(files, names, strict=True)]
    counts = [_rows(len(array), window, "tokens", name) for array, name in zip(arrays, names, strict=True)]
    table = tuple(zip(names, counts, strict=True))
    parts = [(str(file), dtype) for file in files]
    columns = {
        name: Windows(parts, table, window, shift, vocab_size) for shift, name in enumerate(("tokens", "targets"))
    }
    return Table(columns, table)


class Windows(Column):
    """Windows of files that stay on disk, `shift` positions on."""

    def __init__(
        self, files: Sequence[tuple[str, str]], table: Files, window: int, shift: int, vocab_size: int | None
    ) -> None:
        self.files = files
        self.table = table
        self.window = window
        self.shift = shift
        self.vocab_size = vocab_size
        self.ends = np.cumsum([rows for _, rows in table])
        self.arrays: list[Array] | None = None

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would hold the numbers.
        return {**self.__dict__, "arrays": None}

    def take(self, indices: Tensor) -> Tensor:
        if self.arrays is None:
            self.arrays = [_mapped(Path(file), file, dtype) for file, dtype in self.files]
        numbers = indices.numpy()
        parts = np.searchsorted(self.ends, numbers, side="right")
        found = np.empty((len(numbers), self.window), dtype=np.int64)
        for part in np.unique(parts):
            mine = parts == part
            starts = (numbers[mine] - (self.ends[part] - self.table[part][1])) * self.window + self.shift
            found[mine] = self.arrays[part][starts[:, None] + np.arange(self.window)]
        self._check(found, numbers)
        return torch.from_numpy(found)

    def _check(self, found: Array, numbers: Array) -> None:
        if self.vocab_size is None:
            return
        wrong = (found < 0) | (found >= self.vocab_size)
        if wrong.any():
            row, place = (int(each[0]) for each in np.nonzero(wrong))
            what = f"the token {found[row, place]} is not in the vocabulary of {self.vocab_size}"
            position = self.where(int(numbers[row]))[1] - 1
            what += f" (position {position * self.window + self.shift + place} of the file)"
            name = "targets" if self.shift else "tokens"
            raise self.error(int(numbers[row]), what, field=name, help="give the vocabulary and `dtype` of the file")

    def where(self, row: int) -> tuple[str, int]:
        return place(self.table, row)


def _rows(count: int, window: int, unit: str, name: str) -> int:
    rows = (count - 1) // window
    if rows < 1:
        raise DataError(
            f"{count} {unit} are too few for a window of {window} and its targets",
            file=name,
            help=f"a window of at most {max(count - 1, 1)} fits",
        )
    return rows


def _mapped(file: Path, name: str, dtype: str) -> Array:
    """The numbers of a file, on disk."""
    size = file.stat().st_size
    if size == 0:
        raise DataError("is empty", file=name)
    with file.open("rb") as opened:
        if opened.read(len(NUMPY)) == NUMPY:
            return _mapped_numpy(file, name)
    width = np.dtype(TYPES[dtype]).itemsize
    if size % width:
        what = f"has {size} bytes, which are no whole number of tokens of type {dtype}"
        raise DataError(what, file=name, help='name the type that it was written with, such as `dtype="u16"`')
    return np.memmap(file, dtype=TYPES[dtype], mode="r")


def _mapped_numpy(file: Path, name: str) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy lists no errors for damaged files, and raises a dozen kinds
        raise DataError(f"is not an .npy file, or is damaged: {error}", file=name) from None
    if array.dtype.kind not in "iu" or array.ndim != 1:
        what = f"holds {array.dtype} of shape {list(array.shape)}"
        raise DataError(what, file=name, help="save one row of integers: `numpy.save(path, ids.reshape(-1))`")
    return array


def _codes(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _decode(base: Path, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 (byte {error.start})", file=named(base, file), help="save it as UTF-8") from None


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True
