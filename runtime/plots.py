"""Figures of a report, as SVG that takes its text colour and font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Told apart by people who see colours differently, and against light and dark (Paul Tol, "Colour schemes", 2021).
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
# Stands for the colour of the page's text, which replaces it.
INK = "#010203"
# Losses that span more than this are drawn on a logarithmic scale.
WIDE = 20
# More classes than this are drawn thin and without a legend.
MOST_NAMED = 10

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tdsl",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
}

Log = Sequence[Mapping[str, Any]]
Curves = Sequence[Mapping[str, Any]]


def svg(name: str, draw: Callable[[Axes], None], *, width: float = 5.2, height: float = 3.6) -> str:
    """What `draw` draws, `width` by `height` inches; `name` tells the figure's ids from those of others on a page."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue(), name)


def _inline(text: str, name: str) -> str:
    """An SVG file as an element of a page: without headers, fonts and colours of its own, its ids made unique."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    return text.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def learning_curves(log: Log, keys: Sequence[str], title: str) -> Callable[[Axes], None]:
    """What was logged under `keys`, over steps; those of validation (`val/...`) with markers."""

    def draw(axes: Axes) -> None:
        values: list[float] = []
        for key in keys:
            points = [(row["step"], row[key]) for row in log if isinstance(row.get(key), (int, float))]
            marker = "o" if len(points) <= 40 else None
            axes.plot(*zip(*points, strict=True), label=_name(key), marker=marker, markersize=4)
            values += [value for _, value in points]
        if min(values) > 0 and max(values) > WIDE * min(values):
            axes.set_yscale("log")
        if min(values) == max(values) > 0:
            axes.set_ylim(0, 2 * max(values))
        axes.set(xlabel="step", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if len(keys) > 1:
            axes.legend()

    return draw


def _name(key: str) -> str:
    """Which rows a logged value is of: the name before the slash."""
    split = key.rpartition("/")[0]
    return {"": "training", "val": "validation"}.get(split, split)


def roc(curves: Curves) -> Callable[[Axes], None]:
    """A receiver operating characteristic for each class."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.3, linewidth=1, linestyle=(0, (4, 4)))
        _each(axes, curves, "fpr", "tpr")
        if len(curves) > 1:
            # The mean over classes of the rate that each reaches (Fawcett, "An introduction to ROC analysis", 2006).
            grid = np.linspace(0, 1, 501)
            mean = np.mean([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves], axis=0)
            axes.plot(np.insert(grid, 0, 0), np.insert(mean, 0, 0), color=INK, linewidth=2.2, label="mean")
        _legend(axes, curves)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")

    return draw


def precision_recall(curves: Curves) -> Callable[[Axes], None]:
    """Precision over recall for each class."""

    def draw(axes: Axes) -> None:
        _each(axes, curves, "recall", "precision")
        _legend(axes, curves)
        axes.set(xlabel="recall", ylabel="precision", title="Precision and recall")

    return draw


def _each(axes: Axes, curves: Curves, x: str, y: str) -> None:
    few = len(curves) <= MOST_NAMED
    for number, curve in enumerate(curves):
        # Colours repeat after the seventh: then the lines are dashed.
        dash = "-" if number < len(COLOURS) or not few else (0, (3, 1.5))
        width, alpha = (1.8, 1.0) if few else (0.8, 0.6)
        axes.plot(curve[x], curve[y], linestyle=dash, label=str(curve["class"]), linewidth=width, alpha=alpha)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _legend(axes: Axes, curves: Curves) -> None:
    if 1 < len(curves) <= MOST_NAMED:
        axes.legend(title="class", ncols=2, fontsize=8, title_fontsize=8)


def calibration(bins: Mapping[str, Sequence[float]]) -> Callable[[Axes], None]:
    """What came true over the probability predicted; the area of a point is the share of rows in its bin."""

    def draw(axes: Axes) -> None:
        total = sum(bins["rows"])
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.3, linewidth=1, linestyle=(0, (4, 4)))
        axes.plot(bins["confidence"], bins["accuracy"], linewidth=1)
        sizes = [12 + 300 * rows / total for rows in bins["rows"]]
        axes.scatter(bins["confidence"], bins["accuracy"], s=sizes, alpha=0.7, linewidths=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), title="Calibration")
        axes.set(xlabel="predicted probability", ylabel="observed share")

    return draw


def heatmap(matrix: Sequence[Sequence[float]]) -> Callable[[Axes], None]:
    """A confusion matrix of many classes, each row by its share."""

    def draw(axes: Axes) -> None:
        shares = [[value / (sum(row) or 1) for value in row] for row in matrix]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.set(xlabel="predicted class", ylabel="true class")

    return draw
