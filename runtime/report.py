"""`metrics.json`, the table in the terminal, and `report.html`: one file that needs nothing beside it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from tdsl.runtime import metrics, plots
from tdsl.runtime.readable import number

TEMPLATE = Path(__file__).with_name("html") / "report.html.jinja"
PACKAGES = ("torch", "triton", "torchmetrics", "numpy", "tdsl")
TITLES = {
    kind.key: kind.title
    for kind in vars(metrics).values()
    if isinstance(kind, type) and issubclass(kind, metrics.Metric) and hasattr(kind, "key")
}
# A matrix of more classes is drawn, not written.
MOST_CELLS = 24


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Writes `metrics.json` and `report.html`; the run's `log.jsonl` and `program.model` are read where they are."""
    _replace(folder / "metrics.json", _json(results))
    program = folder / "program.model"
    source = program.read_text(encoding="utf-8") if program.exists() else ""
    _replace(folder / "report.html", html(results, read_log(folder / "log.jsonl"), source))


def _json(results: Mapping[str, Any]) -> str:
    """A line for each entry, or for each of its entries: not one for each number."""
    return "{\n" + ",\n".join(f' "{key}": {_entry(value)}' for key, value in results.items()) + "\n}\n"


def _entry(value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, allow_nan=False)
    lines = [f"  {json.dumps(key)}: {json.dumps(each, allow_nan=False)}" for key, each in value.items()]
    return "{\n" + ",\n".join(lines) + "\n }"


def _replace(path: Path, text: str) -> None:
    """Writes a file at once: whoever reads sees the old text or the new."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The steps logged; a last line that was cut off is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def environment(device: torch.device, parameters: int) -> dict[str, Any]:
    """What the numbers were made with: hardware, versions and the size of the model."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "parameters": parameters,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.processor() or 'CPU'}, {threads} thread{'s' if threads > 1 else ''}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# Headline numbers ---------------------------------------------------------------------------------------------------


def title(key: str) -> str:
    """How a metric is called: `accuracy(top_k=5)` is `Accuracy (top_k=5)`."""
    name, bracket, rest = key.partition("(")
    return TITLES.get(name, name.replace("_", " ")) + (f" ({rest}" if bracket else "")


def headline(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Title, value and interval of each number, the loss first."""
    if results["loss"] is not None:
        yield "Loss", number(results["loss"]), ""
    for name, value in results["tracked"].items():
        yield name, number(value), ""
    for key, value in results["metrics"].items():
        interval = results["intervals"].get(key)
        if isinstance(value, list):
            for label, each in enumerate(value):
                yield f"{title(key)}, class {label}", number(each), ""
        else:
            yield title(key), number(value), " to ".join(map(number, interval)) if interval else ""


def show(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the numbers as a table, and the warnings."""
    console = console or Console()
    table = Table(title=f"{results['run']}, split {results['split']}: {results['rows']:,} rows", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right", style="dim")
    for row in headline(results):
        table.add_row(*row)
    console.print(table)
    for warning in results["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


# The page -----------------------------------------------------------------------------------------------------------


def html(results: Mapping[str, Any], log: Sequence[Mapping[str, Any]] = (), program: str = "") -> str:
    """The report as one page without links to anything outside it."""
    page = Environment(undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"number": number}
    return page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        results=results,
        headline=list(headline(results)),
        learning=[Markup(svg) for svg in _learning(log)],
        figures=[Markup(svg) for svg in _figures(results)],
        matrix=_matrix(results),
        heatmap=Markup(_heatmap(results)),
        program=program,
    )


def _learning(log: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Loss, learning rate and whatever else was logged for the validation split."""
    logged = {key for row in log for key, value in row.items() if isinstance(value, (int, float))}
    panels: list[tuple[str, list[str]]] = [("Loss", [key for key in ("loss", "val/loss") if key in logged])]
    names = sorted(key.removeprefix("val/") for key in logged if key.startswith("val/") and key != "val/loss")
    panels += [(title(name), [key for key in (name, f"val/{name}") if key in logged]) for name in names]
    panels += [("Learning rate", ["lr"])] if "lr" in logged else []
    for name, keys in panels:
        if keys:
            label = name.lower().replace(" ", "-")
            yield plots.svg(f"learning-{label}", plots.learning_curves(log, keys, name), height=3.0)


def _figures(results: Mapping[str, Any]) -> Iterator[str]:
    draw = {"roc": plots.roc, "precision_recall": plots.precision_recall}
    for key, curves in results["curves"].items():
        if curves:
            name = key.partition("(")[0]
            yield plots.svg(key, draw[name](curves), height=4.2)
    if results["calibration"]:
        yield plots.svg("calibration", plots.calibration(results["calibration"]), height=4.2)


def _matrix(results: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Of each class: how many rows were predicted as each class, with their share, recall and precision."""
    matrix = results["confusion_matrix"]
    if matrix is None or len(matrix) > MOST_CELLS:
        return None
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    return [
        {
            "label": label,
            "cells": [{"value": value, "share": round(value / (sum(row) or 1), 3)} for value in row],
            "recall": row[label] / sum(row) if sum(row) else None,
            "precision": row[label] / columns[label] if columns[label] else None,
            "rows": sum(row),
        }
        for label, row in enumerate(matrix)
    ]


def _heatmap(results: Mapping[str, Any]) -> str:
    matrix = results["confusion_matrix"]
    if matrix is None or len(matrix) <= MOST_CELLS:
        return ""
    return plots.svg("confusion_matrix", plots.heatmap(matrix), width=7, height=7)
