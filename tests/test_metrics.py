"""Metrics against scikit-learn, on real data: with ties, classes without rows, logits that look like probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor

from tdsl.runtime import metrics, run
from tdsl.runtime.metric import Metric, MetricError, log_odds
from tdsl.runtime.results import Results

TEN: dict[str, Any] = {"task": "multiclass", "num_classes": 10}
TWO: dict[str, Any] = {"task": "binary"}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Scores [N, 10] of a classifier that errs now and then, and labels [N]."""
    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=300).fit(x[:600] / 16, y[:600])
    return torch.tensor(model.decision_function(x[600:] / 16)), torch.tensor(y[600:])


@pytest.fixture(scope="module")
def cancer() -> tuple[Tensor, Tensor]:
    """Logits [N], of which many are tied, and labels [N] as floats."""
    x, y = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(max_iter=50).fit(x[:100, :3], y[:100])
    return torch.tensor(model.decision_function(x[100:, :3])).round(), torch.tensor(y[100:]).float()


def measured(metric: Metric, prediction: Tensor, target: Tensor, batch: int = 64) -> Any:
    for start in range(0, len(target), batch):
        metric.update(prediction[start : start + batch], target[start : start + batch])
    return metric.compute()


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (metrics.Precision, sk.precision_score),
        (metrics.Recall, sk.recall_score),
        (metrics.F1Score, sk.f1_score),
    ],
)
def test_counts_of_ten_classes(digits: tuple[Tensor, Tensor], metric: Any, reference: Any, average: str) -> None:
    scores, labels = digits
    expected = reference(labels, scores.argmax(1), average=None if average == "none" else average)
    assert measured(metric(**TEN, average=average), scores, labels) == pytest.approx(expected)


def test_the_default_average_is_that_of_torchmetrics(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = digits
    accuracy = sk.accuracy_score(labels, scores.argmax(1))
    for metric in (metrics.Accuracy, metrics.Precision, metrics.Recall, metrics.F1Score):
        assert measured(metric(**TEN), scores, labels) == pytest.approx(accuracy)


def test_top_k_and_confusion_matrix(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = digits
    expected = sk.top_k_accuracy_score(labels, scores, k=2)
    assert measured(metrics.Accuracy(**TEN, top_k=2), scores, labels) == pytest.approx(expected)
    matrix = sk.confusion_matrix(labels, scores.argmax(1))
    assert measured(metrics.ConfusionMatrix(**TEN), scores, labels) == matrix.tolist()
    shares = sk.confusion_matrix(labels, scores.argmax(1), normalize="true")
    assert np.allclose(measured(metrics.ConfusionMatrix(**TEN, normalize="true"), scores, labels), shares)


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_curves_of_ten_classes(digits: tuple[Tensor, Tensor], average: str) -> None:
    scores, labels = digits
    shares = scores.softmax(1)
    auroc = sk.roc_auc_score(labels, shares, multi_class="ovr", average=average)
    assert measured(metrics.AUROC(**TEN, average=average), scores, labels) == pytest.approx(auroc)
    precision = sk.average_precision_score(labels, shares, average=average)
    assert measured(metrics.AveragePrecision(**TEN, average=average), scores, labels) == pytest.approx(precision)
    loss = sk.log_loss(labels, shares)
    assert measured(metrics.Perplexity(**TEN), scores, labels) == pytest.approx(math.exp(loss))


def test_two_classes_with_ties_and_float_targets(cancer: tuple[Tensor, Tensor]) -> None:
    logits, labels = cancer
    assert len(set(logits.tolist())) < len(logits) / 4
    predicted = logits > 0
    for metric, expected in (
        (metrics.Accuracy(**TWO), sk.accuracy_score(labels, predicted)),
        (metrics.Precision(**TWO), sk.precision_score(labels, predicted)),
        (metrics.Recall(**TWO), sk.recall_score(labels, predicted)),
        (metrics.F1Score(**TWO), sk.f1_score(labels, predicted)),
        (metrics.AUROC(**TWO), sk.roc_auc_score(labels, logits)),
        (metrics.AveragePrecision(**TWO), sk.average_precision_score(labels, logits)),
    ):
        assert measured(metric, logits, labels) == pytest.approx(expected), metric.title
    assert measured(metrics.ConfusionMatrix(**TWO), logits, labels) == sk.confusion_matrix(labels, predicted).tolist()


def test_roc_and_precision_recall_pass_through_the_points_of_scikit_learn(cancer: tuple[Tensor, Tensor]) -> None:
    logits, labels = cancer
    (roc,) = measured(metrics.ROC(**TWO), logits, labels)
    fpr, tpr, thresholds = sk.roc_curve(labels, logits, drop_intermediate=False)
    assert np.allclose(roc["fpr"], fpr)
    assert np.allclose(roc["tpr"], tpr)
    assert np.allclose(roc["thresholds"][1:], torch.tensor(thresholds[1:].copy()).sigmoid())
    (curve,) = measured(metrics.PrecisionRecallCurve(**TWO), logits, labels)
    precision, recall, thresholds = sk.precision_recall_curve(labels, logits)
    assert np.allclose(curve["precision"], precision)
    assert np.allclose(curve["recall"], recall)
    assert np.allclose(curve["thresholds"], torch.tensor(thresholds.copy()).sigmoid())


def test_thresholds_are_probabilities(cancer: tuple[Tensor, Tensor]) -> None:
    logits, labels = cancer
    (roc,) = measured(metrics.ROC(**TWO, thresholds=[0.25, 0.75]), logits, labels)
    for threshold, fpr, tpr in zip(roc["thresholds"], roc["fpr"], roc["tpr"], strict=True):
        predicted = logits.sigmoid() >= threshold
        assert float(tpr) == pytest.approx(sk.recall_score(labels, predicted))
        assert float(fpr) == pytest.approx(1 - sk.recall_score(1 - labels, ~predicted))


def test_logits_that_look_like_probabilities_are_logits() -> None:
    logits, labels = torch.tensor([0.1, 0.3, 0.4, 0.9]), torch.tensor([0, 1, 1, 1])
    assert measured(metrics.Accuracy(**TWO), logits, labels) == 0.75
    assert measured(metrics.Accuracy(**TWO, from_logits=False), logits, labels) == 0.5
    # A batch at a time decides nothing, either.
    assert measured(metrics.Accuracy(**TWO), logits, labels, batch=1) == 0.75


def test_confident_predictions_are_not_tied() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (500,), generator=generator)
    logits = 60 + 8 * (torch.randn(500, generator=generator).double() + labels)
    expected = sk.roc_auc_score(labels, logits)
    assert measured(metrics.AUROC(**TWO), logits, labels) == pytest.approx(expected)
    both = torch.stack([torch.zeros(500), logits], 1)
    assert measured(metrics.AUROC(task="multiclass", num_classes=2), both, labels) == pytest.approx(expected)
    assert torch.allclose(log_odds(both)[:, 1], logits)


def test_a_class_without_rows_is_left_out_of_curves(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = (each[digits[1] != 3] for each in digits)
    found = measured(metrics.AUROC(**TEN, average="none"), scores, labels)
    assert math.isnan(found[3])
    ranks = log_odds(scores)
    expected = [sk.roc_auc_score(labels == k, ranks[:, k]) for k in range(10) if k != 3]
    assert [value for k, value in enumerate(found) if k != 3] == pytest.approx(expected)
    assert measured(metrics.AUROC(**TEN), scores, labels) == pytest.approx(np.mean(expected))
    assert [curve["class"] for curve in measured(metrics.ROC(**TEN), scores, labels)] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    recall = sk.recall_score(labels, scores.argmax(1), labels=range(10), average=None, zero_division=math.nan)
    assert measured(metrics.Recall(**TEN, average="none"), scores, labels) == pytest.approx(recall, nan_ok=True)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_of_one_class_alone_nothing_is_ranked(label: float) -> None:
    logits, labels = torch.tensor([-1.0, 2.0, 3.0]), torch.full((3,), label)
    assert math.isnan(measured(metrics.AUROC(**TWO), logits, labels))
    assert measured(metrics.ROC(**TWO), logits, labels) == []
    assert measured(metrics.Accuracy(**TWO), logits, labels) == pytest.approx(
        float(((logits > 0) == labels).float().mean())
    )


def test_sequences_and_images_of_classes(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = digits[0][:1190], digits[1][:1190]
    flat = measured(metrics.F1Score(**TEN, average="macro"), scores, labels)
    sequences = scores.reshape(170, 7, 10), labels.reshape(170, 7)
    assert measured(metrics.F1Score(**TEN, average="macro"), *sequences) == pytest.approx(flat)
    images = scores.reshape(170, 7, 10).movedim(-1, 1), labels.reshape(170, 7)
    assert measured(metrics.F1Score(**TEN, average="macro", class_dim=1), *images) == pytest.approx(flat)
    unions = sk.jaccard_score(labels, scores.argmax(1), average="macro")
    assert measured(metrics.JaccardIndex(**TEN, class_dim=1), *images) == pytest.approx(unions)
    perplexity = math.exp(sk.log_loss(labels, scores.softmax(1)))
    assert measured(metrics.Perplexity(**TEN), *sequences) == pytest.approx(perplexity)


def test_ignored_targets(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = digits
    masked = labels.where(labels != 5, -100)
    kept = labels != 5
    found = measured(metrics.Accuracy(**TEN, ignore_index=-100), scores, masked)
    assert found == pytest.approx(sk.accuracy_score(labels[kept], scores[kept].argmax(1)))
    with pytest.raises(MetricError, match="-100 is none of 0 to 9; `ignore_index=-100`"):
        measured(metrics.Accuracy(**TEN), scores, masked)


def test_regression() -> None:
    x, y = load_diabetes(return_X_y=True)
    values, target = torch.tensor(LinearRegression().fit(x[:300], y[:300]).predict(x)), torch.tensor(y)
    squared = sk.mean_squared_error(target, values)
    assert measured(metrics.MeanSquaredError(), values, target) == pytest.approx(squared)
    assert measured(metrics.MeanSquaredError(squared=False), values, target) == pytest.approx(math.sqrt(squared))
    assert measured(metrics.MeanAbsoluteError(), values, target) == pytest.approx(
        sk.mean_absolute_error(target, values)
    )
    assert measured(metrics.R2Score(), values, target) == pytest.approx(sk.r2_score(target, values))
    # A large mean costs no digits.
    assert measured(metrics.R2Score(), values + 1e6, target + 1e6) == pytest.approx(sk.r2_score(target, values))
    assert math.isnan(measured(metrics.R2Score(), values[:1], target[:1]))


def test_the_root_of_the_mean_squared_error_has_a_name_of_its_own() -> None:
    results = Results([metrics.MeanSquaredError(), metrics.MeanSquaredError(squared=False)])
    results.add(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    assert results.scalars() == pytest.approx({"mean_squared_error": 2.0, "root_mean_squared_error": 2**0.5})


def test_calibration(cancer: tuple[Tensor, Tensor]) -> None:
    logits, labels = cancer
    metric = metrics.CalibrationError(**TWO, n_bins=10)
    found = measured(metric, logits, labels)
    bins = metric.bins()
    gaps = [abs(a - c) * n for a, c, n in zip(bins["accuracy"], bins["confidence"], bins["rows"], strict=True)]
    assert sum(bins["rows"]) == len(labels)
    assert found == pytest.approx(sum(gaps) / len(labels), rel=1e-5)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (torch.tensor([0.0, math.nan]), torch.tensor([0.0, 1.0]), "1 of 2 predictions of a batch are NaN"),
        (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5]), "the target 0.5 is none of 0 to 1"),
        (torch.tensor([0.0, 1.0]), torch.tensor([0, 2]), "the target 2 is none of 0 to 1"),
        (torch.tensor([[0.0, 1.0]]), torch.tensor([0.0]), "shapes"),
    ],
)
def test_what_can_not_be_compared_is_told(prediction: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        metrics.Accuracy(**TWO).update(prediction, target)


def test_a_run_tells_what_can_not_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that is training, and validates."""
    metric = metrics.Accuracy(**TWO)
    status = run.reported("r", lambda: metric.update(torch.tensor([math.nan]), torch.tensor([1])) or 0, memory="")
    assert status == 1
    assert "error: 1 of 1 predictions of a batch are NaN" in capsys.readouterr().err


# Results of a pass --------------------------------------------------------------------------------------------------


def test_a_pass_is_the_same_however_it_is_cut(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = digits
    found = []
    for size in (50, len(labels)):
        results = Results([metrics.Accuracy(**TEN), metrics.AUROC(**TEN)])
        for start in range(0, len(labels), size):
            part = scores[start : start + size], labels[start : start + size]
            loss = torch.nn.functional.cross_entropy(*part)
            results.add_loss(loss, {"twice": 2 * loss}, rows=len(part[1]))
            results.add(*part)
        found.append(results.scalars())
    assert found[0] == pytest.approx(found[1])
    assert found[0]["loss"] == pytest.approx(sk.log_loss(labels, scores.softmax(1)))
    assert found[0]["twice"] == pytest.approx(2 * found[0]["loss"])


def test_intervals_hold_what_the_normal_approximation_does(digits: tuple[Tensor, Tensor]) -> None:
    results = Results([metrics.Accuracy(**TEN), metrics.AUROC(**TEN)])
    results.add(*digits)
    summary = results.summary()
    accuracy, (low, high) = summary["metrics"]["accuracy"], summary["intervals"]["accuracy"]
    deviation = math.sqrt(accuracy * (1 - accuracy) / len(digits[1]))
    assert low == pytest.approx(accuracy - 1.96 * deviation, abs=0.4 * deviation)
    assert high == pytest.approx(accuracy + 1.96 * deviation, abs=0.4 * deviation)
    low, high = summary["intervals"]["auroc"]
    assert low < summary["metrics"]["auroc"] < high


def test_metrics_of_one_name_are_told_apart() -> None:
    results = Results([metrics.Accuracy(**TEN), metrics.Accuracy(**TEN, top_k=2)])
    assert list(results.metrics) == ["accuracy", "accuracy(top_k=2)"]
    results = Results([metrics.F1Score(**TEN, average="macro"), metrics.F1Score(**TEN, average="weighted")])
    assert list(results.metrics) == ['f1_score(average="macro")', 'f1_score(average="weighted")']
    results = Results([metrics.ROC(**TEN, thresholds=[0.25, 0.5]), metrics.ROC(**TEN, ignore_index=3)])
    assert list(results.metrics) == ["roc(thresholds=[0.25, 0.5])", "roc(ignore_index=3)"]


def test_the_name_alone_is_that_of_the_metric_without_arguments() -> None:
    results = Results(
        [metrics.Accuracy(**TEN, average=None), metrics.Accuracy(**TEN, top_k=2), metrics.Accuracy(**TEN)]
    )
    assert list(results.metrics) == ["accuracy(average=none)", "accuracy(top_k=2)", "accuracy"]
    assert list(Results([metrics.Accuracy(**TEN, average=None)]).metrics) == ["accuracy"]


def test_thresholds_that_no_score_reaches_have_no_point(cancer: tuple[Tensor, Tensor]) -> None:
    logits, labels = cancer
    scores = logits.sigmoid().clamp(max=0.8)
    results = Results([metrics.PrecisionRecallCurve(**TWO, thresholds=[0.2, 0.7, 0.9, 1.0], from_logits=False)])
    results.add(scores, labels)
    (curve,) = results.summary()["curves"]["precision_recall"]
    assert curve["thresholds"] == pytest.approx([0.2, 0.7])
    assert curve["precision"] == pytest.approx([*(sk.precision_score(labels, scores >= t) for t in (0.2, 0.7)), 1.0])
    average = metrics.AveragePrecision(**TWO, thresholds=[0.2, 0.7, 0.9, 1.0], from_logits=False)
    assert curve["area"] == pytest.approx(measured(average, scores, labels))


def test_averages_of_two_classes() -> None:
    """Breast cancer, in which the classes are unequal; from logits and from probabilities."""
    x, y = load_breast_cancer(return_X_y=True)
    logits = LogisticRegression(max_iter=50).fit(x[:100, :3], y[:100]).decision_function(x[100:, :3])
    scores, labels = torch.tensor(logits), torch.tensor(y[100:])
    for kind, score in ((metrics.F1Score, sk.f1_score), (metrics.Precision, sk.precision_score)):
        for average in ("micro", "macro", "weighted", None):
            expected = score(labels, logits > 0, average=average)
            assert measured(kind(**TWO, average=average), scores, labels) == pytest.approx(expected)
            sure = kind(**TWO, average=average, from_logits=False)
            assert measured(sure, scores.sigmoid(), labels.float()) == pytest.approx(expected)


def test_doubts_are_told(digits: tuple[Tensor, Tensor]) -> None:
    scores, labels = (each[digits[1] != 3] for each in digits)
    results = Results([metrics.Accuracy(**TEN)])
    results.add(scores, labels)
    (absent,) = results.summary()["warnings"]
    assert "class 3" in absent
    results = Results([metrics.Perplexity(**TEN)])  # of all tokens together: nothing is left out
    results.add(scores, labels)
    assert results.summary()["warnings"] == []
    results = Results([metrics.Accuracy(**TEN)])
    results.add(digits[0].softmax(1), digits[1])
    (doubt,) = results.summary()["warnings"]
    assert "taken for logits" in doubt
    assert Results([metrics.Accuracy(**TEN)]).summary()["warnings"] == ["the split has no rows"]


def test_a_long_curve_is_thinned_along_its_length() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(20_000, generator=generator) < 0.01).long()
    logits = torch.randn(20_000, generator=generator).double() + 2 * labels
    results = Results([metrics.ROC(**TWO), metrics.PrecisionRecallCurve(**TWO)])
    results.add(logits, labels)
    curves = results.summary()["curves"]
    (roc,), (precision,) = curves["roc"], curves["precision_recall"]
    assert len(roc["fpr"]) < 510
    assert sk.auc(roc["fpr"], roc["tpr"]) == pytest.approx(sk.roc_auc_score(labels, logits), abs=1e-3)
    expected = sk.average_precision_score(labels, logits)
    assert sk.auc(precision["recall"], precision["precision"]) == pytest.approx(expected, abs=5e-3)
    assert (roc["fpr"][0], roc["tpr"][-1]) == (0.0, 1.0)
