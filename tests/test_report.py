"""The report of an evaluation: a page that needs nothing beside it, with the numbers of `metrics.json`."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tdsl.runtime import metrics, report
from tdsl.runtime.readable import number
from tdsl.runtime.results import Results

VOID = {"meta", "br", "img", "link", "input", "hr"}
LINKS = {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}


class Page(HTMLParser):
    """A parsed page: its text, ids and links. Tags that do not match are told at once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.figures: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.take(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.take(tag, attrs)

    def take(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        self.links += [str(value) for name, value in attrs if name in LINKS]
        if tag == "svg":
            self.figures.append(str(values["aria-label"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def classified(classes: int) -> dict[str, Any]:
    """Results on real data: digits, or, of two classes, tumours."""
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


def completed(results: Results) -> dict[str, Any]:
    return {
        "run": "<digits>",
        "split": "test",
        **results.summary(),
        "checkpoint": {"path": "checkpoints/step-40", "step": 40, "sha256": "0" * 64},
        "environment": report.environment(torch.device("cpu"), 650),
        "evaluated": "2030-01-02 03:04 UTC",
        "seconds": 0.5,
    }


LOG: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0, "loss": 2.0, "lr": 1e-3, "grad_norm": 1.0},
    {"step": 20, "epoch": 1, "loss": 1.0, "lr": 5e-4, "grad_norm": 0.5, "val/loss": 1.5, "val/accuracy": 0.7},
    {"step": 30, "epoch": 2, "loss": 0.05, "lr": 5e-4, "grad_norm": None, "val/loss": 1.2, "val/accuracy": 0.8},
]


@pytest.fixture(params=[10, 2])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, LOG)) + '\n{"step": 40, "lo')
    (tmp_path / "program.model").write_text('# </pre><script>alert("x")</script>\n')
    report.write(tmp_path, classified(request.param))
    return tmp_path


def test_the_page_is_whole_and_needs_nothing_beside_it(written: Path) -> None:
    text = (written / "report.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{name}" for name in page.ids}
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link", text)


def test_the_page_has_the_numbers_of_the_json(written: Path) -> None:
    results = json.loads((written / "metrics.json").read_text())
    page = Page((written / "report.html").read_text())
    for value in (results["loss"], *results["tracked"].values(), *results["metrics"].values()):
        assert number(value) in page.words
    for interval in results["intervals"].values():
        assert " to ".join(map(number, interval)) in page.words
    assert len(results["intervals"]) == len(results["metrics"])
    cells = [number(value) for row in results["confusion_matrix"] for value in row]
    assert all(cell in page.words for cell in cells)
    assert sum(map(sum, results["confusion_matrix"])) == sum(results["support"]) == results["rows"]
    assert '# </pre><script>alert("x")</script>' in page.words
    assert "650" in page.words


def test_the_page_has_the_figures(written: Path) -> None:
    page = Page((written / "report.html").read_text())
    curves = ["roc", "precision_recall", "calibration"]
    assert page.figures == [*curves, "learning-loss", "learning-accuracy", "learning-learning-rate"]
    assert {"training", "validation", "false positive rate"} <= set(page.words)


def test_the_same_results_give_the_same_bytes(written: Path) -> None:
    results = json.loads((written / "metrics.json").read_text())
    assert report.html(results, LOG) == report.html(results, LOG)


def test_a_run_without_metrics_tells_its_loss(tmp_path: Path) -> None:
    results = Results()
    results.add_loss(torch.tensor(0.25), {"kl": torch.tensor(3.5)}, rows=10)
    results.add_loss(torch.tensor(0.75), {"kl": torch.tensor(4.5)}, rows=30)
    report.write(tmp_path, completed(results))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["loss"], found["tracked"], found["rows"]) == (0.625, {"kl": 4.25}, 40)
    page = Page((tmp_path / "report.html").read_text())
    assert {"Loss", "0.6250", "kl", "4.2500"} <= set(page.words)
    assert page.figures == []


def test_what_is_undefined_is_none_and_said(tmp_path: Path) -> None:
    results = Results([metrics.AUROC(task="binary"), metrics.ROC(task="binary"), metrics.Precision(task="binary")])
    results.add(torch.tensor([-1.0, 2.0]), torch.tensor([0, 0]))
    report.write(tmp_path, completed(results))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["metrics"]["auroc"] is None
    page = Page((tmp_path / "report.html").read_text())
    assert "undefined" in page.words
    assert page.figures == []


def test_many_classes_are_drawn(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    task: dict[str, Any] = {"task": "multiclass", "num_classes": 40}
    results = Results([metrics.ConfusionMatrix(**task), metrics.ROC(**task), metrics.F1Score(**task, average="none")])
    labels = torch.arange(400) % 40
    results.add(F.one_hot(labels, 40) * 2 + torch.randn(400, 40, generator=generator), labels)
    report.write(tmp_path, completed(results))
    page = Page((tmp_path / "report.html").read_text())
    assert page.figures == ["roc", "confusion_matrix"]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)


def test_the_table_in_the_terminal() -> None:
    results = Results([metrics.MeanSquaredError(), metrics.R2Score()])
    results.add(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]))
    console = Console(width=80, record=True, file=io.StringIO())
    report.show(completed(results), console)
    text = console.export_text()
    assert "<digits>, split test: 3 rows" in text
    assert "Mean squared error" in text
    assert "0.3333" in text
    assert "0.5000" in text
