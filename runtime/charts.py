"""Charts as SVG elements of a page, whose style sheet gives them their colours, by day and by night."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Protocol

# The drawing in units that are about pixels, and the room that is left around the plot for ticks and labels.
WIDTH, HEIGHT = 400.0, 266.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 18.0, 40.0
# About so many ticks an axis.
TICKS = 5
# A line has at most so many points, of which those that stand out are kept.
MOST_POINTS = 400
# Values that span more than this are drawn on a logarithmic scale.
WIDE = 20.0
# Width of a character of a label, about.
LETTER = 6.2

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What an axis spans, `log` saying that equal steps are equal factors."""

    low: float
    high: float
    label: str = ""
    log: bool = False
    whole: bool = False

    @classmethod
    def of(cls, values: Iterable[float], label: str = "", *, whole: bool = False, log: bool | None = None) -> Axis:
        """An axis that has all finite values, with some room; logarithmic where they are positive and span much."""
        found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(found), max(found)
        wide = low > 0 and high > WIDE * low
        if wide if log is None else log and low > 0:
            return cls(low / (high / low) ** 0.04, high * (high / low) ** 0.04, label, True)
        if low == high:
            room = abs(low) / 2 or 0.5
            return cls(low - room, high + room, label, whole=whole)
        room = 0.0 if whole else (high - low) * 0.05
        return cls(low - room, high + room, label, whole=whole)

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values along the axis, and what is written there."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high, self.whole)


def _ticks(low: float, high: float, whole: bool) -> list[tuple[float, str]]:
    step = _step((high - low) / TICKS)
    step = max(1.0, round(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, tick_label(number * step, step)) for number in range(first, last + 1)]


def _step(rough: float) -> float:
    """The round number next to a step: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, math.ceil(len(powers) / (TICKS + 2)))
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    values = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [(value, tick_label(value, value)) for value in values if low <= value <= high]


def tick_label(value: float, step: float) -> str:
    """A value with the digits that a step tells apart: `0.25`, `1,500`, `20k`, `1e-5`."""
    if abs(value) < step * 1e-6:
        return "0"
    if abs(value) >= 1e4 or abs(value) < 1e-4:
        units = ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= 1e4 else ()
        for unit, letter in units:
            if 1e12 > abs(value) >= unit:
                return f"{value / unit:.6g}{letter}".replace("-", "−")
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}".replace("-", "−")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += abs(step * 10**digits - round(step * 10**digits)) > 1e-6  # of a step such as 0.25
    return f"{value:,.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class Frame:
    """The two axes of a plot, and its size."""

    x: Axis
    y: Axis
    width: float = WIDTH
    height: float = HEIGHT

    def point(self, x: float, y: float) -> Point:
        """The place of a value in the drawing."""
        across, up = self.x.at(x), self.y.at(y)
        return (
            LEFT + across * (self.width - LEFT - RIGHT),
            self.height - BOTTOM - up * (self.height - TOP - BOTTOM),
        )


class Mark(Protocol):
    """Something drawn in a frame."""

    def svg(self, frame: Frame) -> Iterator[str]:
        """Its elements."""


@dataclass(frozen=True)
class Line:
    """Points joined by a line, with gaps where a value is not finite; `kind` is its class in the style sheet."""

    points: Sequence[Point]
    kind: str
    dots: bool = False

    def svg(self, frame: Frame) -> Iterator[str]:
        path, open_ = [], False
        for x, y in thinned(self.points):
            if not math.isfinite(y) or not math.isfinite(x):
                open_ = False
                continue
            across, down = frame.point(x, y)
            # A step of no length: where nothing follows, the round end of the line is a dot.
            path.append(f"L{across:.1f} {down:.1f}" if open_ else f"M{across:.1f} {down:.1f}h0")
            open_ = True
        yield f'<path class="line {self.kind}" d="{"".join(path)}"/>'
        alone = len(path) == 1
        if self.dots or alone:
            for x, y in self.points:
                if math.isfinite(y):
                    across, down = frame.point(x, y)
                    yield f'<circle class="dot {self.kind}" cx="{across:.1f}" cy="{down:.1f}" r="2.6"/>'


@dataclass(frozen=True)
class Dots:
    """Points on their own, each with a radius and what is told where the pointer rests on it."""

    points: Sequence[Point]
    kind: str
    radii: Sequence[float] = ()
    told: Sequence[str] = ()

    def svg(self, frame: Frame) -> Iterator[str]:
        for place, (x, y) in enumerate(self.points):
            across, down = frame.point(x, y)
            radius = self.radii[place] if self.radii else 2.2
            told = f"<title>{escape(self.told[place])}</title>" if self.told else ""
            yield (
                f'<circle class="spot {self.kind}" cx="{across:.1f}" cy="{down:.1f}" r="{radius:.1f}">{told}</circle>'
            )


@dataclass(frozen=True)
class Bars:
    """Bars from zero, one from each edge to the next."""

    edges: Sequence[float]
    heights: Sequence[float]
    kind: str

    def svg(self, frame: Frame) -> Iterator[str]:
        for left, right, height in zip(self.edges, self.edges[1:], self.heights):
            (x, top), (end, bottom) = frame.point(left, height), frame.point(right, 0.0)
            gap = min(1.0, (end - x) / 5)
            yield (
                f'<rect class="bar {self.kind}" x="{x + gap / 2:.1f}" y="{top:.1f}" width="{end - x - gap:.1f}" '
                f'height="{bottom - top:.1f}"><title>{tick_label(left, right - left)} to '
                f"{tick_label(right, right - left)}: {height:,.6g}</title></rect>"
            )


@dataclass(frozen=True)
class Upright:
    """A dashed line at an x, with a label beside it."""

    x: float
    label: str

    def svg(self, frame: Frame) -> Iterator[str]:
        across, _ = frame.point(self.x, frame.y.low)
        beyond = across + 6 + len(self.label) * LETTER > frame.width - RIGHT
        side, anchor = (-5, "end") if beyond else (5, "start")
        yield f'<path class="rule" d="M{across:.1f} {TOP:.1f}V{frame.height - BOTTOM:.1f}"/>'
        yield (
            f'<text class="rule-label" x="{across + side:.1f}" y="{TOP - 4:.1f}" text-anchor="{anchor}">'
            f"{escape(self.label)}</text>"
        )


@dataclass(frozen=True)
class Diagonal:
    """The line where both axes have the same value."""

    def svg(self, frame: Frame) -> Iterator[str]:
        low, high = max(frame.x.low, frame.y.low), min(frame.x.high, frame.y.high)
        if low < high:
            (x, y), (end, top) = frame.point(low, low), frame.point(high, high)
            yield f'<path class="rule" d="M{x:.1f} {y:.1f}L{end:.1f} {top:.1f}"/>'


def chart(title: str, frame: Frame, marks: Iterable[Mark]) -> str:
    """An SVG element that has `title` as its name for those who do not see it."""
    parts = [
        f'<svg class="chart" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" aria-label="{escape(title)}">',
        *_axes(frame),
        *(element for mark in marks for element in mark.svg(frame)),
        "</svg>",
    ]
    return "\n".join(parts)


def _axes(frame: Frame) -> Iterator[str]:
    left, right, bottom = LEFT, frame.width - RIGHT, frame.height - BOTTOM
    for value, text in frame.y.ticks():
        _, down = frame.point(frame.x.low, value)
        yield f'<path class="grid" d="M{left:.1f} {down:.1f}H{right:.1f}"/>'
        yield f'<text x="{left - 7:.1f}" y="{down + 3.8:.1f}" text-anchor="end">{text}</text>'
    for value, text in _apart(frame):
        across, _ = frame.point(value, frame.y.low)
        yield f'<path class="tick" d="M{across:.1f} {bottom:.1f}v4"/>'
        yield f'<text x="{across:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{text}</text>'
    yield f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>'
    if frame.x.label:
        middle = (left + right) / 2
        yield (
            f'<text class="label" x="{middle:.1f}" y="{frame.height - 6:.1f}" text-anchor="middle">'
            f"{escape(frame.x.label)}</text>"
        )
    if frame.y.label:
        middle = (TOP + bottom) / 2
        yield (
            f'<text class="label" transform="translate(11 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(frame.y.label)}</text>"
        )


def _apart(frame: Frame) -> list[tuple[float, str]]:
    """The ticks of the x axis, fewer where their labels would touch."""
    ticks = frame.x.ticks()
    room = max((len(text) for _, text in ticks), default=0) * LETTER + 12
    every = max(1, math.ceil(len(ticks) * room / (frame.width - LEFT - RIGHT + room)))
    return ticks[::every]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> Sequence[Point]:
    """At most about `most` of the points of a line: of each stretch the first, the lowest and the highest."""
    if len(points) <= most:
        return points
    pieces = max(1, most // 3)
    edges = [len(points) * piece // pieces for piece in range(pieces + 1)]
    kept: set[int] = {len(points) - 1}
    for start, end in pairwise(edges):
        finite = [place for place in range(start, end) if math.isfinite(points[place][1])] or [start]
        lowest = min(finite, key=lambda place: points[place][1])
        highest = max(finite, key=lambda place: points[place][1])
        kept |= {start, lowest, highest}
    return [points[place] for place in sorted(kept)]
