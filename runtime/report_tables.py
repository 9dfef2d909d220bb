"""The tables of a report: what is shown of classes, rows, parameters, settings, data and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdsl.runtime.readable import duration, number, size

Named = Callable[[int], str]
# A matrix of more classes is a picture beside the pairs that are confused most.
MOST_CELLS = 20
MOST_PAIRS = 15
# Of more classes than this, so many are shown that are predicted worst, and best.
MOST_CLASSES, WORST_CLASSES, BEST_CLASSES = 24, 12, 6
MOST_MODULES = 60
MOST_FILES = 12
MOST_SETTING = 200
# Of a row with many values, so many.
MOST_NUMBERS = 8


def names(results: Mapping[str, Any]) -> Named:
    """What each class is called."""
    known: Sequence[str] = results.get("class_names") or ()

    def named(label: int) -> str:
        if label >= len(known):
            return str(label)
        name = known[label]
        return name if name.isprintable() and name.strip() else repr(name)

    return named


# Classes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassRow:
    """A class: how many rows it has, how many were predicted to be of it, and how well."""

    label: int
    name: str
    rows: float
    predicted: float
    right: float

    @property
    def recall(self) -> float | None:
        """Of its rows, the share found."""
        return self.right / self.rows if self.rows else None

    @property
    def precision(self) -> float | None:
        """Of the rows predicted to be of it, the share that is."""
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both."""
        return 2 * self.right / (self.rows + self.predicted) if self.rows else None


def classes(matrix: Sequence[Sequence[float]], named: Named) -> list[ClassRow]:
    """Of each class in a confusion matrix [true][predicted]."""
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    return [ClassRow(label, named(label), sum(row), columns[label], row[label]) for label, row in enumerate(matrix)]


def told_classes(rows: Sequence[ClassRow]) -> tuple[Sequence[ClassRow], str]:
    """The classes that are listed, worst first where they are many, and what is said of the others."""
    if len(rows) <= MOST_CLASSES:
        return rows, ""
    known = sorted((row for row in rows if row.f1 is not None), key=lambda row: (row.f1 or 0.0, row.label))
    absent = len(rows) - len(known)
    listed = known if len(known) <= MOST_CLASSES else [*known[:WORST_CLASSES], *known[-BEST_CLASSES:]]
    left = len(known) - len(listed)
    note = (
        f"The {WORST_CLASSES} classes with the lowest F1 score and the {BEST_CLASSES} with the highest; "
        if left
        else ""
    )
    note += f"{left:,} in between are left out here. " if left else ""
    note += f"{absent:,} classes have no rows and are left out here. " if absent else ""
    return listed, f"{note}All are in metrics.json."


def cells(matrix: Sequence[Sequence[float]]) -> list[list[tuple[float, float]]] | None:
    """Each count of a confusion matrix with its share of the row; None where that is too much to read."""
    if len(matrix) > MOST_CELLS:
        return None
    return [[(value, round(value / (sum(row) or 1), 3)) for value in row] for row in matrix]


def confused(matrix: Sequence[Sequence[float]], named: Named) -> list[dict[str, Any]]:
    """The pairs of a true class and another that it is taken for most often."""
    found = [
        (value, label, other)
        for label, row in enumerate(matrix)
        for other, value in enumerate(row)
        if value and other != label
    ]
    found.sort(key=lambda each: (-each[0], each[1], each[2]))
    return [
        {"true": named(label), "predicted": named(other), "rows": value, "share": value / sum(matrix[label])}
        for value, label, other in found[:MOST_PAIRS]
    ]


# Rows ---------------------------------------------------------------------------------------------------------------


def worst_rows(results: Mapping[str, Any], named: Named) -> list[dict[str, Any]]:
    """What is shown of each of the rows with the highest loss."""
    classified = (results.get("task") or {}).get("name") in ("binary", "multiclass")
    letters = [name.replace("\n", "↵") for name in results.get("class_names") or ()]

    def told(value: Any) -> str:
        if not isinstance(value, list):
            return _label(value, named) if classified else number(value)
        if classified and letters and all(len(letter) == 1 for letter in letters):
            text = "".join(letters[each] if 0 <= each < len(letters) else "�" for each in value)
        else:
            shown = value if classified else value[:MOST_NUMBERS]
            text = ", ".join(_label(each, named) if classified else f"{each:.3g}" for each in shown)
            text += ", …" if len(shown) < len(value) else ""
        return text if len(text) <= MOST_SETTING else f"{text[:MOST_SETTING]}…"

    return [_worst_row(row, told, classified) for row in results.get("worst") or ()]


def _worst_row(row: Mapping[str, Any], told: Callable[[Any], str], classified: bool) -> dict[str, Any]:
    pairs = [("true", told(row["true"])), ("predicted", told(row["predicted"]))]
    if row.get("confidence") is not None:
        pairs.append(("confidence", number(row["confidence"], 3)))
    if not classified and "targets" in row:
        pairs.append(("values", f"{row['targets']:,}"))
    if "right" in row:
        pairs.append(("right", f"{row['right']:.0%} of {row['targets']:,}"))
    fields: Mapping[str, Mapping[str, str]] = row.get("fields") or {}
    return {
        "where": f"row {row['row']:,} of {row['file']}" if row.get("row") else row.get("file") or "",
        "loss": number(row["loss"], 3),
        "pairs": pairs,
        "wrong": classified and not isinstance(row["true"], list) and row["true"] != row["predicted"],
        "images": [(name, value["image"]) for name, value in fields.items() if "image" in value],
        "texts": [(name, value["text"]) for name, value in fields.items() if "text" in value],
    }


def _label(value: Any, named: Named) -> str:
    return named(int(value)) if isinstance(value, int) and value >= 0 else str(value)


# The model ----------------------------------------------------------------------------------------------------------


def modules(parameters: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """A row for each module that has parameters of its own, and what is said of those that are left out."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    several = len({row["model"] for row in parameters}) > 1
    for row in parameters:
        path = ".".join(filter(None, (row["model"] if several else "", row["module"])))
        module = found.setdefault(
            (row["model"], row["module"]),
            {"path": path or row["model"], "kind": row["kind"], "shapes": [], "count": 0, "bytes": 0, "trains": set()},
        )
        shape = " × ".join(map(str, row["shape"])) or "1"
        module["shapes"].append(f"{row['name']} {shape}")
        module["count"] += row["count"]
        module["bytes"] += row["bytes"]
        module["trains"].add(bool(row["trains"]))
    rows = [_module(module) for module in found.values()]
    if len(rows) <= MOST_MODULES:
        return rows, ""
    largest = sorted(range(len(rows)), key=lambda place: (-rows[place]["count"], place))[:MOST_MODULES]
    rest = sum(row["count"] for row in rows) - sum(rows[place]["count"] for place in largest)
    note = f"The {MOST_MODULES} largest of {len(rows):,} modules; the others have {rest:,} parameters together."
    return [rows[place] for place in sorted(largest)], f"{note} All are in run.json."


def _module(module: Mapping[str, Any]) -> dict[str, Any]:
    trains = {(True,): "yes", (False,): "frozen"}.get(tuple(module["trains"]), "in part")
    return {**module, "shapes": ", ".join(module["shapes"]), "size": size(module["bytes"]), "trains": trains}


def parameter_totals(parameters: Sequence[Mapping[str, Any]]) -> str:
    """How many there are, and how many of them train."""
    count, bytes = (sum(row[key] for row in parameters) for key in ("count", "bytes"))
    frozen = sum(row["count"] for row in parameters if not row["trains"])
    text = f"{count:,} parameters, {size(bytes)}"
    return f"{text}; {count - frozen:,} train, {frozen:,} are frozen" if frozen else f"{text}, all of which train"


# The run ------------------------------------------------------------------------------------------------------------


def settings(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each setting with its value, and what the program says where the run was started with another."""
    changed = record.get("changed") or {}
    kinds = {"optimizer": record.get("optimizer"), "scheduler": " then ".join(record.get("schedule") or ())}
    for name, value in {**kinds, **(record.get("settings") or {})}.items():
        if (value is not None and value != "") or name in changed:
            before = setting(changed[name]) if name in changed else None
            yield {"name": name, "value": setting(value), "before": before}


def setting(value: Any) -> str:
    """A value as the language writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(setting, value))})"
    text = f"{value:g}" if isinstance(value, float) else f"{value}"
    return text if len(text) <= MOST_SETTING else f"{text[:MOST_SETTING]}…"


def groups(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of the optimizer, where there are several."""
    found = record.get("groups") or []
    return [
        {
            "name": group_name(group),
            "count": group["count"],
            "lr": number(group["lr"]),
            "arguments": ", ".join(f"{key} = {setting(value)}" for key, value in group["arguments"].items()),
        }
        for group in (found if len(found) > 1 else [])
    ]


def group_name(group: Mapping[str, Any]) -> str:
    """A group by the first of its parameters."""
    listed = [name.removeprefix("model.") for name in group["names"]]
    first = listed[0] if listed else "parameters"
    return f"{first} and {len(listed) - 1:,} more" if len(listed) > 1 else first


def files(data: Mapping[str, Any]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The files that rows are from, and what is said of those that are left out."""
    found = data.get("files") or []
    if len(found) <= MOST_FILES:
        return found, ""
    left = found[MOST_FILES:]
    return found[
        :MOST_FILES
    ], f"{len(left):,} more files with {sum(file['rows'] for file in left):,} rows are left out here."


@dataclass(frozen=True)
class Spent:
    """A part of a run's time."""

    name: str
    seconds: str
    share: float


MEANINGS = {
    "steps": "steps: forward, backward, update",
    "data": "waiting for data",
    "validation": "validation",
    "checkpoints": "checkpoints",
}


def time_spent(record: Mapping[str, Any]) -> list[Spent]:
    """Where the time of the last start of a run went."""
    seconds = record.get("seconds") or {}
    whole = sum(seconds.values()) or 1.0
    return [Spent(MEANINGS.get(on, on), duration(each), each / whole) for on, each in seconds.items()]


def throughput(log: Sequence[Mapping[str, Any]]) -> float | None:
    """The median of the rows a second that were logged."""
    found = sorted(row["rows_per_second"] for row in log if isinstance(row.get("rows_per_second"), (int, float)))
    return found[len(found) // 2] if found else None


def environment(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a run was made on."""
    for name, value in found.items():
        text = size(value) if name.endswith("memory") else number(value) if isinstance(value, int) else str(value)
        yield name.replace("_", " "), text
