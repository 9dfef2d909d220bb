"""Metrics of several labels a row, each there or not, against scikit-learn."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tdsl.runtime import headlines, intervals, metrics, ranks
from tdsl.runtime.results import Results

LABELS = 4
PER_LABEL: dict[str, Any] = {"task": "binary", "num_labels": LABELS}


@pytest.fixture(scope="module")
def tags() -> tuple[Tensor, Tensor]:
    """Logits [N, 4] and targets [N, 4] of 0 and 1, as floats."""
    x, y = make_multilabel_classification(500, n_classes=LABELS, random_state=0)
    models = [LogisticRegression(max_iter=300).fit(x[:200], y[:200, label]) for label in range(LABELS)]
    logits = np.stack([model.decision_function(x[200:]) for model in models], 1)
    return torch.tensor(logits), torch.tensor(y[200:]).float()


def measured(metric: metrics.Metric, prediction: Tensor, target: Tensor, batch: int = 64) -> Any:
    for start in range(0, len(target), batch):
        metric.update(prediction[start : start + batch], target[start : start + batch])
    return metric.compute()


@pytest.mark.parametrize("average", ["macro", "weighted", "none"])
@pytest.mark.parametrize(
    ("metric", "reference"),
    [(metrics.AUROC, sk.roc_auc_score), (metrics.AveragePrecision, sk.average_precision_score)],
)
def test_areas(tags: tuple[Tensor, Tensor], metric: Any, reference: Any, average: str) -> None:
    logits, targets = tags
    expected = reference(targets, logits, average=None if average == "none" else average)
    assert measured(metric(**PER_LABEL, average=average), logits, targets) == pytest.approx(expected)
    chances = measured(metric(**PER_LABEL, average=average, from_logits=False), logits.sigmoid(), targets)
    assert chances == pytest.approx(expected)


def test_the_default_of_areas_is_the_mean_over_labels(tags: tuple[Tensor, Tensor]) -> None:
    logits, targets = tags
    found = measured(metrics.AUROC(**PER_LABEL), logits, targets)
    assert found == pytest.approx(sk.roc_auc_score(targets, logits, average="macro"))
    assert found != pytest.approx(sk.roc_auc_score(targets, logits, average="micro"), abs=1e-4)


@pytest.mark.parametrize("average", ["macro", "weighted", "none"])
@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (metrics.Precision, sk.precision_score),
        (metrics.Recall, sk.recall_score),
        (metrics.F1Score, sk.f1_score),
        (metrics.JaccardIndex, sk.jaccard_score),
    ],
)
def test_counts(tags: tuple[Tensor, Tensor], metric: Any, reference: Any, average: str) -> None:
    logits, targets = tags
    expected = reference(targets, logits.sigmoid() > 0.3, average=None if average == "none" else average)
    assert measured(metric(**PER_LABEL, average=average, threshold=0.3), logits, targets) == pytest.approx(expected)


def test_accuracy_of_labels(tags: tuple[Tensor, Tensor]) -> None:
    logits, targets = tags
    right = ((logits > 0) == (targets > 0)).double().mean(0)
    assert measured(metrics.Accuracy(**PER_LABEL, average="none"), logits, targets) == pytest.approx(right.tolist())
    assert measured(metrics.Accuracy(**PER_LABEL, average="macro"), logits, targets) == pytest.approx(
        float(right.mean())
    )


def test_labels_that_nothing_is_known_of_are_left_out(tags: tuple[Tensor, Tensor]) -> None:
    logits, targets = tags[0].clone(), tags[1].clone()
    targets[:, 1], logits[:, 1] = 0, -1
    kept = [0, 2, 3]
    areas = sk.roc_auc_score(targets[:, kept], logits[:, kept], average="macro")
    scores, unions = (
        score(targets[:, kept], logits[:, kept] > 0, average="macro") for score in (sk.f1_score, sk.jaccard_score)
    )
    assert measured(metrics.AUROC(**PER_LABEL), logits, targets) == pytest.approx(areas)
    assert measured(metrics.F1Score(**PER_LABEL, average="macro"), logits, targets) == pytest.approx(scores)
    assert measured(metrics.JaccardIndex(**PER_LABEL), logits, targets) == pytest.approx(unions)
    for metric in (metrics.AUROC, metrics.AveragePrecision, metrics.F1Score, metrics.JaccardIndex):
        assert math.isnan(measured(metric(**PER_LABEL, average="none"), logits, targets)[1])


def test_ignored_targets_of_labels(tags: tuple[Tensor, Tensor]) -> None:
    logits, targets = tags[0], tags[1].clone()
    targets[::3, 0] = -100
    targets[1::4, 2] = -100
    kept = [targets[:, label] != -100 for label in range(LABELS)]
    each = [sk.roc_auc_score(targets[rows, i], logits[rows, i]) for i, rows in enumerate(kept)]
    assert measured(metrics.AUROC(**PER_LABEL, ignore_index=-100), logits, targets) == pytest.approx(np.mean(each))
    each = [sk.f1_score(targets[rows, i], logits[rows, i] > 0) for i, rows in enumerate(kept)]
    metric = metrics.F1Score(**PER_LABEL, ignore_index=-100, average="none")
    assert measured(metric, logits, targets) == pytest.approx(each)
    each = [sk.jaccard_score(targets[rows, i], logits[rows, i] > 0) for i, rows in enumerate(kept)]
    metric = metrics.JaccardIndex(**PER_LABEL, ignore_index=-100, average="none")
    assert measured(metric, logits, targets) == pytest.approx(each)


def test_batches_of_all_ranks_count(tags: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = tags
    for metric in (metrics.AUROC, metrics.F1Score, metrics.JaccardIndex):
        parts = [metric(**PER_LABEL, average="macro") for _ in range(2)]
        for rank, part in enumerate(parts):
            part.update(logits[rank::2], targets[rank::2])
        other = deepcopy((dict(parts[1].metric.metric_state), parts[1].counts, parts[1].by_label))
        monkeypatch.setattr(ranks, "count", lambda: 2)
        monkeypatch.setattr(ranks, "gathered", lambda own, other=other: [deepcopy(own), other])
        parts[0].gather()
        whole = measured(metric(**PER_LABEL, average="macro"), logits, targets)
        assert parts[0].compute() == pytest.approx(whole)
        assert torch.equal(parts[0].by_label[:, 1], targets.sum(0).long())


def test_of_no_rows_nothing_is_known() -> None:
    assert math.isnan(metrics.AUROC(**PER_LABEL).compute())
    found = metrics.F1Score(**PER_LABEL, average="none").compute()
    assert len(found) == LABELS
    assert all(map(math.isnan, found))


def test_a_summary_tells_labels(tags: tuple[Tensor, Tensor]) -> None:
    results = Results([metrics.AUROC(**PER_LABEL, average="none"), metrics.F1Score(task="binary")])
    results.add(*tags)
    found = results.summary()
    assert found["task"] == {"name": "binary", "classes": 2, "labels": LABELS}
    assert len(found["metrics"]["auroc"]) == LABELS
    names = [each.name for each in headlines.headline(found | {"loss": None, "class_names": ["no", "yes"]})]
    assert names == [*(f"AUROC, label {label}" for label in range(LABELS)), "F1 score"]
    metric = metrics.AUROC(**PER_LABEL)
    metric.update(*tags)
    interval = intervals.bootstrap(metric, *tags)
    assert interval is not None
    assert interval[0] < sk.roc_auc_score(tags[1], tags[0], average="macro") < interval[1]
