"""`metrics.json`, and `report.html`: one file that needs nothing beside it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdsl.runtime import logs, plots, ranks, record, report_tables
from tdsl.runtime.files import MANIFEST, sha256
from tdsl.runtime.headlines import headline, title
from tdsl.runtime.plots import Figure
from tdsl.runtime.readable import duration, number, size

if TYPE_CHECKING:
    from tdsl.runtime.loader import Split
    from tdsl.runtime.training import Training

METRICS, PAGE, PROGRAM = "metrics.json", "report.html", "program.model"
HTML = Path(__file__).with_name("html")
# What is logged beside the loss and what is tracked.
OTHER = ("step", "epoch", "grad_norm", "rows_per_second", "seconds")
# The sections, each with what it shows.
SECTIONS = (
    ("metrics", "headline", "Metrics"),
    ("learning", "learning", "Learning and schedule"),
    ("curves", "figures", "Curves"),
    ("confusion", "matrix", "Confusion matrix"),
    ("worst", "worst", "Highest loss"),
    ("data", "data", "Data"),
    ("parameters", "modules", "Parameters"),
    ("configuration", "settings", "Configuration"),
    ("machine", None, "Time and hardware"),
)
METHODS = {
    "bootstrap": "over 400 draws of as many rows with replacement (percentile bootstrap)",
    "wilson": "by Wilson's score interval, as the split is too large to be drawn again; other metrics have none",
}


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Writes `metrics.json` and `report.html`; what else the run's folder has is read where it is."""
    _replace(folder / METRICS, _json(results))
    _replace(folder / PAGE, page(folder, results))


def trained(state: Training, splits: Mapping[str, Split]) -> None:
    """Writes `run.json` and `report.html` at the end of a run on `splits`."""
    ranks.first(lambda: _trained(state, splits))


def _trained(state: Training, splits: Mapping[str, Split]) -> None:
    record.end(state, splits)
    path = state.job.out / PAGE
    _replace(path, page(state.job.out, evaluated(state.job.out)))
    print(f"report: {path.resolve()}")


def page(folder: Path, results: Mapping[str, Any] | None) -> str:
    """The report of a run: its log, record and program, and the results of an evaluation, where there is one."""
    program = folder / PROGRAM
    source = program.read_text(encoding="utf-8") if program.exists() else ""
    return html(results, list(logs.read(folder / logs.JSON)), source, record.read(folder))


def evaluated(folder: Path) -> dict[str, Any] | None:
    """The results of an evaluation, if it was of a checkpoint that the run still has."""
    try:
        found: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        same = sha256(folder / found["checkpoint"]["path"] / MANIFEST) == found["checkpoint"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if same else None


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


# The page -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hero:
    """The number that a report begins with."""

    name: str
    value: str
    note: str


def html(
    results: Mapping[str, Any] | None,
    log: Sequence[Mapping[str, Any]] = (),
    program: str = "",
    run: Mapping[str, Any] | None = None,
) -> str:
    """The report as one page without links to anything outside it, nor scripts.

    `results` are those of an evaluation, if there was one, `log` the lines that were logged, `program` the text that
    the run was made of, and `run` its record.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    run = run or {}
    environment = Environment(
        loader=FileSystemLoader(HTML), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "bytes": size, "svg": Markup}
    shown = {
        "style": Markup((HTML / "report.css").read_text(encoding="utf-8")),
        "results": results,
        "program": program,
        **_summary(results, log, run),
        **_evaluation(results),
        **_training(log, run),
    }
    shown["matrix"] = shown["cells"] or shown["picture"]
    shown["contents"] = [(key, text) for key, part, text in SECTIONS if part is None or shown[part]]
    return environment.get_template("report.html.jinja").render(shown)


def _summary(
    results: Mapping[str, Any] | None, log: Sequence[Mapping[str, Any]], run: Mapping[str, Any]
) -> dict[str, Any]:
    name = results["run"] if results else run.get("run", "A run")
    return {
        "name": name,
        "hero": _hero(results, log, run),
        "facts_at_first": list(_facts(results, log, run)),
        "headline": list(headline(results)) if results else [],
        "methods": [METHODS[method] for method in dict.fromkeys((results or {}).get("interval_methods", {}).values())],
        "warnings": results["warnings"] if results else [],
        "machine": list(_machine(results, run)),
        "worst_note": _worst_note(results),
        "closing": _closing(results, run),
    }


def _hero(results: Mapping[str, Any] | None, log: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Hero | None:
    """The metric that the best checkpoint is chosen by, or the first; without an evaluation, the best validation."""
    monitor = str((run.get("best") or {}).get("monitor", "")).rpartition("/")[2]
    if results is not None:
        found = list(headline(results))
        named = [row for row in found if row.key == monitor != "loss"]
        # Of several that are told apart by their arguments the first number is monitored.
        numbers = [row for row in found if not isinstance(results["metrics"].get(row.key), list)]
        named += [row for row in numbers if row.key.partition("(")[0] == monitor != "loss"]
        wanted = named + [row for row in found if row.key != "loss"] + found
        first = wanted[0] if wanted else None
        note = f"95% interval {first.interval}" if first and first.interval else f"on the split “{results['split']}”"
        return Hero(first.name, first.value, note) if first else None
    best = run.get("best") or {}
    if best.get("value") is not None:
        name = title(str(best["monitor"]).rpartition("/")[2])
        where = "validation" if str(best["monitor"]).startswith("val/") else "training"
        return Hero(f"{name}, {where}", number(best["value"]), f"the best, at step {best['step']:,}")
    for key, where in (("val/loss", "validation"), ("loss", "training")):
        rows = [row for row in log if isinstance(row.get(key), (int, float))]
        if rows:
            return Hero(f"Loss, {where}", number(rows[-1][key]), f"the last, at step {rows[-1]['step']:,}")
    return None


def _facts(
    results: Mapping[str, Any] | None, log: Sequence[Mapping[str, Any]], run: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What is to be known at first: of what, how large, how long, how it ended."""
    task = (results or {}).get("task") or {}
    if task.get("name"):
        yield (
            "Task",
            {"multiclass": f"{task['classes']:,} classes", "binary": "two classes"}.get(task["name"], "regression"),
        )
    if results is not None:
        yield "Evaluated on", f"{results['split']}, {number(results['rows'])} rows"
        if results.get("checkpoint"):
            yield "Checkpoint", f"step {results['checkpoint']['step']:,}"
    parameters = run.get("parameters") or []
    count = sum(row["count"] for row in parameters) or (results or {}).get("parameters")
    if count:
        yield "Parameters", f"{count:,}"
    if run.get("step") is not None:
        # The record of a run that goes on, or was killed, is that of its start.
        step = max([run["step"], *(row["step"] for row in log[-1:])])
        epochs = f", {round(step / each, 2):,.6g} epochs" if (each := run.get("steps_per_epoch")) else ""
        whole = f" of {run['steps']:,}" if step < run["steps"] else ""
        yield "Trained", f"{step:,}{whole} steps{epochs}"
    if run.get("ended"):
        yield (
            "Ended",
            {"finished": "as planned", "early stopping": "by early stopping"}.get(run["ended"], "by a signal"),
        )
    seconds = [row["seconds"] for row in log if isinstance(row.get("seconds"), (int, float))]
    if seconds:
        yield "Time", duration(seconds[-1])
    if results is not None and results.get("evaluated"):
        yield "Evaluated", str(results["evaluated"])


def _machine(results: Mapping[str, Any] | None, run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Hardware and versions: of training, and of the evaluation where it was made elsewhere."""
    trained, tested = run.get("environment") or {}, (results or {}).get("environment") or {}
    yield from report_tables.environment(trained or tested)
    if run.get("memory"):
        yield "most memory taken", size(run["memory"])
    for name, text in report_tables.environment(tested) if trained else ():
        if text != dict(report_tables.environment(trained)).get(name):
            yield f"{name}, in evaluation", text
    if results is not None and results.get("checkpoint"):
        yield "checkpoint", f"{results['checkpoint']['path']}, sha256 {results['checkpoint']['sha256']}"
    if results is not None:
        yield "evaluated", f"{results['evaluated']}, in {duration(results['seconds'])}"


def _worst_note(results: Mapping[str, Any] | None) -> str:
    classified = ((results or {}).get("task") or {}).get("name") in ("binary", "multiclass")
    what = "negative log-likelihood of the target" if classified else "squared error"
    return (
        f"Of each row the {what}, a mean where it has several targets. Fields are as they were read, before transforms."
    )


def _closing(results: Mapping[str, Any] | None, run: Mapping[str, Any]) -> str:
    """What the report lacks, and how to have it."""
    if results is None:
        return "This run has not been evaluated: evaluate.py adds metrics with intervals, curves and single rows."
    return "" if run else "The folder has no record of the training, run.json: settings and time are not known."


def _evaluation(results: Mapping[str, Any] | None) -> dict[str, Any]:
    """What there is to show of an evaluation beside its numbers."""
    found: dict[str, Any] = dict.fromkeys(("figures", "classes", "confused", "worst", "matrix_names"), ())
    found |= {"cells": None, "picture": None, "classes_note": ""}
    if results is not None:
        named = report_tables.names(results)
        found |= {"figures": list(_figures(results, named)), "worst": report_tables.worst_rows(results, named)}
        found |= _confusion(results["confusion_matrix"], named) if results["confusion_matrix"] else {}
    return found


def _confusion(matrix: Sequence[Sequence[float]], named: report_tables.Named) -> dict[str, Any]:
    """A confusion matrix; shares, of which it may be made, tell nothing of each class beside it."""
    counted = all(isinstance(value, int) for row in matrix for value in row)
    listed, note = report_tables.told_classes(report_tables.classes(matrix, named)) if counted else ((), "")
    found = {"classes": listed, "classes_note": note, "cells": (cells := report_tables.cells(matrix))}
    if cells is not None:
        return found | {"matrix_names": [named(label) for label in range(len(matrix))]}
    return found | {"picture": plots.matrix_picture(matrix), "confused": report_tables.confused(matrix, named)}


def _figures(results: Mapping[str, Any], named: report_tables.Named) -> Iterator[Figure]:
    draw = {"roc": plots.roc, "precision_recall": plots.precision_recall}
    for key, curves in results["curves"].items():
        if curves:
            yield draw[key.partition("(")[0]](curves, named, title(key))
    if results["calibration"]:
        errors = [value for key, value in results["metrics"].items() if key.startswith("calibration_error")]
        yield plots.calibration(results["calibration"], errors[0] if errors else None)
    if results.get("pairs"):
        yield from plots.of_values(results["pairs"])


def _training(log: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to show of the run itself."""
    data, parameters = run.get("data") or {}, run.get("parameters") or []
    listed, note = report_tables.modules(parameters)
    files, files_note = report_tables.files(data)
    rate = report_tables.throughput(log)
    return {
        "learning": [*_learning(log, run), *_schedule(log, run)],
        "run": run,
        "settings": list(report_tables.settings(run)),
        "groups": (groups := report_tables.groups(run)),
        "own": any(group["arguments"] for group in groups),
        "modules": listed,
        "modules_note": note,
        "totals": report_tables.parameter_totals(parameters) if parameters else "",
        "data": data,
        "files": files,
        "files_note": files_note,
        "spent": report_tables.time_spent(run),
        "pace": f"{number(round(rate))} rows a second, at the median." if rate is not None else "",
    }


def _learning(log: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Iterator[Figure]:
    """The loss, and whatever else was logged in training or for the validation split."""
    logged = {key for row in log for key, value in row.items() if isinstance(value, (int, float))}
    others = {key for key in logged if not key.startswith(("train/", "lr"))} - set(OTHER)
    names = sorted({key.removeprefix("val/") for key in others} - {"loss"})
    best = (run.get("best") or {}).get("step")
    for name in ["loss", *names]:
        keys = {name: "training", f"val/{name}": "validation"}
        found = {key: text for key, text in keys.items() if key in logged}
        if found:
            caption = (
                title(name) if len(found) > 1 or name == "loss" else f"{title(name)}, {next(iter(found.values()))}"
            )
            yield plots.over_steps(log, found, caption, best=best)


def _schedule(log: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Iterator[Figure]:
    """The learning rate of each group that has its own, and how long gradients were."""
    groups = run.get("groups") or []
    keys = {"lr": report_tables.group_name(groups[0]) if len(groups) > 1 else "all parameters"}
    for number_, group in enumerate(groups[1:], 2):
        keys[f"lr.{number_}"] = report_tables.group_name(group)
    found = {key: text for key, text in keys.items() if any(isinstance(row.get(key), (int, float)) for row in log)}
    if found:
        yield plots.over_steps(log, found, "Learning rate", log_scale=False)
    if any(isinstance(row.get("grad_norm"), (int, float)) and math.isfinite(row["grad_norm"]) for row in log):
        yield plots.over_steps(log, {"grad_norm": "gradient norm"}, "Gradient norm")
