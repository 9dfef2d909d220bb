"""What texts and files of tokens hold, cut into windows that do not overlap; every target is one position on."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tdsl.compiler import headers
from tdsl.compiler.headers import INTEGERS, Column, Damaged

# The letter and the size of each type that a file of tokens may have.
TOKEN_TYPES = {"u8": ("u", 1), "u16": ("u", 2), "u32": ("u", 4), "i16": ("i", 2), "i32": ("i", 4), "i64": ("i", 8)}
# Bytes of tokens that are looked at in one go.
CHUNK = 1 << 24


def windows(window: int) -> Mapping[str, Column]:
    """The columns of a text."""
    return dict.fromkeys(("tokens", "targets"), Column("int", (window,)))


def tokenizer_size(file: Path) -> int:
    """The largest token number plus one that a `tokenizer.json` has."""
    try:
        found = json.loads(file.read_bytes())
        vocabulary = found["model"]["vocab"]
        # A unigram model lists its tokens, others map them to numbers.
        numbers = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
        added = [int(each["id"]) for each in found.get("added_tokens") or ()]
        return max((*map(int, numbers), *added)) + 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged("is no tokenizer that can be read", help="it is written by `tokenizer.save(...)`") from None


class Tokens:
    """One flat file of token numbers, or an .npy file of them."""

    def __init__(self, file: Path, dtype: str, window: int) -> None:
        self.file = file
        self.window = window
        self.start, self.letter, self.size, self.big = 0, *TOKEN_TYPES[dtype], False
        self.count, rest = divmod(file.stat().st_size, self.size)
        with file.open("rb") as opened:
            if opened.read(6) == b"\x93NUMPY":
                self._numpy()
            elif rest:
                what = f"has {file.stat().st_size} bytes, which are no whole number of tokens of type {dtype}"
                raise Damaged(what, help='name the type that it was written with, such as `dtype="u16"`')
        if not self.count:
            raise Damaged("is empty")
        if self.rows() < 1:
            help = f"a window of at most {max(self.count - 1, 1)} fits"
            raise Damaged(f"{self.count} tokens are too few for a window of {window} and its targets", help=help)
        self.columns = windows(window)

    def _numpy(self) -> None:
        header = headers.Npy(self.file).header
        if header.element not in INTEGERS or header.element[0] == "b" or len(header.shape) != 1:
            what = f"holds {header.descr!r:.40} of shape {list(header.shape)}"
            raise Damaged(what, help="save one row of integers: `numpy.save(path, ids.reshape(-1))`")
        (self.letter, self.size), self.big = header.element, header.descr[:1] == ">"
        self.count = header.shape[0]
        self.start = self.file.stat().st_size - self.count * self.size
        if self.start < 0:
            raise Damaged("is cut off: there are fewer values than its header tells")

    def rows(self) -> int:
        return (self.count - 1) // self.window

    def labels(self, column: str) -> tuple[int, int]:
        """The smallest and the largest token; the whole file is read."""
        bounds = [(min(part), max(part)) for part in self._parts()]
        return min(low for low, _ in bounds), max(high for _, high in bounds)

    def _parts(self) -> Iterator[array[Any]]:
        with self.file.open("rb") as opened:
            opened.seek(self.start)
            while content := opened.read(CHUNK):
                yield headers.integers(content, self.letter, self.size, big_endian=self.big)
