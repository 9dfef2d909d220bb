"""Offsets of a text, and positions as the language server protocol counts them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Text:
    """A text whose positions are a line and a column in code units of `encoding`, both from 0."""

    content: str
    encoding: str = "utf-16"

    @cached_property
    def starts(self) -> list[int]:
        return [0, *(match.end() for match in LINE_END.finditer(self.content))]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset; one beyond the text is its end."""
        offset = max(0, min(offset, len(self.content)))
        line = bisect_right(self.starts, offset) - 1
        return line, self.units(self.content[self.starts[line] : offset])

    def offset(self, line: int, column: int) -> int:
        """The offset of a position; a column beyond its line is the line's end, a line beyond the text the text's."""
        if line >= len(self.starts):
            return len(self.content)
        start = self.starts[max(line, 0)]
        end = self.end_of_line(start)
        for offset in range(start, end):
            if column <= 0:
                return offset
            column -= self.units(self.content[offset])
        return end

    def units(self, text: str) -> int:
        """Code units of a text."""
        if text.isascii() or self.encoding == "utf-32":
            return len(text)
        if self.encoding == "utf-8":
            return len(text.encode("utf-8", "surrogatepass"))
        return sum(2 if ord(character) > 0xFFFF else 1 for character in text)

    def end_of_line(self, offset: int) -> int:
        """Where the line of an offset ends, its line break left out."""
        match = LINE_END.search(self.content, offset)
        return match.start() if match else len(self.content)

    def word(self, offset: int) -> tuple[int, int]:
        """The ends of the word that an offset touches; both are the offset where it touches none."""
        start = end = offset
        while start > 0 and _is_word(self.content[start - 1]):
            start -= 1
        while end < len(self.content) and _is_word(self.content[end]):
            end += 1
        return start, end


def common(a: Sequence[object], b: Sequence[object]) -> int:
    """How many elements two texts, or two lists, begin with alike."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")
