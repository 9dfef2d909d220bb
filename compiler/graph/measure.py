"""How wide text is, as far as that can be told without its font: rather too wide than too narrow."""

from __future__ import annotations

from dataclasses import dataclass

NARROW, WIDE = frozenset("ijltf.,:;|!'()[] "), frozenset("mwMW@%\u2192")


@dataclass(frozen=True)
class Font:
    """`mono` fonts are six tenths of their size wide."""

    size: float
    mono: bool = False
    bold: bool = False

    @property
    def line(self) -> float:
        return round(self.size * 1.45, 1)

    def width(self, text: str) -> float:
        if self.mono:
            return 0.605 * self.size * len(text)
        return self.size * (1.06 if self.bold else 1.0) * sum(map(_width, text))


def _width(char: str) -> float:
    if char in NARROW:
        return 0.36
    if char in WIDE:
        return 0.95
    return 0.72 if char.isupper() else 0.62


TITLE = Font(13, bold=True)
PLAIN = Font(12)
SMALL = Font(11)
SHAPE = Font(11, mono=True)
HEADING = Font(16, bold=True)
