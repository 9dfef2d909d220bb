"""Rows with the highest loss, in every task, and the sample of values: PyTorch's losses are the judge."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn import functional as F

from tdsl.runtime import metrics
from tdsl.runtime.metric import Metric
from tdsl.runtime.results import Results
from tdsl.runtime.row_results import MOST_PAIRS, MOST_ROWS, Pairs, Worst, joined, worst

ROWS, BATCH = 50, 8
CLASSES: dict[str, Any] = {"task": "multiclass", "num_classes": 4}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def labels(*shape: int, below: int = 4) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(1))


CASES: dict[str, tuple[Metric, Tensor, Tensor, Tensor]] = {}
scores, target = drawn(ROWS, 4), labels(ROWS)
CASES["classes"] = metrics.Accuracy(**CLASSES), scores, target, F.cross_entropy(scores, target, reduction="none")
CASES["probabilities"] = (
    metrics.Accuracy(**CLASSES, from_logits=False), scores.softmax(-1), target, CASES["classes"][3],
)  # fmt: skip
scores, target = drawn(ROWS, 4, 5), labels(ROWS, 5)
CASES["classes in the middle"] = (
    metrics.Accuracy(**CLASSES, class_dim=1), scores, target, F.cross_entropy(scores, target, reduction="none").mean(1),
)  # fmt: skip
ignored = target.masked_fill(labels(ROWS, 5, below=3) == 0, -100)
kept = (ignored != -100).sum(1)
CASES["ignored targets"] = (
    metrics.Accuracy(**CLASSES, class_dim=1, ignore_index=-100), scores, ignored,
    F.cross_entropy(scores, ignored, reduction="none").sum(1) / kept,
)  # fmt: skip
scores, target = drawn(ROWS), labels(ROWS, below=2)
loss = F.binary_cross_entropy_with_logits(scores, target.float(), reduction="none")
CASES["two classes"] = metrics.AUROC(task="binary"), scores, target, loss
CASES["two classes, floats"] = metrics.AUROC(task="binary"), scores, target.float(), loss
values, wanted = drawn(ROWS, 3, 2), drawn(ROWS, 6).reshape(ROWS, 3, 2)
CASES["values"] = metrics.MeanSquaredError(), values, wanted, (values - wanted).square().mean((1, 2))


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_with_the_highest_loss(case: str) -> None:
    metric, prediction, target, losses = CASES[case]
    found = Worst()
    for start in range(0, ROWS, BATCH):
        found.add(metric, prediction[start : start + BATCH], target[start : start + BATCH])
    order = losses.nan_to_num(-1).sort(descending=True, stable=True).indices[:MOST_ROWS].tolist()
    assert [row["batch"] * BATCH + row["offset"] for row in found.rows] == order
    assert [row["loss"] for row in found.rows] == pytest.approx(losses[order].tolist(), rel=1e-5)
    first = found.rows[0]
    assert first["true"] == (
        target[order[0]].tolist() if target.ndim == 1 else pytest.approx(target[order[0]].flatten().tolist(), rel=1e-4)
    )
    json.dumps(found.rows, allow_nan=False)


def test_what_was_predicted_is_told_with_its_probability() -> None:
    metric, prediction, target, _ = CASES["classes"]
    found = Worst()
    found.add(metric, prediction, target)
    for row in found.rows:
        probabilities = prediction[row["offset"]].softmax(-1)
        assert row["predicted"] == int(probabilities.argmax())
        assert row["confidence"] == pytest.approx(float(probabilities.max()))
    metric, prediction, target, _ = CASES["two classes"]
    found = Worst()
    found.add(metric, prediction, target)
    for row in found.rows:
        assert row["predicted"] == int(prediction[row["offset"]] > 0)
        assert row["confidence"] == pytest.approx(float(prediction[row["offset"]].abs().sigmoid()))


def test_of_many_targets_the_share_that_is_right_is_told() -> None:
    metric, prediction, target, _ = CASES["ignored targets"]
    found = Worst()
    found.add(metric, prediction, target)
    for row in found.rows:
        true = target[row["offset"]]
        right = (prediction[row["offset"]].argmax(0) == true)[true != -100].float().mean()
        assert (row["targets"], row["right"]) == (5, pytest.approx(float(right)))


def test_rows_of_several_ranks_are_in_one_order() -> None:
    metric, prediction, target, losses = CASES["classes"]
    parts = [Worst(0), Worst(1)]
    for start in range(0, ROWS, BATCH):
        rows = range(start, min(start + BATCH, ROWS))
        half = len(rows) // 2
        for part, mine in zip(parts, (rows[:half], rows[half:]), strict=True):
            part.add(metric, prediction[mine.start : mine.stop], target[mine.start : mine.stop])
    found = [row["loss"] for row in worst(part.rows for part in parts)]
    assert found == pytest.approx(losses.sort(descending=True).values[:MOST_ROWS].tolist())


def test_an_empty_batch_and_a_row_without_targets_are_left_out() -> None:
    found = Worst()
    found.add(metrics.Accuracy(**CLASSES), drawn(0, 4), labels(0))
    ignoring = metrics.Accuracy(**CLASSES, ignore_index=-100)
    found.add(ignoring, drawn(2, 4), torch.tensor([-100, 1]))
    assert [(row["batch"], row["offset"]) for row in found.rows] == [(1, 1)]


@pytest.mark.parametrize("batch", [1, 7, 1000, 20_000])
def test_a_sample_does_not_depend_on_the_batches(batch: int) -> None:
    target = torch.arange(11_111, dtype=torch.float64)
    sample, whole = Pairs(), Pairs()
    whole.add(-target, target)
    for start in range(0, len(target), batch):
        sample.add(-target[start : start + batch], target[start : start + batch])
    found = sample.summary()
    assert found == whole.summary()
    assert found["of"] == 11_111
    assert MOST_PAIRS / 3 < len(found["true"]) <= MOST_PAIRS
    assert found["predicted"] == [-value for value in found["true"]]
    # No period of the data is met more often than it occurs.
    for period in (2, 16, 64):
        counts = torch.tensor(found["true"]).long().remainder(period).bincount(minlength=period)
        assert chisquare(counts).pvalue > 1e-3


def test_how_values_differ_is_told_of_all() -> None:
    prediction, target = drawn(9000, 2), drawn(9000, 3)[:, :2]
    sample = Pairs()
    for start in range(0, 9000, 700):
        sample.add(prediction[start : start + 700], target[start : start + 700])
    found, differences = sample.summary(), (prediction - target).double()
    assert (found["of"], found["mean"]) == (18_000, pytest.approx(float(differences.mean())))
    assert found["deviation"] == pytest.approx(float(differences.std(correction=0)))


def test_samples_of_several_ranks_are_one() -> None:
    parts = [Pairs(), Pairs()]
    for part, count in zip(parts, (1500, 6000), strict=True):
        part.add(torch.ones(count), torch.zeros(count))
    whole = joined(parts).summary()
    assert (whole["of"], whole["mean"], whole["deviation"]) == (7500, 1.0, 0.0)
    assert MOST_PAIRS / 4 < len(whole["true"]) <= MOST_PAIRS


def test_areas_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, target = drawn(4000), labels(4000, below=2)
    scores = scores + target
    results = Results([metrics.ROC(task="binary"), metrics.PrecisionRecallCurve(task="binary")])
    results.add(scores, target)
    curves = results.summary()["curves"]
    assert curves["roc"][0]["area"] == pytest.approx(roc_auc_score(target, scores), abs=1e-6)
    assert curves["precision_recall"][0]["area"] == pytest.approx(average_precision_score(target, scores), abs=1e-6)
    assert len(curves["roc"][0]["fpr"]) <= 502
