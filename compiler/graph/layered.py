"""Layered drawing of a directed acyclic graph, after Sugiyama: layers, an order within each, and places.

Edges that span several layers run through lanes, one in each layer between; those from one port share theirs.
Crossings are reduced by barycentres; places minimise weighted squares of what is not straight, which for one layer with
its order and distances kept is isotonic regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ROUNDS = 24
# What it is worth that an edge is straight: between boxes, to a lane, within a lane.
BOX, MIXED, LANE = 4.0, 1.0, 8.0


@dataclass(eq=False)
class Cell:
    """A box's place in its layer, or a lane's. `width` is what it needs; `x` its middle."""

    number: int
    layer: int
    width: float
    lane: bool = False
    x: float = 0.0


@dataclass(frozen=True)
class Link:
    """Between cells of adjacent layers; `out` and `into` are how far from their middles it ends."""

    upper: Cell
    lower: Cell
    out: float
    into: float

    @property
    def weight(self) -> float:
        return LANE if self.upper.lane and self.lower.lane else MIXED if self.upper.lane or self.lower.lane else BOX


@dataclass
class Layers:
    """Cells by layer, each in its order from the left, and the links between them."""

    rows: list[list[Cell]]
    links: list[Link]
    gap: float
    above: dict[Cell, list[Link]] = field(default_factory=dict)
    below: dict[Cell, list[Link]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for link in self.links:
            self.above.setdefault(link.lower, []).append(link)
            self.below.setdefault(link.upper, []).append(link)


def ranks(size: int, edges: Sequence[tuple[int, int]], first: Sequence[int], last: Sequence[int]) -> list[int]:
    """The layer of each of `size` nodes, which are in topological order: as far up as the edges allow.

    Those in `first` have the first layer for themselves, those in `last` the last; what nothing leads to stands
    directly above what needs it.
    """
    before: dict[int, list[int]] = {i: [] for i in range(size)}
    after: dict[int, list[int]] = {i: [] for i in range(size)}
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    start = 1 if first else 0
    rank = [0] * size
    for i in range(size):
        rank[i] = 0 if i in first else max((rank[p] + 1 for p in before[i]), default=start)
    for i in reversed(range(size)):
        if not before[i] and after[i] and i not in first:
            rank[i] = max(start, min(rank[n] for n in after[i]) - 1)
    deepest = max((rank[i] for i in range(size) if i not in last), default=-1)
    for i in last:
        rank[i] = deepest + 1
    return rank


def arrange(layers: Layers) -> None:
    """Order the cells of each layer, then place them."""
    _order(layers)
    _place(layers)


# Order ---------------------------------------------------------------------------------------------------------------


def _order(layers: Layers) -> None:
    best, fewest = [list(row) for row in layers.rows], _crossings(layers)
    for number in range(ROUNDS):
        if not fewest:
            break
        down = number % 2 == 0
        for row in layers.rows[1:] if down else layers.rows[-2::-1]:
            _sort(layers, row, down)
        found = _crossings(layers)
        if found < fewest:
            best, fewest = [list(row) for row in layers.rows], found
    layers.rows[:] = best


def _sort(layers: Layers, row: list[Cell], down: bool) -> None:
    """By the mean place of the neighbours in the layer before; what has none there keeps its own."""
    at = _positions(layers)
    keys: dict[Cell, float] = {}
    for cell in row:
        links = (layers.above if down else layers.below).get(cell, [])
        others = [at[link.upper if down else link.lower] for link in links]
        keys[cell] = sum(others) / len(others) if others else at[cell]
    row.sort(key=keys.__getitem__)


def _positions(layers: Layers) -> dict[Cell, float]:
    return {cell: (i + 0.5) / len(row) for row in layers.rows for i, cell in enumerate(row)}


def _crossings(layers: Layers) -> int:
    at = {cell: i for row in layers.rows for i, cell in enumerate(row)}
    ends: dict[int, list[tuple[tuple[int, float], tuple[int, float]]]] = {}
    for link in layers.links:
        ends.setdefault(link.upper.layer, []).append(((at[link.upper], link.out), (at[link.lower], link.into)))
    return sum(_crossed(found) for found in ends.values())


def _crossed(ends: Sequence[tuple[tuple[int, float], tuple[int, float]]]) -> int:
    pairs = ((a, b) for i, a in enumerate(ends) for b in ends[:i])
    return sum((a[0] < b[0] and a[1] > b[1]) or (a[0] > b[0] and a[1] < b[1]) for a, b in pairs)


# Places --------------------------------------------------------------------------------------------------------------


def _place(layers: Layers) -> None:
    for row in layers.rows:
        _settle(row, dict.fromkeys(row, 0.0), dict.fromkeys(row, 1.0), layers.gap)
    for number in range(2 * ROUNDS):
        for row in layers.rows if number % 2 == 0 else layers.rows[::-1]:
            _settle(row, *_wishes(layers, row), layers.gap)
    _straighten(layers)
    left = min((cell.x - cell.width / 2 for row in layers.rows for cell in row), default=0.0)
    for row in layers.rows:
        for cell in row:
            cell.x -= left


def _wishes(layers: Layers, row: Sequence[Cell]) -> tuple[dict[Cell, float], dict[Cell, float]]:
    """Where each cell of a layer would have its links straight, and how much that weighs."""
    wishes: dict[Cell, float] = {}
    weights: dict[Cell, float] = {}
    for cell in row:
        found = [(link.weight, link.upper.x + link.out - link.into) for link in layers.above.get(cell, [])]
        found += [(link.weight, link.lower.x + link.into - link.out) for link in layers.below.get(cell, [])]
        weights[cell] = sum(weight for weight, _ in found)
        wishes[cell] = sum(weight * x for weight, x in found) / weights[cell] if found else cell.x
        weights[cell] = weights[cell] or 0.1
    return wishes, weights


def _settle(row: Sequence[Cell], wishes: Mapping[Cell, float], weights: Mapping[Cell, float], gap: float) -> None:
    """The places nearest to the wishes at which cells keep their order and distance: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many cells
    offsets: list[float] = []
    offset = 0.0
    for i, cell in enumerate(row):
        offset += (row[i - 1].width + cell.width) / 2 + gap if i else 0.0
        offsets.append(offset)
        mean, weight, size = wishes[cell] - offset, weights[cell], 1
        while pools and pools[-1][0] > mean:
            other, heavy, many = pools.pop()
            mean, weight, size = (mean * weight + other * heavy) / (weight + heavy), weight + heavy, size + many
        pools.append((mean, weight, size))
    places = [mean for mean, _, size in pools for _ in range(size)]
    for cell, place, offset in zip(row, places, offsets):
        cell.x = place + offset


def _straighten(layers: Layers) -> None:
    """Chains of cells, the longest first, are set to one line; what stands beside them gives way."""
    fixed: dict[Cell, tuple[float, float]] = {}
    weight = 1e15
    for chain in sorted(_chains(layers), key=len, reverse=True):
        x = sum(cell.x + shift for cell, shift in chain) / len(chain)
        for _ in range(2):
            fixed |= {cell: (x - shift, weight) for cell, shift in chain}
            for number in sorted({cell.layer for cell, _ in chain}):
                _settle_fixed(layers.rows[number], fixed, layers.gap)
            # What was set before may have pushed part of the chain aside: the whole of it goes there.
            x = max((cell.x + shift for cell, shift in chain), key=lambda place: abs(place - x))
        weight = max(weight / 1e4, 1e3)


def _settle_fixed(row: Sequence[Cell], fixed: Mapping[Cell, tuple[float, float]], gap: float) -> None:
    wishes = {cell: fixed[cell][0] if cell in fixed else cell.x for cell in row}
    _settle(row, wishes, {cell: fixed[cell][1] if cell in fixed else 1.0 for cell in row}, gap)


def _chains(layers: Layers) -> list[list[tuple[Cell, float]]]:
    """Each cell once, in chains of links: each with how far to its right the line of the chain's first cell passes."""
    following: dict[Cell, Link] = {}
    taken: set[Cell] = set()
    for link in sorted(layers.links, key=lambda link: (-link.weight, abs(_bend(link)))):
        if link.upper not in following and link.lower not in taken:
            following[link.upper] = link
            taken.add(link.lower)
    found = []
    for cell in (cell for row in layers.rows for cell in row if cell not in taken):
        chain = [(cell, 0.0)]
        while (after := following.get(chain[-1][0])) is not None:
            chain.append((after.lower, chain[-1][1] + after.into - after.out))
        found.append(chain)
    return found


def _bend(link: Link) -> float:
    return link.lower.x + link.into - link.upper.x - link.out
