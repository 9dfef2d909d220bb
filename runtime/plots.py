"""The figures of a report."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdsl.runtime.charts import Axis, Bars, Diagonal, Dots, Frame, Line, Mark, Point, Upright, chart
from tdsl.runtime.readable import number

# Colours that the style sheet has; further series are dashed.
COLOURS = 8
# More classes than this are not all drawn, but the mean and so many with the smallest area.
MOST_CURVES, FEWEST_CURVES = 10, 5
# A curve among others has so many points.
CURVE_POINTS = 160
# Points of a line are marked where they are few; those of validation, where they are no more than this.
FEW_MARKED, MOST_MARKED = 8, 40
BINS = 40
# Edge of the picture of a confusion matrix, in cells.
MOST_CELLS = 200
INK = (51, 112, 179)

Log = Sequence[Mapping[str, Any]]
Curve = Mapping[str, Any]
Named = Callable[[int], str]


@dataclass(frozen=True)
class Entry:
    """A line of a legend: its classes in the style sheet, its text."""

    kind: str
    text: str


@dataclass(frozen=True)
class Figure:
    """A drawing with its title, its legend and what is to be known of it."""

    name: str
    title: str
    svg: str
    legend: Sequence[Entry] = ()
    note: str = ""


def kind(place: int) -> str:
    """The style of a series by its place."""
    return f"s{place % COLOURS}" + (" dashed" if place >= COLOURS else "")


# Over steps ---------------------------------------------------------------------------------------------------------


def over_steps(
    log: Log, keys: Mapping[str, str], title: str, *, best: int | None = None, log_scale: bool | None = None
) -> Figure:
    """What was logged under `keys` over steps, each with its name; `best` is a step to mark."""
    series = {key: _points(log, key) for key in keys}
    kinds = {key: kind(1 if key.startswith("val/") else place) for place, key in enumerate(keys)}
    steps = [x for points in series.values() for x, _ in points]
    values = [y for points in series.values() for _, y in points]
    y_axis = Axis.of(values, log=log_scale)
    frame = Frame(Axis.of(steps, "step", whole=True, log=False), y_axis)
    marks: list[Mark] = [Upright(best, f"best, step {best:,}")] if best is not None and steps else []
    marks += [
        Line(points, kinds[key], len(points) <= (MOST_MARKED if key.startswith("val/") else FEW_MARKED))
        for key, points in series.items()
    ]
    named = [Entry(kinds[key], text) for key, text in keys.items()] if len(keys) > 1 else []
    missing = sum(not math.isfinite(value) for value in values)
    notes = ["logarithmic scale"] if y_axis.log else []
    notes += [f"{missing:,} values are not finite and are left out"] if missing else []
    return Figure(_name(title), title, chart(title, frame, marks), named, "; ".join(notes))


def _points(log: Log, key: str) -> list[Point]:
    return [(float(row["step"]), float(row[key])) for row in log if isinstance(row.get(key), (int, float))]


def _name(title: str) -> str:
    return "figure-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())


# Of classes ---------------------------------------------------------------------------------------------------------


def roc(curves: Sequence[Curve], named: Named, title: str = "ROC") -> Figure:
    """A receiver operating characteristic for each class."""
    shown, note = _chosen(curves)
    frame = Frame(Axis(0, 1, "false positive rate"), Axis(0, 1, "true positive rate"))
    marks: list[Mark] = [Diagonal(), *_lines(shown, "fpr", "tpr")]
    legend = _legend(shown, named, "area")
    if len(curves) > 1:
        marks.append(Line(_mean_curve(curves), "mean"))
        legend.insert(0, Entry("mean", f"mean of all: area {_mean_area(curves)}"))
    return Figure(_name(title), title, chart(title, frame, marks), legend, note)


def _mean_curve(curves: Sequence[Curve]) -> list[Point]:
    """The mean over classes of the rate that each reaches (Fawcett, "An introduction to ROC analysis", 2006)."""
    grid = np.linspace(0, 1, 201)
    mean = np.mean([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves], axis=0)
    return [(0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True)]


def precision_recall(curves: Sequence[Curve], named: Named, title: str = "Precision and recall") -> Figure:
    """Precision over recall for each class."""
    shown, note = _chosen(curves)
    frame = Frame(Axis(0, 1, "recall"), Axis(0, 1, "precision"))
    legend = _legend(shown, named, "average precision" if len(curves) == 1 else "")
    if len(curves) > 1:
        note = f"In brackets the average precision; the mean of all classes is {_mean_area(curves)}. {note}".strip()
    lines = _lines(shown, "recall", "precision")
    return Figure(_name(title), title, chart(title, frame, lines), legend, note)


def _chosen(curves: Sequence[Curve]) -> tuple[Sequence[Curve], str]:
    """The curves that are drawn, and what is said of the others."""
    if len(curves) <= MOST_CURVES:
        return curves, ""
    lowest = sorted(curves, key=lambda curve: (curve.get("area") or 0.0, curve["class"]))[:FEWEST_CURVES]
    return lowest, f"Drawn are the {FEWEST_CURVES} of {len(curves):,} classes with the smallest area."


def _lines(curves: Sequence[Curve], x: str, y: str) -> list[Mark]:
    return [Line(_few(curve[x], curve[y]), kind(place)) for place, curve in enumerate(curves)]


def _few(x: Sequence[float], y: Sequence[float]) -> list[Point]:
    """At most about CURVE_POINTS points, evenly spread."""
    every = max(1, math.ceil(len(x) / CURVE_POINTS))
    places = sorted({*range(0, len(x), every), len(x) - 1}) if len(x) else []
    return [(x[place], y[place]) for place in places]


def _legend(curves: Sequence[Curve], named: Named, what: str) -> list[Entry]:
    found = []
    for place, curve in enumerate(curves):
        area = number(curve["area"], 3) if curve.get("area") is not None else ""
        if len(curves) == 1:
            found.append(Entry(kind(place), f"{what} {area}".strip()))
        else:
            found.append(Entry(kind(place), f"{named(curve['class'])} ({area})" if area else named(curve["class"])))
    return found if any(entry.text for entry in found) else []


def _mean_area(curves: Sequence[Curve]) -> str:
    areas = [curve["area"] for curve in curves if curve.get("area") is not None]
    return number(sum(areas) / len(areas), 3) if areas else "undefined"


def calibration(bins: Mapping[str, Sequence[float]], error: float | None) -> Figure:
    """What came true over the probability predicted; the area of a point is the share of rows in its bin."""
    total = sum(bins["rows"]) or 1
    points = list(zip(bins["confidence"], bins["accuracy"], strict=True))
    told = [
        f"{rows:,} rows: predicted {number(x, 3)}, came true {number(y, 3)}"
        for (x, y), rows in zip(points, bins["rows"], strict=True)
    ]
    radii = [2.5 + 10 * math.sqrt(rows / total) for rows in bins["rows"]]
    frame = Frame(Axis(0, 1, "predicted probability"), Axis(0, 1, "share that came true"))
    marks: list[Mark] = [Diagonal(), Line(points, "s0 thin"), Dots(points, "s0", radii, told)]
    note = (
        "The area of a point is the share of rows in its bin; on the dashed line, as much comes true as is predicted."
    )
    if error is not None:
        note = f"Expected calibration error {number(error, 3)}. {note}"
    return Figure("figure-calibration", "Calibration", chart("Calibration", frame, marks), (), note)


def matrix_picture(matrix: Sequence[Sequence[float]]) -> tuple[str, int]:
    """A confusion matrix as a picture in a data URL, each row by its shares, and how many classes a cell has."""
    from tdsl.runtime.examples import png

    counts = np.asarray(matrix, dtype=np.float64)
    each = math.ceil(len(counts) / MOST_CELLS)
    starts = np.arange(0, len(counts), each)
    binned = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    shares = binned / np.maximum(binned.sum(1, keepdims=True), 1e-12)
    cells = np.empty((*shares.shape, 4), dtype=np.uint8)
    cells[..., :3] = INK
    # The square root lifts the few that are confused above what the eye would miss.
    cells[..., 3] = np.round(255 * np.sqrt(shares))
    return f"data:image/png;base64,{base64.b64encode(png(cells)).decode()}", each


# Of values ----------------------------------------------------------------------------------------------------------


def of_values(pairs: Mapping[str, Any]) -> Iterator[Figure]:
    """Predictions over targets, and the distribution of what lies between them."""
    true, predicted = pairs["true"], pairs["predicted"]
    if not true:
        return
    axis = Axis.of([*true, *predicted], log=False)
    frame = Frame(Axis(axis.low, axis.high, "true"), Axis(axis.low, axis.high, "predicted"))
    dots = Dots(list(zip(true, predicted, strict=True)), "s0")
    few = f"{len(true):,} of {pairs['of']:,} values, chosen at random." if len(true) < pairs["of"] else ""
    title = "Predicted and true"
    yield Figure("figure-predicted", title, chart(title, frame, [Diagonal(), dots]), (), few)
    residuals = np.asarray(predicted) - np.asarray(true)
    heights, edges = np.histogram(residuals, bins=_bins(residuals))
    across = Axis.of(edges.tolist(), "predicted − true", log=False)
    bars = Bars(edges.tolist(), heights.tolist(), "s0")
    frame = Frame(across, Axis(0, max(heights.tolist()) * 1.06, "values"))
    note = f"Mean {number(pairs['mean'], 3)}, standard deviation {number(pairs['deviation'], 3)}."
    note += f" Drawn are {few}" if few else ""
    yield Figure("figure-residuals", "Residuals", chart("Residuals", frame, [bars, Upright(0.0, "")]), (), note)


def _bins(residuals: Any) -> Any:
    """As many bins as tell something of so many values, all of them where they differ."""
    low, high = float(residuals.min()), float(residuals.max())
    count = min(BINS, max(5, math.ceil(math.sqrt(len(residuals)))))
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-30):
        room = abs(high) or 1.0
        return np.linspace(low - room / 2, high + room / 2, count + 1)
    return np.linspace(low, high, count + 1)
