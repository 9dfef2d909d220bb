"""A placed picture as SVG: one file for itself, for light and dark, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

from tdsl.compiler.graph.layout import (
    PADDING,
    RADIUS,
    SHEETS,
    Label,
    Placed,
    Placement,
    Rect,
    Wire,
    is_shape,
    place_all,
    sheets,
)
from tdsl.compiler.graph.measure import HEADING, PLAIN, SHAPE, SMALL, TITLE, Font
from tdsl.compiler.graph.model import Box, Kind, Picture

MARGIN = 28.0
TINTS = 8
CLASSES = {TITLE: "t", PLAIN: "p", SMALL: "s", SHAPE: "m", HEADING: "h"}
STYLE = Path(__file__).resolve().parents[2] / "templates" / "graph" / "picture.css"


def svg(picture: Picture) -> str:
    """The picture as the text of an SVG file."""
    placement = place_all(picture.roots).moved(MARGIN, MARGIN + HEADING.line + 10)
    legend = list(_legend(picture.kernels, MARGIN, placement.height + 2 * MARGIN + HEADING.line + 10, placement.width))
    lines = legend[-1][0].bottom if legend else placement.height + MARGIN + HEADING.line + 10
    widest = max([placement.width, HEADING.width(picture.title), *(rect.right - MARGIN for rect, _ in legend)])
    width, height = round(widest + 2 * MARGIN), round(lines + MARGIN)
    tints = {name: f"k{i % TINTS}" for i, name in enumerate(picture.kernels)}
    body = [
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(HEADING, MARGIN, MARGIN + 12, picture.title),
        *_boxes(placement, tints, 0),
        *(line for _, part in legend for line in part),
    ]
    return "\n".join([*_head(width, height, picture.title), *body, "</svg>", ""])


def _head(width: int, height: int, title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE.read_text(encoding='utf-8')}{_tint_rules()}\n</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
        '<path class="head" d="M0 0.5 L8 4 L0 7.5 z"/></marker>',
    ]


def _tint_rules() -> str:
    rules = []
    for i in range(TINTS):
        hue = (208 + i * 137) % 360  # steps of the golden angle: neighbours in the legend differ most
        rules.append(f".k{i} {{ fill: hsl({hue} var(--hue) var(--light)); stroke: hsl({hue} var(--hue) var(--rim)) }}")
    return "\n".join(rules)


# Boxes ---------------------------------------------------------------------------------------------------------------


def _boxes(placement: Placement, tints: dict[str, str], depth: int) -> Iterator[str]:
    for wire in placement.wires:
        yield _wire(wire)
    for label in placement.labels:
        yield from _label(label, depth)
    for placed in placement.boxes:
        yield from _box(placed, tints, depth)


def _box(placed: Placed, tints: dict[str, str], depth: int) -> Iterator[str]:
    box, rect = placed.box, placed.rect
    yield f"<g><title>{escape(_told(box))}</title>"
    if placed.inside is not None:
        yield from _container(placed, tints, depth)
    elif box.kind is Kind.SIGN:
        middle = rect.x + rect.width / 2
        yield f'<circle class="sign" cx="{_n(middle)}" cy="{_n(rect.y + RADIUS)}" r="{_n(RADIUS)}"/>'
        yield _text(TITLE, middle, rect.y + RADIUS + 4.5, box.title, "middle")
    elif box.kind in (Kind.INPUT, Kind.OUTPUT):
        yield from _pin(box, rect)
    else:
        yield from _leaf(box, rect, tints.get(box.kernel, "box"))
    yield "</g>"


def _told(box: Box) -> str:
    return " ".join(filter(None, (box.title, box.subtitle))) or box.kind.value


def _container(placed: Placed, tints: dict[str, str], depth: int) -> Iterator[str]:
    box, rect = placed.box, placed.rect
    assert placed.inside is not None
    yield from _stack(rect, "nested" if depth % 2 else "module", box, 10)
    yield from _heading(box, rect, rect.y + 20)
    yield from _boxes(placed.inside, tints, depth + 1)


def _stack(rect: Rect, look: str, box: Box, radius: float) -> Iterator[str]:
    """A box, on sheets where it stands for several."""
    front = replace(rect, height=rect.height - sheets(box))
    for shift in (SHEETS, SHEETS / 2, 0.0) if sheets(box) else (0.0,):
        yield _rect(front.moved(shift, shift), look, radius)


def _heading(box: Box, rect: Rect, y: float) -> Iterator[str]:
    x = rect.x + PADDING
    yield _text(TITLE, x, y, box.title)
    x += TITLE.width(box.title) + (8 if box.title else 0)
    yield _text(PLAIN, x, y, box.subtitle)
    right = rect.right - PADDING
    if box.times != 1:
        times = f"\u00d7 {box.times}"
        wide = PLAIN.width(times) + 10
        yield _rect(Rect(right - wide, y - 13, wide, 18), "times", 9)
        yield _text(PLAIN, right - wide / 2, y, times, "middle")
        right -= wide + 8
    if box.note:
        yield _text(SMALL, right, y, box.note, "end")


def _leaf(box: Box, rect: Rect, look: str) -> Iterator[str]:
    yield from _stack(rect, look, box, 7)
    y = rect.y + 8 + TITLE.size
    yield from _heading(box, rect, y)
    for line in box.lines:
        y += SMALL.line
        yield _text(SHAPE if is_shape(line) else SMALL, rect.x + PADDING, y, line)


def _pin(box: Box, rect: Rect) -> Iterator[str]:
    yield _rect(rect, "pin", rect.height / 2)
    x, y = rect.x + PADDING, rect.y + rect.height / 2 + 4
    yield _text(PLAIN, x, y, box.title)
    yield _text(SHAPE, rect.right - PADDING, y, box.subtitle, "end")


def _wire(wire: Wire) -> str:
    (x, y), *rest = wire.points
    path = [f"M{_n(x)} {_n(y)}"]
    for to_x, to_y in rest:
        bend = (y + to_y) / 2
        curve = f"C{_n(x)} {_n(bend)} {_n(to_x)} {_n(bend)} " if abs(to_x - x) > 0.5 else "L"
        path.append(f"{curve}{_n(to_x)} {_n(to_y)}")
        x, y = to_x, to_y
    return f'<path class="wire" marker-end="url(#head)" d="{" ".join(path)}"/>'


def _label(label: Label, depth: int) -> Iterator[str]:
    """A type on its wire, which it hides."""
    rect = label.rect
    look = "page" if depth == 0 else "plate-module" if depth % 2 else "plate-nested"
    yield _rect(rect, look, 3)
    yield _text(SHAPE, rect.x + rect.width / 2, rect.y + 11.5, label.text, "middle")


# Legend --------------------------------------------------------------------------------------------------------------


def _legend(kernels: Sequence[str], x: float, y: float, width: float) -> Iterator[tuple[Rect, list[str]]]:
    """What the tints mean: a group of operations that one kernel computes, and its name."""
    if not kernels:
        return
    caption = "One kernel forward, one backward:"
    yield Rect(x, y, PLAIN.width(caption), 20), [_text(PLAIN, x, y + 14, caption)]
    at, top = x + PLAIN.width(caption) + 12, y
    for i, name in enumerate(kernels):
        wide = SMALL.width(name) + 34
        if at > x and at + wide > x + width:
            at, top = x, top + 24
        parts = [_rect(Rect(at, top + 2, 16, 16), f"k{i % TINTS}", 4), _text(SMALL, at + 22, top + 14, name)]
        yield Rect(at, top, wide, 20), parts
        at += wide


# Marks ---------------------------------------------------------------------------------------------------------------


def _rect(rect: Rect, look: str, radius: float) -> str:
    place = f'x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}"'
    return f'<rect class="{look}" {place} rx="{_n(radius)}"/>'


def _text(font: Font, x: float, y: float, text: str, anchor: str = "") -> str:
    if not text:
        return ""
    placed = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{CLASSES[font]}" x="{_n(x)}" y="{_n(y)}"{placed}>{escape(text)}</text>'


def _n(value: float) -> str:
    """A number with at most one decimal: the same text on every machine."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
