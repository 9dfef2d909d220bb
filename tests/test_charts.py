"""Charts: ticks that are round and told apart, points in their places, and what is left out of a long line."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from tdsl.runtime.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Bars,
    Diagonal,
    Dots,
    Frame,
    Line,
    Upright,
    chart,
    thinned,
    tick_label,
)

SPANS = [(0, 1), (0.97, 0.971), (-3, 12), (1, 1e5), (5e-7, 6e-7), (1e-9, 1e9), (1e12, 3e12), (-1e-12, 1e-12), (7, 7)]


@pytest.mark.parametrize("span", SPANS)
def test_ticks_are_few_and_told_apart(span: tuple[float, float]) -> None:
    for axis in (Axis.of(span), Axis.of(span, log=False)):
        ticks = axis.ticks()
        assert 2 <= len(ticks) <= 10
        assert len({text for _, text in ticks}) == len(ticks)
        assert all(axis.low <= value <= axis.high or math.isclose(value, axis.high) for value, _ in ticks)
        assert all(later > value for (value, _), (later, _) in itertools.pairwise(ticks))


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0.25, 0.25, "0.25"), (0.5, 0.25, "0.50"), (1500, 500, "1,500"), (2e4, 1e4, "20k"), (-3, 1, "−3"), (0, 5, "0"),
     (1e-5, 1e-5, "1e−5"), (2.5, 2.5, "2.5"), (3e6, 1e6, "3M"), (1e15, 1e15, "1e15")],
)  # fmt: skip
def test_labels_have_the_digits_that_tell(value: float, step: float, text: str) -> None:
    assert tick_label(value, step) == text


def test_whole_axes_have_whole_ticks() -> None:
    for steps in ([1, 2], [3], range(1, 400)):
        assert all(value == round(value) for value, _ in Axis.of(steps, whole=True, log=False).ticks())


def test_the_ends_of_an_axis_are_the_edges_of_the_plot() -> None:
    frame = Frame(Axis(0, 10), Axis(1, 100, log=True))
    assert frame.point(0, 1) == pytest.approx((LEFT, HEIGHT - BOTTOM))
    assert frame.point(10, 100) == pytest.approx((WIDTH - RIGHT, TOP))
    assert frame.point(5, 10) == pytest.approx(((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2))


def test_a_long_line_keeps_what_stands_out() -> None:
    points = [(float(x), math.sin(x / 500)) for x in range(50_000)]
    points[12_345], points[40_000] = (12_345.0, 9.0), (40_000.0, -9.0)
    points[3] = (3.0, math.nan)
    found = thinned(points)
    assert len(found) <= MOST_POINTS + 10
    assert {points[0], points[12_345], points[40_000], points[-1]} <= set(found)
    assert [x for x, _ in found] == sorted(x for x, _ in found)


def test_a_line_has_gaps_where_it_is_not_finite() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 1.0), (5.0, 2.0)]
    (path, *dots) = Line(points, "s0", dots=True).svg(Frame(Axis(0, 5), Axis(0, 3)))
    assert [path.count("M"), path.count("L")] == [2, 2]
    assert len(dots) == 4
    assert "nan" not in path + "".join(dots)


def test_a_chart_is_an_element_with_its_text_escaped() -> None:
    title = '<a href="x">&'
    marks = [
        Line([(0.0, 1.0)], "s0"), Dots([(1.0, 1.0)], "s1", [3.0], [title]), Bars([0.0, 1.0, 2.0], [1.0, 3.0], "s2"),
        Upright(1.9, title), Diagonal(),
    ]  # fmt: skip
    text = chart(title, Frame(Axis(0, 2, title), Axis(0, 4, title)), marks)
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == title
    written = [each.text for each in root.iter() if each.text and each.text.strip()]
    assert written.count(title) == 4
    assert not re.search(r"nan|inf", text)
    # A label that has no room beside its line stands on the other side.
    assert next(each.get("text-anchor") for each in root.iter("text") if each.get("class") == "rule-label") == "end"
