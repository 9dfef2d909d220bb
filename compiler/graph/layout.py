"""From boxes and edges to places: each diagram in layers from above, those within boxes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tdsl.compiler.graph.layered import Cell, Layers, Link, arrange, ranks
from tdsl.compiler.graph.measure import PLAIN, SHAPE, SMALL, TITLE
from tdsl.compiler.graph.model import Box, Diagram, Edge, Kind, Port

PADDING, GAP, LANE = 14.0, 22.0, 16.0
# Below a row: where labels stand, or nothing; then straight wires, or those that change their places.
LABELS, NO_LABELS, STRAIGHT, BENT, MOST_BENT = 22.0, 2.0, 14.0, 20.0, 40.0
HEADER, RADIUS, PORT = 30.0, 12.0, 14.0
# How far the sheets behind a box that stands for several show below it.
SHEETS = 6.0


@dataclass(frozen=True)
class Rect:
    """Its left upper corner, and its extent."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def moved(self, x: float, y: float) -> Rect:
        return replace(self, x=self.x + x, y=self.y + y)


@dataclass(frozen=True)
class Label:
    """The type of a tensor, in the middle of `rect`."""

    text: str
    rect: Rect


@dataclass(frozen=True)
class Wire:
    """A path of points: straight down, or from one column to another between two rows."""

    edge: Edge
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Placed:
    """A box in its place; `inside` lies relative to the same origin."""

    box: Box
    rect: Rect
    inside: Placement | None = None


@dataclass(frozen=True)
class Placement:
    """Everything of one diagram."""

    width: float
    height: float
    boxes: tuple[Placed, ...] = ()
    wires: tuple[Wire, ...] = ()
    labels: tuple[Label, ...] = ()

    def moved(self, x: float, y: float) -> Placement:
        return Placement(
            self.width,
            self.height,
            tuple(Placed(p.box, p.rect.moved(x, y), p.inside.moved(x, y) if p.inside else None) for p in self.boxes),
            tuple(Wire(w.edge, tuple((a + x, b + y) for a, b in w.points)) for w in self.wires),
            tuple(Label(label.text, label.rect.moved(x, y)) for label in self.labels),
        )


def place_all(roots: Sequence[Box]) -> Placement:
    """Models side by side."""
    found, x, height = list[Placed](), 0.0, 0.0
    for box in roots:
        size = _size(box)
        placed = Placed(box, Rect(x, 0, size.width, size.height), size.inside and size.inside.moved(x, 0))
        found.append(placed)
        x, height = x + size.width + 2 * GAP, max(height, size.height)
    return Placement(max(x - 2 * GAP, 0), height, tuple(found))


# Sizes ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Size:
    """`inputs` and `outputs` are where wires end, from the box's middle."""

    width: float
    height: float
    inside: Placement | None = None
    inputs: tuple[float, ...] = ()
    outputs: tuple[float, ...] = ()

    def into(self, number: int) -> float:
        return self.inputs[number] if number < len(self.inputs) else 0.0

    def out(self, number: int) -> float:
        return self.outputs[number] if number < len(self.outputs) else 0.0


def _size(box: Box, labels: Sequence[str] = ()) -> _Size:
    """The size of a box; `labels` are the types of its outputs."""
    if box.inside is not None:
        return _container(box, box.inside)
    if box.kind is Kind.SIGN:
        return _Size(2 * RADIUS, 2 * RADIUS)
    if box.kind in (Kind.INPUT, Kind.OUTPUT):
        gap = 6 if box.title and box.subtitle else 0
        return _Size(PLAIN.width(box.title) + gap + SHAPE.width(box.subtitle) + 2 * PADDING, 24)
    wide = max([head_width(box), *(line_width(line) for line in box.lines)])
    spread = max((SHAPE.width(label) for label in labels), default=0) + 12
    outputs = tuple((i - (len(labels) - 1) / 2) * spread for i in range(len(labels)))
    width = max(wide + 2 * PADDING, spread * (len(labels) - 1) + 2 * PADDING)
    return _Size(width, 16 + TITLE.line + SMALL.line * len(box.lines) + sheets(box), outputs=outputs)


def sheets(box: Box) -> float:
    return SHEETS if box.times != 1 else 0.0


def head_width(box: Box) -> float:
    times = PLAIN.width(f"\u00d7 {box.times}") + 18 if box.times != 1 else 0
    gaps = 8 * (bool(box.subtitle) + bool(box.note))
    return TITLE.width(box.title) + PLAIN.width(box.subtitle) + SMALL.width(box.note) + gaps + times


def is_shape(line: str) -> bool:
    """Whether a line of a box speaks of shapes, which stand in the font of shapes."""
    return "[" in line


def line_width(line: str) -> float:
    return (SHAPE if is_shape(line) else SMALL).width(line)


def _container(box: Box, diagram: Diagram) -> _Size:
    inner = place(diagram)
    wide = max(inner.width, head_width(box) + 8)
    inside = inner.moved(PADDING + (wide - inner.width) / 2, HEADER)
    width = wide + 2 * PADDING
    middles = {placed.box: placed.rect.x + placed.rect.width / 2 - width / 2 for placed in inside.boxes}
    return _Size(
        width,
        HEADER + inner.height + 6 + sheets(box),
        inside,
        tuple(middles[each] for each in diagram.inputs),
        tuple(middles[each] for each in diagram.outputs),
    )


# Places --------------------------------------------------------------------------------------------------------------


@dataclass
class _Sheet:
    """A diagram while it is placed: for each box its size and cell, for each edge the lanes it runs through."""

    diagram: Diagram
    sizes: dict[Box, _Size] = field(default_factory=dict)
    cells: dict[Box, Cell] = field(default_factory=dict)
    rows: list[list[Cell]] = field(default_factory=list)
    lanes: dict[tuple[Port, int], Cell] = field(default_factory=dict)
    links: dict[tuple[Cell, Cell, float, float], Link] = field(default_factory=dict)
    labels: dict[Port, str] = field(default_factory=dict)


def place(diagram: Diagram) -> Placement:
    """The places of a diagram's boxes, wires and labels."""
    sheet = _Sheet(diagram)
    _measure(sheet)
    _route(sheet)
    layers = Layers(sheet.rows, list(sheet.links.values()), GAP)
    arrange(layers)
    return _finish(sheet)


def _measure(sheet: _Sheet) -> None:
    ports: dict[Box, dict[int, str]] = {}
    for edge in sheet.diagram.edges:
        ports.setdefault(edge.source.box, {})[edge.source.number] = edge.label
        if edge.source.box.kind is not Kind.INPUT and edge.target.box.kind is not Kind.OUTPUT:
            sheet.labels[edge.source] = edge.label
    for box in sheet.diagram.boxes:
        used = ports.get(box, {})
        sheet.sizes[box] = _size(box, [used.get(i, "") for i in range(max(used, default=-1) + 1)])


def _route(sheet: _Sheet) -> None:
    """Cells for boxes, lanes for the edges that pass layers, links between them."""
    boxes = sheet.diagram.boxes
    numbers = {box: i for i, box in enumerate(boxes)}
    edges = [(numbers[edge.source.box], numbers[edge.target.box]) for edge in sheet.diagram.edges]
    first = [numbers[box] for box in sheet.diagram.inputs]
    last = [numbers[box] for box in sheet.diagram.outputs]
    rank = ranks(len(boxes), edges, first, last)
    sheet.rows = [[] for _ in range(max(rank, default=-1) + 1)]
    for box, layer in zip(boxes, rank):
        sheet.cells[box] = Cell(len(sheet.cells), layer, _slot(sheet, box))
        sheet.rows[layer].append(sheet.cells[box])
    for edge in sheet.diagram.edges:
        _link(sheet, edge)


def _slot(sheet: _Sheet, box: Box) -> float:
    """The width that a box needs with the labels below it."""
    size = sheet.sizes[box]
    needed = [size.width]
    for port, label in sheet.labels.items():
        if port.box is box:
            needed.append(2 * abs(size.out(port.number)) + SHAPE.width(label) + 8)
    return max(needed)


def _link(sheet: _Sheet, edge: Edge) -> None:
    source, target = sheet.cells[edge.source.box], sheet.cells[edge.target.box]
    upper, out = source, sheet.sizes[edge.source.box].out(edge.source.number)
    for layer in range(source.layer + 1, target.layer):
        key = (edge.source, layer)
        if key not in sheet.lanes:
            sheet.lanes[key] = Cell(len(sheet.cells) + len(sheet.lanes), layer, LANE, lane=True)
            sheet.rows[layer].append(sheet.lanes[key])
        _join(sheet, upper, sheet.lanes[key], out, 0.0)
        upper, out = sheet.lanes[key], 0.0
    _join(sheet, upper, target, out, sheet.sizes[edge.target.box].into(edge.target.number))


def _join(sheet: _Sheet, upper: Cell, lower: Cell, out: float, into: float) -> None:
    sheet.links.setdefault((upper, lower, out, into), Link(upper, lower, out, into))


def _finish(sheet: _Sheet) -> Placement:
    boxes_at = {cell: box for box, cell in sheet.cells.items()}
    tops, strips, bottoms = [0.0], [], []
    for number, row in enumerate(sheet.rows):
        here = [boxes_at[cell] for cell in row if not cell.lane]
        height = max((sheet.sizes[box].height for box in here), default=0.0)
        labelled = any(port.box in here for port in sheet.labels)
        strips.append(LABELS if labelled else NO_LABELS)
        bottoms.append(tops[-1] + height)
        tops.append(bottoms[-1] + strips[-1] + _bends(sheet, number))
    placed = tuple(_placed(sheet, box, tops, bottoms) for box in sheet.diagram.boxes)
    rects = {each.box: each.rect for each in placed}
    right = max((cell.x + cell.width / 2 for row in sheet.rows for cell in row), default=0.0)
    return Placement(
        right,
        bottoms[-1] if bottoms else 0.0,
        placed,
        tuple(_wires(sheet, rects, tops, bottoms, strips)),
        tuple(_labels(sheet, rects)),
    )


def _bends(sheet: _Sheet, number: int) -> float:
    """The height between a row and the next: the wider wires swing there, the more."""
    links = (link for link in sheet.links.values() if link.upper.layer == number)
    widest = max((abs(link.lower.x + link.into - link.upper.x - link.out) for link in links), default=0.0)
    return STRAIGHT if widest < 1 else min(BENT + widest / 10, MOST_BENT)


def _placed(sheet: _Sheet, box: Box, tops: Sequence[float], bottoms: Sequence[float]) -> Placed:
    """A box in the middle of its row; inputs at the top of theirs, so that they line up."""
    size, cell = sheet.sizes[box], sheet.cells[box]
    spare = bottoms[cell.layer] - tops[cell.layer] - size.height
    rect = Rect(cell.x - size.width / 2, tops[cell.layer] + spare / 2, size.width, size.height)
    return Placed(box, rect, size.inside.moved(rect.x, rect.y) if size.inside else None)


def _labels(sheet: _Sheet, rects: dict[Box, Rect]) -> Iterator[Label]:
    for port, text in sheet.labels.items():
        rect, width = rects[port.box], SHAPE.width(text) + 6
        x = rect.x + rect.width / 2 + sheet.sizes[port.box].out(port.number)
        yield Label(text, Rect(x - width / 2, rect.bottom + 4, width, SHAPE.line))


def _wires(
    sheet: _Sheet,
    rects: dict[Box, Rect],
    tops: Sequence[float],
    bottoms: Sequence[float],
    strips: Sequence[float],
) -> Iterator[Wire]:
    ends = _ends(sheet)
    for edge in sheet.diagram.edges:
        source, target = sheet.cells[edge.source.box], sheet.cells[edge.target.box]
        x = source.x + sheet.sizes[edge.source.box].out(edge.source.number)
        points = [(x, rects[edge.source.box].bottom)]
        for layer in range(source.layer, target.layer):
            points.append((x, bottoms[layer] + strips[layer]))
            lane = sheet.lanes.get((edge.source, layer + 1)) if layer + 1 < target.layer else None
            x = lane.x if lane is not None else target.x + ends[edge]
            points.append((x, tops[layer + 1]))
        points.append((x, rects[edge.target.box].y))
        yield Wire(edge, tuple(dict.fromkeys((round(x, 1), round(y, 1)) for x, y in points)))


def _ends(sheet: _Sheet) -> dict[Edge, float]:
    """How far from its middle a wire ends at a box: what comes from above ends there, others to its sides."""
    found: dict[Edge, float] = {}
    for box, size in sheet.sizes.items():
        edges = [edge for edge in sheet.diagram.edges if edge.target.box is box]
        if size.inputs:
            found |= {edge: size.into(edge.target.number) for edge in edges}
            continue
        comes = {edge: _last(sheet, edge) - sheet.cells[box].x for edge in edges}
        ordered = sorted(edges, key=comes.__getitem__)
        step = min(PORT if box.kind is not Kind.SIGN else RADIUS * 0.7, size.width / (len(ordered) + 1))
        middle = min(range(len(ordered)), key=lambda i: abs(comes[ordered[i]]), default=0)
        reach = 1.0 if box.kind is Kind.SIGN else max(size.width / 2 - step * len(ordered), 1.0)
        straight = bool(ordered) and abs(comes[ordered[middle]]) < reach
        centre = middle - comes[ordered[middle]] / step if straight else (len(ordered) - 1) / 2
        found |= {edge: (i - centre) * step for i, edge in enumerate(ordered)}
    return found


def _last(sheet: _Sheet, edge: Edge) -> float:
    """Where a wire is in the layer above its target."""
    lane = sheet.lanes.get((edge.source, sheet.cells[edge.target.box].layer - 1))
    if lane is not None:
        return lane.x
    return sheet.cells[edge.source.box].x + sheet.sizes[edge.source.box].out(edge.source.number)
