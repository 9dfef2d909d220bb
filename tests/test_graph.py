"""`tdsl graph`: everything of the model is in the picture, nothing lies on anything else, and the bytes are the same."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tdsl.compiler.build.unit import Unit
from tdsl.compiler.graph.build import picture
from tdsl.compiler.graph.layered import Cell, Layers, Link, arrange, ranks
from tdsl.compiler.graph.layout import Placed, Placement, Rect, place_all
from tdsl.compiler.graph.model import Box, Diagram, Edge, Kind, Picture, Port
from tdsl.compiler.graph.svg import svg
from tests.helpers import ROOT, SHARED, compiled, tdsl

GOLDEN = Path(__file__).parent / "golden" / "graph.svg"
PROGRAMS = [
    *sorted((ROOT / "examples").glob("*.model")),
    *sorted((SHARED / "conformance").glob("*.model")),
    *sorted(path for path in (ROOT / "tests" / "golden").glob("*.model") if path.stem != "digits"),  # an example
]
TWO = """module Tower(dim: int) {
    net = [Linear(64, dim), ReLU(), Linear(dim, dim)]
    forward(x: [B, 64]) -> [B, dim] { return x |> net }
}

module Pair(dim: int = 32, deep: int = 3) {
    tower = Tower(dim)
    steps = [Linear(dim, dim) for i in range(deep)]
    head  = Linear(dim, dim, bias=false, weight=steps[0].weight)
    param scale: [dim] = ones()

    forward(a: [B, 64], b: [B, 64]) -> ([B, dim], [B, B]) {
        x = tower(a)
        y = tower(b)
        h = x + (x |> steps)
        return head(h) * scale, x @ y.T
    }
}
"""
MODULE = "module M(dim: int = 8) {{\n{}\n}}\n"


def unit_of(path: Path) -> Unit:
    return compiled(path.read_text(encoding="utf-8"), name=path)


def boxes(box: Box) -> Iterator[Box]:
    yield box
    if box.inside is not None:
        for each in box.inside.boxes:
            yield from boxes(each)


def all_boxes(found: Picture) -> list[Box]:
    return [each for root in found.roots for each in boxes(root)]


def placements(placed: Placed) -> Iterator[tuple[Placed, Placement]]:
    if placed.inside is not None:
        yield placed, placed.inside
        for each in placed.inside.boxes:
            yield from placements(each)


def apart(a: Rect, b: Rect) -> bool:
    return a.right <= b.x + 0.01 or b.right <= a.x + 0.01 or a.bottom <= b.y + 0.01 or b.bottom <= a.y + 0.01


def within(inner: Rect, outer: Rect) -> bool:
    return (
        inner.x >= outer.x - 0.01
        and inner.y >= outer.y - 0.01
        and inner.right <= outer.right + 0.01
        and inner.bottom <= outer.bottom + 0.01
    )


def crosses(points: tuple[tuple[float, float], ...], rect: Rect) -> bool:
    """Whether a straight part of a wire passes through a box."""
    parts = ((a, b) for a, b in pairwise(points) if abs(a[0] - b[0]) < 0.5)
    return any(rect.x + 1 < a[0] < rect.right - 1 and a[1] < rect.bottom - 1 and b[1] > rect.y + 1 for a, b in parts)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nothing_overlaps(path: Path) -> None:
    found = picture(unit_of(path))
    roots = place_all(found.roots).boxes
    assert roots
    assert all(apart(a.rect, b.rect) for i, a in enumerate(roots) for b in roots[:i])
    for outer, inside in (pair for root in roots for pair in placements(root)):
        rects = [each.rect for each in inside.boxes] + [label.rect for label in inside.labels]
        assert all(within(rect, outer.rect) for rect in rects), outer.box.title
        assert all(apart(a, b) for i, a in enumerate(rects) for b in rects[:i]), outer.box.title
        for wire in inside.wires:
            assert not any(crosses(wire.points, each.rect) for each in inside.boxes), outer.box.title


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wires_end_at_their_boxes(path: Path) -> None:
    for root in place_all(picture(unit_of(path)).roots).boxes:
        for outer, inside in placements(root):
            rects = {each.box: each.rect for each in inside.boxes}
            assert outer.box.inside is not None
            assert [wire.edge for wire in inside.wires] == list(outer.box.inside.edges)
            for wire in inside.wires:
                (x, y), (to_x, to_y) = wire.points[0], wire.points[-1]
                source, target = rects[wire.edge.source.box], rects[wire.edge.target.box]
                assert y == pytest.approx(source.bottom, abs=0.1)
                assert to_y == pytest.approx(target.y, abs=0.1)
                assert source.x <= x <= source.right
                assert target.x <= to_x <= target.right
                assert [p[1] for p in wire.points] == sorted(p[1] for p in wire.points)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_file_is_xml_with_everything_in_it(path: Path) -> None:
    unit = unit_of(path)
    found = picture(unit)
    text = svg(found)
    assert text == svg(picture(unit))
    tree = ET.fromstring(text)
    texts = ["".join(each.itertext()) for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    every = all_boxes(found)
    for box in every:
        assert all(part in texts for part in (box.title, box.subtitle, box.note, *box.lines) if part), box.title
        assert box.times == 1 or f"\u00d7 {box.times}" in texts
    drawn = sum(each.get("class") == "wire" for each in tree.iter())
    assert drawn == sum(len(box.inside.edges) for box in every if box.inside)
    assert {box.kernel for box in every} - {""} == set(found.kernels)
    assert {group.name for graph in unit.graphs() for group in filter(None, (n.group for n in graph.nodes))} >= set(
        found.kernels
    )
    assert not any(name in text for name in ("href", "http://www.w3.org/1999", "<script"))


def test_golden(update_golden: bool) -> None:
    found = svg(picture(compiled(TWO)))
    if update_golden:
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


# What is shown -------------------------------------------------------------------------------------------------------


def test_layers_lists_sharing_and_counts() -> None:
    every = all_boxes(picture(compiled(TWO)))
    told = {(box.title, box.subtitle): box for box in every}
    root = every[0]
    assert (root.title, root.note) == ("Pair", "6,336 parameters")
    assert told["steps", "Linear(dim, dim)"].times == 3
    assert "1,056 parameters each" in told["steps", "Linear(dim, dim)"].lines
    assert "\u21ba weight = steps.0.weight" in told["head", "Linear(dim, dim, bias=false)"].lines
    towers = [box for box in every if box.title == "tower"]
    assert [box.note for box in towers] == ["3,136 parameters", "\u21ba weights of the call before"]
    assert told["0", "Linear(64, dim)"].lines == ("[B, 64] \u2192 [B, dim]", "2,080 parameters")
    assert "[B, dim] \u2192 [B, dim]" in told["1", "ReLU()"].lines


CHAINS = """module Half(dim: int, by: int = 2) {
    down = Linear(dim, dim // by)
    forward(x: [..., dim]) -> [..., dim // by] { return down(x) }
}

module Long() {
    net = Sequential(
        Conv2d(3, 8, 3, padding="same"), BatchNorm2d(8), PReLU(), MaxPool2d(2), GroupNorm(2, 8), Upsample(scale_factor=2),
        PixelShuffle(2), AdaptiveAvgPool2d(4), Flatten(), Unflatten(1, (2, 16)), Flatten(1), LayerNorm(32), GLU(), Half(16),
    )
    forward(x: [B, 3, 32, 32]) -> [B, 8] { return net(x) }
}
"""


def test_types_between_the_elements_of_a_sequence_end_in_its_own() -> None:
    (root,) = picture(compiled(CHAINS)).roots
    sequence = next(box for box in boxes(root) if box.subtitle == "Sequential")
    assert sequence.inside is not None
    labels = [edge.label for edge in sequence.inside.edges]
    assert len(labels) == 15
    assert all(labels)
    assert labels[-1] == sequence.inside.outputs[0].subtitle == "[B, 8]"
    assert labels[5:9] == ["[B, 8, 16, 16]", "[B, 8, 32, 32]", "[B, 2, 64, 64]", "[B, 2, 4, 4]"]


def test_a_module_under_several_names() -> None:
    text = """
    a   = Linear(dim, dim)
    b   = a
    net = [b, ReLU()]
    forward(x: [B, dim]) -> [B, dim] {{ return b(a(x)) |> net }}""".format()
    every = all_boxes(picture(compiled(MODULE.format(text))))
    marks = [box.lines[-1] for box in every if box.subtitle.startswith("Linear")]
    assert marks == ["72 parameters", "\u21ba weights of a", "\u21ba weights of a"]


def test_a_residual_connection_passes_its_branch() -> None:
    text = MODULE.format(
        "    up = Linear(dim, dim)\n    forward(x: [B, dim]) -> [B, dim] {\n        return x + up(x)\n    }"
    )
    (root,) = picture(compiled(text)).roots
    assert root.inside is not None
    kinds = [(edge.source.box.kind, edge.target.box.kind, edge.label) for edge in root.inside.edges]
    assert kinds == [
        (Kind.INPUT, Kind.LAYER, "[B, dim]"),
        (Kind.INPUT, Kind.SIGN, "[B, dim]"),
        (Kind.LAYER, Kind.SIGN, "[B, dim]"),
        (Kind.SIGN, Kind.OUTPUT, "[B, dim]"),
    ]


def test_a_module_by_its_name() -> None:
    (root,) = picture(compiled(TWO), "Tower").roots
    assert root.title == "Tower"


def test_a_module_of_python() -> None:
    text = (
        'extern module Backbone(width: int) : float[B, 3] -> float[B, width] = "package.module:Class"\n'
        + MODULE.format("    back = Backbone(dim)\n    forward(x: [B, 3]) -> [B, dim] { return back(x) }")
    )
    (root,) = picture(compiled(text)).roots
    (back,) = (box for box in boxes(root) if box.title == "back")
    assert (back.subtitle, back.inside) == ("Backbone(dim)", None)
    assert back.lines == ("[B, 3] \u2192 [B, dim]",)


def test_both_sides_of_a_branch() -> None:
    body = "    up = Linear(dim, dim)\n    forward(x: [B, dim]) -> [B, dim] {{\n        if training {{ y = up(x) }} else {{ y = x }}\n        return y\n    }}"
    (root,) = picture(compiled(MODULE.format(body.format()))).roots
    assert {"if training", "training", "otherwise", "up"} <= {box.title for box in boxes(root)}


def test_what_stands_in_the_program_is_text() -> None:
    box = Box(Kind.OP, "<&>", '"', ("</svg>",))
    text = svg(Picture("<t>", (box,), ("<k>",)))
    assert "".join(ET.fromstring(text).itertext()).count("<&>") >= 1


# Layers --------------------------------------------------------------------------------------------------------------


def test_ranks() -> None:
    #   0 -> 1 -> 2 -> 4, 0 -> 4; 3 needs nothing and is needed by 2
    assert ranks(5, [(0, 1), (1, 2), (2, 4), (0, 4), (3, 2)], [0], [4]) == [0, 1, 2, 1, 3]


def test_crossings_are_undone() -> None:
    a, b, c, d = (Cell(i, i // 2, 10) for i in range(4))
    layers = Layers([[a, b], [c, d]], [Link(a, d, 0, 0), Link(b, c, 0, 0)], 5)
    arrange(layers)
    assert (a.x < b.x) == (d.x < c.x)


def test_a_lane_is_straight_and_beside_the_boxes() -> None:
    signs = [Box(Kind.LAYER, "a" * n) for n in (3, 30, 9)]
    start, end = Box(Kind.INPUT, "x"), Box(Kind.OUTPUT, "y")
    chain = [start, *signs, end]
    edges = [Edge(Port(a), Port(b)) for a, b in pairwise(chain)] + [Edge(Port(start), Port(end))]
    (root,) = place_all([Box(Kind.MODULE, "m", inside=Diagram(tuple(chain), tuple(edges)))]).boxes
    assert root.inside is not None
    lane = root.inside.wires[-1].points
    assert len({x for x, _ in lane[2:-2]}) == 1
    assert not any(crosses(lane, each.rect) for each in root.inside.boxes)
    middles = {round(each.rect.x + each.rect.width / 2) for each in root.inside.boxes[1:4]}
    assert len(middles) == 1


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "two.model").write_text(TWO, encoding="utf-8")
    ran = tdsl("graph", "two.model", "-o", "out.svg", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert tdsl("graph", "two.model", cwd=tmp_path).stdout == (tmp_path / "out.svg").read_text(encoding="utf-8")
    tower = tdsl("graph", "two.model", "--module", "Tower", cwd=tmp_path)
    assert ">Tower<" in tower.stdout
    assert ">Pair<" not in tower.stdout
    wrong = tdsl("graph", "two.model", "--module", "Towr", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Tower" in wrong.stderr
