"""The numbers that an evaluation comes down to: their names, their intervals, and the table of them in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tdsl.runtime import report_tables
from tdsl.runtime.readable import number

TITLES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1_score": "F1 score",
    "jaccard_index": "Jaccard index",
    "confusion_matrix": "Confusion matrix",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "roc": "ROC",
    "precision_recall": "Precision and recall",
    "calibration_error": "Calibration error",
    "mean_squared_error": "Mean squared error",
    "root_mean_squared_error": "Root mean squared error",
    "mean_absolute_error": "Mean absolute error",
    "r2_score": "R²",
    "perplexity": "Perplexity",
    "loss": "Loss",
    "grad_norm": "Gradient norm",
}
# Metrics that lie between 0 and 1.
SHARES = (
    "accuracy", "precision", "recall", "f1_score", "jaccard_index", "auroc", "average_precision", "calibration_error",
)  # fmt: skip
# Of a metric with a value a class, so many are listed.
MOST_VALUES = 24


def title(key: str) -> str:
    """How a metric is called: `accuracy(top_k=5)` is `Accuracy (top_k=5)`."""
    name, bracket, rest = key.partition("(")
    return TITLES.get(name, name.replace("_", " ")) + (f" ({rest}" if bracket else "")


@dataclass(frozen=True)
class Headline:
    """A number with its interval, and where both lie between 0 and 1, if they do."""

    key: str
    name: str
    value: str
    interval: str = ""
    places: tuple[float, float, float] | None = None


def headline(results: Mapping[str, Any]) -> Iterator[Headline]:
    """Each number, the loss first."""
    if results["loss"] is not None:
        yield Headline("loss", "Loss", number(results["loss"]))
    for name, value in results["tracked"].items():
        yield Headline(name, name, number(value))
    named = report_tables.names(results)
    for key, value in results["metrics"].items():
        if isinstance(value, list):
            task = results.get("task") or {}
            what = "output" if task.get("name") == "regression" else "label" if task.get("labels") else "class"
            yield from _each(key, value, what, str if task.get("labels") else named)
        else:
            yield _single(key, value, results["intervals"].get(key))


def _single(key: str, value: float | None, interval: Sequence[float] | None) -> Headline:
    text = " to ".join(map(number, interval)) if interval else ""
    is_share = key.partition("(")[0] in SHARES and value is not None and interval is not None
    places = (interval[0], value, interval[1]) if is_share and interval and value is not None else None
    return Headline(key, title(key), number(value), text, places)


def _each(key: str, values: Sequence[float | None], what: str, named: report_tables.Named) -> Iterator[Headline]:
    """The values of all classes or outputs, or the lowest where they are many."""
    places = range(len(values))
    if len(values) > MOST_VALUES:
        known = [place for place in places if values[place] is not None]
        places = sorted(known, key=lambda place: (values[place] or 0.0, place))[:MOST_VALUES]  # type: ignore[assignment]
    for label in places:
        yield Headline(key, f"{title(key)}, {what} {named(label)}", number(values[label]))
    if len(values) > MOST_VALUES:
        yield Headline(key, f"{title(key)}, {len(values) - MOST_VALUES:,} others", "in metrics.json")


def show(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the numbers as a table, and the warnings."""
    console = console or Console()
    table = Table(title=f"{results['run']}, split {results['split']}: {results['rows']:,} rows", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right", style="dim")
    for row in headline(results):
        table.add_row(row.name, row.value, row.interval)
    console.print(table)
    for warning in results["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
