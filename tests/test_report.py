"""The report of a run: a page that needs nothing beside it, with the numbers of `metrics.json` and of the log."""

from __future__ import annotations

import io
import json
import re
from copy import deepcopy
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from torch.nn import functional as F

from tdsl.runtime import headlines, metrics, record, report, report_tables
from tdsl.runtime.headlines import TITLES
from tdsl.runtime.readable import number
from tdsl.runtime.results import Results

VOID = {"meta", "br", "img", "link", "input", "hr"}
LINKS = {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}
# What may stand within a paragraph.
PHRASES = {"a", "b", "code", "i", "small", "span", "img"}
MANY = 1000
HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """A parsed page: its text, ids and links. What is not well-formed is told at once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.figures: list[str] = []
        assert text.startswith("<!DOCTYPE html>\n")
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "p" in self.open:
            assert tag in PHRASES, f"<{tag}> ends a paragraph"
        if self.open and self.open[-1] in ("tr", "ul", "tbody"):
            assert tag in {"tr": ("td", "th"), "ul": ("li",), "tbody": ("tr",)}[self.open[-1]]
        if tag not in VOID:
            self.open.append(tag)
        self.take(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> is not closed"
        self.take(tag, attrs)

    def take(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs), f"<{tag}> has an attribute twice"
        assert all(value is not None for value in values.values())
        assert not any(name.startswith("on") for name in values)
        assert tag != "img" or values.get("alt")
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        self.links += [str(value) for name, value in attrs if name in LINKS]
        if tag == "svg":
            self.figures.append(str(values["aria-label"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.words)


def parsed(text: str) -> Page:
    """A page, of which it is asserted that it is whole and needs nothing beside it."""
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not re.search(r"url\(|https?:|@import|<script|<link|<iframe", text)
    return page


def classified(classes: int) -> dict[str, Any]:
    """Results on real data: digits, or, of two classes, tumours."""
    return deepcopy(_classified(classes))


@cache
def _classified(classes: int) -> dict[str, Any]:
    x, y = load_digits(return_X_y=True) if classes == 10 else load_breast_cancer(return_X_y=True)
    x = x / x.max(0).clip(1e-9)
    model = LogisticRegression(max_iter=200).fit(x[:300], y[:300])
    scores, labels = torch.tensor(model.decision_function(x[300:])), torch.tensor(y[300:])
    task: dict[str, Any] = {"task": "multiclass", "num_classes": 10} if classes == 10 else {"task": "binary"}
    names = "Accuracy F1Score AUROC AveragePrecision ROC PrecisionRecallCurve ConfusionMatrix CalibrationError"
    results = Results([getattr(metrics, name)(**task) for name in names.split()])
    labels = labels if classes == 10 else labels.double()
    loss = F.cross_entropy(scores, labels) if classes == 10 else F.binary_cross_entropy_with_logits(scores, labels)
    results.add_loss(loss, {"margin": scores.abs().mean()}, rows=len(labels))
    results.add(scores, labels)
    return completed(results)


def completed(results: Results, **further: Any) -> dict[str, Any]:
    return {
        "run": "<digits>",
        "split": "test",
        **results.summary(),
        "class_names": None,
        "checkpoint": {"path": "checkpoints/step-40", "step": 40, "sha256": "0" * 64},
        "environment": record.environment(torch.device("cpu")),
        "parameters": 650,
        "evaluated": "2030-01-02 03:04 UTC",
        "seconds": 0.5,
        **further,
    }


LOG: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0, "loss": 2.0, "lr": 1e-3, "grad_norm": 1.0, "seconds": 1.0, "rows_per_second": 900},
    {"step": 20, "epoch": 1, "loss": 1.0, "lr": 5e-4, "grad_norm": 0.5, "val/loss": 1.5, "val/accuracy": 0.7},
    {"step": 30, "epoch": 2, "loss": 0.05, "lr": 5e-4, "grad_norm": None, "val/loss": 1.2, "val/accuracy": 0.8},
]
RUN: dict[str, Any] = {
    "run": "<digits>",
    "settings": {"batch_size": 64, "optimizer.lr": 1e-3, "optimizer.betas": [0.9, 0.99], "clip_grad_norm": None},
    "changed": {"optimizer.lr": 3e-3},
    "optimizer": "AdamW",
    "schedule": ["StepLR"],
    "groups": [{"names": ["model.up.weight"], "count": 640, "lr": 1e-3, "arguments": {}}],
    "step": 30,
    "steps": 40,
    "steps_per_epoch": 10,
    "best": {"monitor": "val/accuracy", "mode": "max", "value": 0.8, "step": 30},
    "environment": {"device": "a CPU", "device_memory": 2**31, "python": "3.12.1"},
    "memory": 2**30,
    "parameters": [
        {"model": "model", "module": "up", "kind": "Linear", "name": "weight", "shape": [10, 64], "count": 640,
         "bytes": 2560, "trains": True},
        {"model": "model", "module": "up", "kind": "Linear", "name": "bias", "shape": [10], "count": 10, "bytes": 40,
         "trains": False},
    ],
    "ended": "stopped",
    "data": {
        "splits": {"train": 700, "test": 97},
        "files": [{"file": "data/digits.csv", "rows": 797}],
        "fields": {"pixels": {"type": "float[64]", "bytes": 256}},
        "names": {},
    },
    "seconds": {"steps": 8.0, "data": 1.0, "validation": 0.5, "checkpoints": 0.5},
}  # fmt: skip


@pytest.fixture(params=[10, 2])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, LOG)) + '\n{"step": 40, "lo')
    (tmp_path / "program.model").write_text(f"# </pre>{HOSTILE}\n")
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    report.write(tmp_path, classified(request.param))
    return tmp_path


# A run that was evaluated --------------------------------------------------------------------------------------------


def test_the_page_has_the_numbers_of_the_json(written: Path) -> None:
    results = json.loads((written / "metrics.json").read_text())
    page = parsed((written / "report.html").read_text())
    for value in (results["loss"], *results["tracked"].values(), *results["metrics"].values()):
        assert number(value) in page.words
    for interval in results["intervals"].values():
        assert " to ".join(map(number, interval)) in page.words
    assert len(results["intervals"]) == len(results["metrics"])
    assert "percentile bootstrap" in page.text
    cells = [number(value) for row in results["confusion_matrix"] for value in row]
    assert all(cell in page.words for cell in cells)
    assert sum(map(sum, results["confusion_matrix"])) == sum(results["support"]) == results["rows"]
    assert f"# </pre>{HOSTILE}" in page.words


def test_the_page_has_the_figures(written: Path) -> None:
    page = parsed((written / "report.html").read_text())
    learning = ["Loss", "Accuracy, validation", "Learning rate", "Gradient norm"]
    assert page.figures == [*learning, "ROC", "Precision and recall", "Calibration"]
    assert {"training", "validation", "false positive rate", "best, step 30"} <= set(page.words)


def test_the_page_tells_of_the_run(written: Path) -> None:
    page = parsed((written / "report.html").read_text())
    assert {"30 of 40 steps, 3 epochs", "by a signal", "650", "weight 10 × 64, bias 10", "in part"} <= set(page.words)
    assert {"optimizer.betas", "(0.9, 0.99)", "2.00 GiB", "1.00 GiB", "float[64]", "data/digits.csv"} <= set(page.words)
    assert "(set for this run; the program says 0.003)" in page.words
    assert "clip_grad_norm" not in page.words
    assert "650 parameters, 2.54 KiB; 640 train, 10 are frozen" in page.text
    assert "80.0%" in page.words
    # The metric that the best checkpoint is chosen by comes first.
    assert page.words.index("Accuracy") < page.words.index("Loss")


def test_recall_and_precision_are_those_of_scikit_learn() -> None:
    results = classified(10)
    matrix = torch.tensor(results["confusion_matrix"])
    true = torch.arange(10).repeat_interleave(matrix.sum(1))
    predicted = torch.cat([torch.arange(10).repeat_interleave(row) for row in matrix])
    expected = precision_recall_fscore_support(true, predicted)
    rows = report_tables.classes(results["confusion_matrix"], str)
    found = [[row.precision for row in rows], [row.recall for row in rows], [row.f1 for row in rows]]
    torch.testing.assert_close(torch.tensor(found).double(), torch.tensor(np.stack(expected[:3])))


def test_the_same_results_give_the_same_bytes(written: Path) -> None:
    results = json.loads((written / "metrics.json").read_text())
    assert report.html(results, LOG, "", RUN) == report.html(results, LOG, "", RUN)


def test_rows_are_shown_as_they_are_named(tmp_path: Path) -> None:
    results = classified(10)
    names = [HOSTILE, " ", "\n", "'", *"abcdef"]
    image = "data:image/png;base64,AAAA"
    for row in results["worst"]:
        row |= {"file": f"{HOSTILE}.csv", "row": 7, "fields": {HOSTILE: {"text": HOSTILE}, "image": {"image": image}}}
    results |= {"class_names": names}
    page = parsed(report.html(results, LOG, HOSTILE, RUN))
    assert page.words.count(HOSTILE) >= 12
    assert f"row 7 of {HOSTILE}.csv" in page.words
    assert {"' '", "'\\n'", "'"} <= set(page.words)
    assert page.links.count(image) == len(results["worst"]) == 12


# A run that was not --------------------------------------------------------------------------------------------------


def test_a_run_without_an_evaluation_tells_how_it_went() -> None:
    page = parsed(report.html(None, LOG, "train", RUN))
    assert page.figures == ["Loss", "Accuracy, validation", "Learning rate", "Gradient norm"]
    assert {"0.8000", "Accuracy, validation", "the best, at step 30"} <= set(page.words)
    assert "has not been evaluated" in page.text


def test_a_run_that_has_just_begun_has_a_report() -> None:
    assert parsed(report.html(None)).figures == []
    page = parsed(report.html(None, [{"step": 1, "loss": float("nan"), "lr": 0.1, "grad_norm": float("nan")}]))
    assert page.figures == ["Loss", "Learning rate"]
    assert "1 values are not finite and are left out" in page.text


def test_a_run_that_goes_on_tells_how_far_it_is() -> None:
    page = parsed(report.html(None, LOG, "", RUN | {"step": 0, "ended": None}))
    assert "30 of 40 steps, 3 epochs" in page.words
    assert "Ended" not in page.words


def test_rates_of_groups_are_told_apart() -> None:
    groups = [{"names": ["model.a", "model.b"], "count": 5, "lr": 0.1, "arguments": {}},
              {"names": ["model.head"], "count": 3, "lr": 0.2, "arguments": {"weight_decay": 0.0}}]  # fmt: skip
    log = [{"step": step, "loss": 1.0, "lr": 0.1 / step, "lr.2": 0.2 / step} for step in range(1, 5)]
    page = parsed(report.html(None, log, "", RUN | {"groups": groups, "best": None}))
    assert {"a and 1 more", "head", "weight_decay = 0"} <= set(page.words)
    assert page.figures == ["Loss", "Learning rate"]


def test_results_of_another_run_are_left_out(written: Path) -> None:
    assert report.evaluated(written) is None
    folder = written / "checkpoints" / "step-40"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert report.evaluated(written) is None
    found = json.loads((written / "metrics.json").read_text())
    found["checkpoint"]["sha256"] = report.sha256(folder / "manifest.json")
    (written / "metrics.json").write_text(json.dumps(found))
    assert report.evaluated(written) == found


# What there is little or much of -------------------------------------------------------------------------------------


def test_a_run_without_metrics_tells_its_loss(tmp_path: Path) -> None:
    results = Results()
    results.add_loss(torch.tensor(0.25), {"kl": torch.tensor(3.5)}, rows=10)
    results.add_loss(torch.tensor(0.75), {"kl": torch.tensor(4.5)}, rows=30)
    report.write(tmp_path, completed(results))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["loss"], found["tracked"], found["rows"]) == (0.625, {"kl": 4.25}, 40)
    page = parsed((tmp_path / "report.html").read_text())
    assert {"Loss", "0.6250", "kl", "4.2500"} <= set(page.words)
    assert page.figures == []


def test_what_is_undefined_is_none_and_said(tmp_path: Path) -> None:
    task: dict[str, Any] = {"task": "binary"}
    results = Results([metrics.AUROC(**task), metrics.ROC(**task), metrics.ConfusionMatrix(**task)])
    results.add(torch.tensor([-1.0, 2.0]), torch.tensor([0, 0]))
    report.write(tmp_path, completed(results))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["metrics"]["auroc"] is None
    page = parsed((tmp_path / "report.html").read_text())
    assert "undefined" in page.words
    assert "no row has the class 1" in page.text
    assert page.figures == []


def test_a_matrix_of_shares_is_shown_as_it_is(tmp_path: Path) -> None:
    results = Results([metrics.ConfusionMatrix(task="multiclass", num_classes=3, normalize="true")])
    results.add(F.one_hot(torch.tensor([0, 1, 1, 2]), 3).float(), torch.tensor([0, 0, 1, 2]))
    page = parsed(report.html(completed(results)))
    assert page.words.count("0.5000") == 2
    assert "recall" not in page.words


def test_of_rows_with_many_values_the_first_are_shown() -> None:
    results = Results([metrics.MeanSquaredError()])
    results.add(torch.zeros(1, 30), torch.arange(30.0)[None] / 3)
    page = parsed(report.html(completed(results)))
    assert {"0, 0.333, 0.667, 1, 1.33, 1.67, 2, 2.33, …", "30"} <= set(page.words)


def test_outputs_are_told_one_by_one() -> None:
    results = Results([metrics.R2Score(multioutput="raw_values")])
    target = torch.arange(12.0).reshape(6, 2)
    results.add(target + torch.tensor([0.0, 5.0]), target)
    page = parsed(report.html(completed(results)))
    assert {"R², output 0", "R², output 1", "1.0000"} <= set(page.words)


def test_values_are_drawn_beside_predictions(tmp_path: Path) -> None:
    results = Results([metrics.MeanSquaredError(), metrics.R2Score()])
    target = torch.linspace(0, 1, 5000)
    results.add(target + 0.25, target)
    report.write(tmp_path, completed(results))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["pairs"]["of"] == 5000
    assert 1000 <= len(found["pairs"]["true"]) <= 2000
    page = parsed((tmp_path / "report.html").read_text())
    assert page.figures == ["Predicted and true", "Residuals"]
    assert "Mean 0.250, standard deviation" in page.text
    assert "of 5,000 values, chosen at random" in page.text


@pytest.fixture(scope="module")
def many() -> tuple[dict[str, Any], str]:
    """Results of a thousand classes, of which the last has no row, and their page."""
    generator = torch.Generator().manual_seed(0)
    task: dict[str, Any] = {"task": "multiclass", "num_classes": MANY}
    kinds = (metrics.Accuracy, metrics.ConfusionMatrix, metrics.ROC, metrics.PrecisionRecallCurve)
    results = Results([*(kind(**task) for kind in kinds), metrics.F1Score(**task, average="none")])
    labels = torch.arange(2 * (MANY - 1)) % (MANY - 1)
    results.add(F.one_hot(labels, MANY) * 4 + torch.randn(len(labels), MANY, generator=generator), labels)
    found = completed(results, class_names=[f"class <{label}>" for label in range(MANY)])
    return found, report.html(found, LOG * 2000, "", RUN)


def test_a_thousand_classes_are_summed_up(many: tuple[dict[str, Any], str]) -> None:
    results, text = many
    page = parsed(text)
    assert len(text) < 1_000_000
    assert "A cell sums 5 by 5 classes." in page.text
    assert "Drawn are the 5 of 999 classes with the smallest area." in page.text
    assert "981 in between are left out here. 1 classes have no rows and are left out here." in page.text
    assert "F1 score, 976 others" in page.words
    worst = results["confusion_matrix"]
    taken = max((n, -true, -other) for true, row in enumerate(worst) for other, n in enumerate(row) if true != other)
    assert f"class <{-taken[1]}> class <{-taken[2]}> {taken[0]}" in page.text


def test_what_is_too_large_to_be_drawn_again_has_an_exact_interval(many: tuple[dict[str, Any], str]) -> None:
    results, text = many
    assert results["interval_methods"] == {"accuracy": "wilson"}
    low, high = results["intervals"]["accuracy"]
    assert low < results["metrics"]["accuracy"] < high
    assert "Wilson's score interval" in Page(text).text


# Elsewhere -----------------------------------------------------------------------------------------------------------


def test_metrics_have_the_titles_of_their_classes() -> None:
    kinds = [kind for kind in vars(metrics).values() if isinstance(kind, type) and hasattr(kind, "title")]
    named = {kind.key: kind.title for kind in kinds if hasattr(kind, "key")}  # type: ignore[attr-defined]
    assert len(named) >= 14
    assert {key: TITLES[key] for key in named} == named


def test_the_table_in_the_terminal() -> None:
    results = Results([metrics.MeanSquaredError(), metrics.R2Score()])
    results.add(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]))
    console = Console(width=80, record=True, file=io.StringIO())
    headlines.show(completed(results), console)
    text = console.export_text()
    assert "<digits>, split test: 3 rows" in text
    assert "Mean squared error" in text
    assert "0.3333" in text
    assert "0.5000" in text


def test_metrics_of_one_name_are_told_apart(tmp_path: Path) -> None:
    task: dict[str, Any] = {"task": "multiclass", "num_classes": 3}
    made = [
        metrics.F1Score(**task, average="none"),
        metrics.F1Score(**task, average="macro"),
        metrics.F1Score(**task),
        metrics.ROC(**task),
        metrics.ROC(**task, thresholds=5),
    ]
    results = Results(made)
    results.add(torch.tensor([[3.0, 1, 0], [0, 2, 1], [1, 0, 2], [2, 0, 1]]), torch.tensor([0, 1, 2, 2]))
    found = completed(results)
    names = ['f1_score(average="none")', 'f1_score(average="macro")', "f1_score"]
    assert list(found["metrics"]) == names
    console = Console(width=80, record=True, file=io.StringIO())
    headlines.show(found, console)
    text = console.export_text()
    told = ['F1 score (average="macro")', "F1 score  ", *(f'F1 score (average="none"), class {i}' for i in range(3))]
    assert [name for name in told if name not in text] == []
    page = parsed(report.html(found))
    assert page.figures[-2:] == ["ROC", "ROC (thresholds=5)"]


@pytest.mark.parametrize(
    ("averages", "first"),
    [
        (("none", "macro"), 'F1 score (average="macro")'),
        (("macro", None), "F1 score"),
        (("none", "weighted", "macro"), 'F1 score (average="weighted")'),
    ],
)
def test_the_metric_that_was_monitored_comes_first(averages: tuple[str | None, ...], first: str) -> None:
    task: dict[str, Any] = {"task": "multiclass", "num_classes": 3}
    given: list[dict[str, Any]] = [{} if average is None else {"average": average} for average in averages]
    results = Results([metrics.Accuracy(**task), *(metrics.F1Score(**task, **each) for each in given)])
    results.add(torch.tensor([[3.0, 1, 0], [0, 2, 1], [1, 0, 2], [2, 0, 1]]), torch.tensor([0, 1, 2, 2]))
    best = {"monitor": "val/f1_score", "mode": "max", "value": 0.8, "step": 30}
    hero = report._hero(completed(results), LOG, RUN | {"best": best})
    assert hero is not None
    assert hero.name == first
