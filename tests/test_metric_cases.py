"""Each metric against scikit-learn, on what is easily got wrong: ties, absent classes, ignored targets, few or no rows.

What is undefined is NaN. scikit-learn and torchmetrics agree on the rest but for what `ORACLES` notes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from tdsl.runtime import metrics
from tdsl.runtime.metric import Metric, MetricError, log_odds

CLASSES = 4
NAN = math.nan
# torchmetrics divides whole numbers in float32.
TOLERANCE = 1e-6
Rows = tuple[Tensor, Tensor]
Oracle = Callable[[np.ndarray, np.ndarray], Any]


def drawn(rows: int, classes: int = CLASSES) -> Rows:
    """Scores that tell something of the labels; of two classes, logits."""
    generator = torch.Generator().manual_seed(rows)
    labels = torch.randint(classes, (rows,), generator=generator)
    if classes == 2:
        return torch.randn(rows, generator=generator).double() + labels, labels
    noise = torch.randn(rows, classes, generator=generator).double()
    return noise + torch.nn.functional.one_hot(labels, classes), labels


def cases(classes: int) -> Iterator[tuple[str, Rows, Sequence[int]]]:
    """A name, rows and the sizes of their batches. Of ignored rows the target is -100."""
    scores, labels = drawn(60, classes)
    yield "ordinary", (scores, labels), (60,)
    yield "unequal batches", (scores, labels), (1, 33, 0, 7, 19)
    yield "ties", ((scores * 2).round() / 2, labels), (32, 28)
    yield "all tied", (torch.zeros_like(scores), labels), (32, 28)
    yield "one class", (scores, torch.ones_like(labels)), (60,)
    yield "the other class", (scores, torch.zeros_like(labels)), (60,)
    yield "ignored", (scores, labels.where(torch.arange(60) % 3 > 0, -100)), (32, 28)
    yield "all ignored", (scores, torch.full_like(labels, -100)), (32, 28)
    yield "one row", (scores[:1], labels[:1]), (1,)
    yield "no rows", (scores[:0], labels[:0]), (0,)
    yield "no batch", (scores[:0], labels[:0]), ()
    if classes == 2:
        yield "never predicted", (scores - 100, labels), (60,)
        yield "always predicted", (scores + 100, labels), (60,)
    else:
        kept = labels != 2
        yield "a class without rows", (scores[kept], labels[kept]), (20, int(kept.sum()) - 20)
        lower = torch.tensor([0.0, 0.0, -100.0, 0.0])
        yield "a class never predicted", (scores + lower, labels), (60,)
        yield "a class without both", (scores[kept] + lower, labels[kept]), (int(kept.sum()),)


def shares(scores: np.ndarray) -> np.ndarray:
    """Probabilities, in float64."""
    given = torch.tensor(scores)
    found: np.ndarray = (given.softmax(1) if given.ndim > 1 else given.sigmoid()).numpy()
    return found


# Several classes -----------------------------------------------------------------------------------------------------


def jaccard(truth: np.ndarray, predicted: np.ndarray, *, zero_division: float, **args: Any) -> Any:
    """scikit-learn's, which takes no NaN for what is undefined."""
    if not math.isnan(zero_division):
        return sk.jaccard_score(truth, predicted, zero_division=zero_division, **args)
    low, high = (np.asarray(sk.jaccard_score(truth, predicted, zero_division=each, **args)) for each in (0, 1))
    found = np.where(low == high, low, NAN)
    return list(found) if found.ndim else float(found)


def counted(score: Callable[..., Any], average: str) -> Oracle:
    """Precision, recall, F1 or Jaccard. Of each class what is undefined is NaN; in an average both libraries take it for 0."""

    def oracle(scores: np.ndarray, labels: np.ndarray) -> Any:
        predicted = scores.argmax(1)
        if average == "none":
            return score(labels, predicted, labels=range(CLASSES), average=None, zero_division=NAN)
        return score(labels, predicted, average=average, zero_division=0)

    return oracle


def ranked(score: Callable[..., float], average: str, defined: Callable[[np.ndarray], bool]) -> Oracle:
    """A score of each class against the others, which averages leave out where it is undefined.

    torchmetrics gives 0 for such a class, scikit-learn NaN (AUROC) or 0 (average precision): neither is followed.
    """

    def oracle(scores: np.ndarray, labels: np.ndarray) -> Any:
        ranks = log_odds(torch.tensor(scores)).numpy()
        each = [score(labels == k, ranks[:, k]) if defined(labels == k) else NAN for k in range(CLASSES)]
        if average == "none":
            return each
        known = [k for k in range(CLASSES) if not math.isnan(each[k])]
        weights = [float((labels == k).sum()) if average == "weighted" else 1.0 for k in known]
        return np.average([each[k] for k in known], weights=weights) if known else NAN

    return oracle


def both(right: np.ndarray) -> bool:
    return bool(right.any() and not right.all())


def curves(points: Callable[..., Any], names: Sequence[str], **args: Any) -> Oracle:
    """The classes that have rows for and against them, each with its points; thresholds are compared elsewhere."""

    def oracle(scores: np.ndarray, labels: np.ndarray) -> Any:
        ranks = log_odds(torch.tensor(scores)).numpy() if scores.ndim > 1 else scores[:, None]
        found = []
        for k in range(CLASSES) if scores.ndim > 1 else [1]:
            right = labels == k
            if both(right):
                a, b, _ = points(right, ranks[:, k if scores.ndim > 1 else 0], **args)
                found.append({"class": k, names[0]: a, names[1]: b})
        return found

    return oracle


def calibration(norm: str, bins: int) -> Oracle:
    """Guo et al., "On calibration of modern neural networks", 2017; scikit-learn has no such number."""

    def oracle(scores: np.ndarray, labels: np.ndarray) -> float:
        found = shares(scores)
        sure = found.max(1) if scores.ndim > 1 else found
        right = scores.argmax(1) == labels if scores.ndim > 1 else labels
        gaps, parts = [], []
        for low in range(bins):
            inside = (sure >= low / bins) & ((sure < (low + 1) / bins) | (low + 1 == bins))
            if inside.any():
                gaps.append(abs(sure[inside].mean() - right[inside].mean()))
                parts.append(inside.mean())
        gap, part = np.array(gaps), np.array(parts)
        return float({"l1": (gap * part).sum(), "l2": math.sqrt((gap**2 * part).sum()), "max": gap.max()}[norm])

    return oracle


def confusion(classes: int, normalize: str | None) -> Oracle:
    """Shares of a class without rows (or predictions) are 0 in both libraries, as are its counts."""

    def oracle(scores: np.ndarray, labels: np.ndarray) -> Any:
        predicted = scores.argmax(1) if classes > 2 else scores > 0
        return sk.confusion_matrix(labels, predicted, labels=range(classes), normalize=normalize)

    return oracle


AVERAGES = ("micro", "macro", "weighted", "none")
ORACLES: list[tuple[str, Mapping[str, Any], Oracle]] = [
    ("Accuracy", {}, lambda s, y: sk.accuracy_score(y, s.argmax(1))),
    # Of equal scores torchmetrics takes any: ties are compared with k = 1 alone.
    ("Accuracy", {"top_k": 2}, lambda s, y: sk.top_k_accuracy_score(y, s, k=2, labels=range(CLASSES))),
    # The accuracy of a class is its recall. scikit-learn's balanced accuracy leaves out classes that are predicted and
    # have no rows; torchmetrics, which is followed, counts 0 for them, as both do for recall.
    *(("Accuracy", {"average": each}, counted(sk.recall_score, each)) for each in AVERAGES[1:]),
    *(("Precision", {"average": each}, counted(sk.precision_score, each)) for each in AVERAGES),
    *(("Recall", {"average": each}, counted(sk.recall_score, each)) for each in AVERAGES),
    *(("F1Score", {"average": each}, counted(sk.f1_score, each)) for each in AVERAGES),
    *(("JaccardIndex", {"average": each}, counted(jaccard, each)) for each in AVERAGES),
    ("JaccardIndex", {}, counted(jaccard, "macro")),
    *(("AUROC", {"average": each}, ranked(sk.roc_auc_score, each, both)) for each in AVERAGES[1:]),
    *(
        ("AveragePrecision", {"average": each}, ranked(sk.average_precision_score, each, np.any))
        for each in AVERAGES[1:]
    ),
    ("ROC", {}, curves(sk.roc_curve, ("fpr", "tpr"), drop_intermediate=False)),
    ("PrecisionRecallCurve", {}, curves(sk.precision_recall_curve, ("precision", "recall"))),
    *(("ConfusionMatrix", {"normalize": each}, confusion(CLASSES, each)) for each in (None, "true", "pred", "all")),
    *(("CalibrationError", {"norm": each, "n_bins": 7}, calibration(each, 7)) for each in ("l1", "l2", "max")),
    # Not by scikit-learn's log loss, in which no probability is less than 2e-16.
    ("Perplexity", {}, lambda s, y: math.exp(-torch.tensor(s).log_softmax(1).numpy()[range(len(y)), y].mean())),
]
OF_NO_ROWS: Mapping[str, Any] = {"ROC": [], "PrecisionRecallCurve": []}


def of_no_rows(name: str, args: Mapping[str, Any], classes: int) -> Any:
    if name == "ConfusionMatrix":
        return [[0] * classes] * classes
    return OF_NO_ROWS.get(name, [NAN] * classes if args.get("average") == "none" else NAN)


def measured(metric: Metric, rows: Rows, sizes: Sequence[int]) -> Any:
    assert sum(sizes) == len(rows[1])
    for scores, labels in zip(*(each.split(list(sizes)) for each in rows), strict=True) if sizes else ():
        metric.update(scores, labels)
    return metric.compute()


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        assert [each["class"] for each in found] == [each["class"] for each in expected]
        for mine, theirs in zip(found, expected, strict=True):
            for name in theirs:
                np.testing.assert_allclose(np.asarray(mine[name]), theirs[name], rtol=TOLERANCE, atol=1e-12)
        return
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=1e-12)


def ids(value: Any) -> str | None:
    return value if isinstance(value, str) else ",".join(map(str, value.values())) if isinstance(value, dict) else None


@pytest.mark.parametrize(("name", "args", "oracle"), ORACLES, ids=ids)
def test_several_classes(name: str, args: dict[str, Any], oracle: Oracle) -> None:
    for case, rows, sizes in cases(CLASSES):
        # Rounding parts probabilities that are equal in theory, so that curves have more points; those of two classes
        # and all areas are compared.
        if "tie" in case and ("top_k" in args or name in OF_NO_ROWS):
            continue
        metric = getattr(metrics, name)("multiclass", num_classes=CLASSES, ignore_index=-100, **args)
        compare(metric, case, rows, sizes, oracle, of_no_rows(name, args, CLASSES))


def compare(metric: Metric, case: str, rows: Rows, sizes: Sequence[int], oracle: Oracle, empty: Any) -> None:
    kept = rows[1] != -100
    found = measured(metric, rows, sizes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same(found, oracle(rows[0][kept].numpy(), rows[1][kept].numpy()) if kept.any() else empty)
    except AssertionError as error:
        raise AssertionError(f"{case}: {error}") from None


# Two classes ---------------------------------------------------------------------------------------------------------


def decided(score: Callable[..., Any], threshold: float = 0.5) -> Oracle:
    def oracle(logits: np.ndarray, labels: np.ndarray) -> Any:
        return score(labels, shares(logits) > threshold, zero_division=NAN)

    return oracle


def of_both(score: Callable[..., Any], average: str, threshold: float = 0.5) -> Oracle:
    """An average over two classes, of which each has a score."""

    def oracle(logits: np.ndarray, labels: np.ndarray) -> Any:
        predicted = shares(logits) > threshold
        if average == "none":
            return score(labels, predicted, labels=range(2), average=None, zero_division=NAN)
        return score(labels, predicted, average=average, zero_division=0)

    return oracle


def if_defined(score: Callable[..., Any], defined: Callable[[np.ndarray], bool], **args: Any) -> Oracle:
    """scikit-learn and torchmetrics have 0 for the average precision of no positives, torchmetrics for the AUROC."""
    return lambda logits, labels: score(labels, logits, **args) if defined(labels == 1) else NAN


BINARY: list[tuple[str, Mapping[str, Any], Oracle]] = [
    ("Accuracy", {}, lambda s, y: sk.accuracy_score(y, s > 0)),
    ("Accuracy", {"threshold": 0.7}, lambda s, y: sk.accuracy_score(y, shares(s) > 0.7)),
    ("Precision", {}, decided(sk.precision_score)),
    ("Precision", {"threshold": 0.7}, decided(sk.precision_score, 0.7)),
    ("Recall", {}, decided(sk.recall_score)),
    ("F1Score", {}, decided(sk.f1_score)),
    ("JaccardIndex", {}, decided(jaccard)),
    *(("Accuracy", {"average": each}, of_both(sk.recall_score, each)) for each in AVERAGES),
    *(("Precision", {"average": each}, of_both(sk.precision_score, each)) for each in AVERAGES),
    *(("Recall", {"average": each}, of_both(sk.recall_score, each)) for each in AVERAGES),
    *(("F1Score", {"average": each}, of_both(sk.f1_score, each)) for each in AVERAGES),
    *(("JaccardIndex", {"average": each}, of_both(jaccard, each)) for each in AVERAGES),
    ("JaccardIndex", {"threshold": 0.7}, decided(jaccard, 0.7)),
    *(("F1Score", {"average": each, "threshold": 0.7}, of_both(sk.f1_score, each, 0.7)) for each in AVERAGES),
    ("AUROC", {}, if_defined(sk.roc_auc_score, both)),
    # Both have McClish's correction.
    ("AUROC", {"max_fpr": 0.3}, if_defined(sk.roc_auc_score, both, max_fpr=0.3)),
    ("AveragePrecision", {}, if_defined(sk.average_precision_score, np.any)),
    ("ROC", {}, curves(sk.roc_curve, ("fpr", "tpr"), drop_intermediate=False)),
    # Of positives alone scikit-learn has a line at 1, which tells nothing: there is none.
    ("PrecisionRecallCurve", {}, curves(sk.precision_recall_curve, ("precision", "recall"))),
    *(("ConfusionMatrix", {"normalize": each}, confusion(2, each)) for each in (None, "true", "pred", "all")),
    *(("CalibrationError", {"norm": each, "n_bins": 7}, calibration(each, 7)) for each in ("l1", "l2", "max")),
]


@pytest.mark.parametrize(("name", "args", "oracle"), BINARY, ids=ids)
def test_two_classes(name: str, args: dict[str, Any], oracle: Oracle) -> None:
    for case, (logits, labels), sizes in cases(2):
        metric = getattr(metrics, name)("binary", ignore_index=-100, **args)
        compare(metric, case, (logits, labels), sizes, oracle, of_no_rows(name, args, 2))


# Values --------------------------------------------------------------------------------------------------------------


def values() -> Iterator[tuple[str, Rows, Sequence[int]]]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(40, 3, generator=generator).double()
    found = target + 0.3 * torch.randn(40, 3, generator=generator).double()
    yield "ordinary", (found, target), (40,)
    yield "unequal batches", (found, target), (1, 0, 22, 17)
    yield "small", (found * 1e-5, target * 1e-5), (40,)
    yield "far from 0", (found + 1e4, target + 1e4), (13, 27)
    yield "one row", (found[:1], target[:1]), (1,)
    yield "constant", (found, torch.full_like(target, 0.1)), (13, 27)
    yield "all right, and constant", (torch.full_like(target, 0.1),) * 2, (40,)
    yield "one constant", (found, target * torch.tensor([1.0, 0.0, 1.0]) + 0.1), (40,)
    yield "no rows", (found[:0], target[:0]), (0,)
    yield "no batch", (found[:0], target[:0]), ()


def r2(found: np.ndarray, target: np.ndarray) -> list[float]:
    """Of each output. scikit-learn and torchmetrics have 0 or 1 where the target does not vary: neither is followed."""
    defined = [len(target) > 1 and np.ptp(each) > 0 for each in target.T]
    return [sk.r2_score(y, x) if known else NAN for x, y, known in zip(found.T, target.T, defined, strict=True)]


def averaged(found: np.ndarray, target: np.ndarray, weighted: bool) -> float:
    """Outputs whose target does not vary are left out; a variance of 0 has no weight in scikit-learn either."""
    each = np.array(r2(found, target))
    known = ~np.isnan(each)
    return float(np.average(each[known], weights=target.var(0)[known] if weighted else None)) if known.any() else NAN


def adjusted(found: np.ndarray, target: np.ndarray) -> float:
    """By Theil's formula, for two regressors."""
    rows = len(target)
    return 1 - (1 - averaged(found, target, False)) * (rows - 1) / (rows - 3) if rows > 3 else NAN


REGRESSION: list[tuple[str, Mapping[str, Any], Oracle]] = [
    ("MeanSquaredError", {}, lambda x, y: sk.mean_squared_error(y, x)),
    ("MeanSquaredError", {"squared": False}, lambda x, y: math.sqrt(sk.mean_squared_error(y, x))),
    ("MeanSquaredError", {"num_outputs": 3}, lambda x, y: sk.mean_squared_error(y, x, multioutput="raw_values")),
    ("MeanAbsoluteError", {}, lambda x, y: sk.mean_absolute_error(y, x)),
    ("MeanAbsoluteError", {"num_outputs": 3}, lambda x, y: sk.mean_absolute_error(y, x, multioutput="raw_values")),
    ("R2Score", {"multioutput": "raw_values"}, r2),
    ("R2Score", {}, lambda x, y: averaged(x, y, False)),
    ("R2Score", {"multioutput": "variance_weighted"}, lambda x, y: averaged(x, y, True)),
    ("R2Score", {"adjusted": 2}, adjusted),
]


@pytest.mark.parametrize(("name", "args", "oracle"), REGRESSION, ids=ids)
def test_values(name: str, args: dict[str, Any], oracle: Oracle) -> None:
    for case, rows, sizes in values():
        found = measured(getattr(metrics, name)(**args), rows, sizes)
        many = "num_outputs" in args or (args.get("multioutput") == "raw_values" and len(rows[1]))
        expected = oracle(rows[0].numpy(), rows[1].numpy()) if len(rows[1]) else [NAN] * 3 if many else NAN
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-15, err_msg=case)
        if name == "R2Score" and "multioutput" not in args:
            # Images and the like are so many outputs; a single one needs no dimension.
            again = getattr(metrics, name)(**args)
            shaped = measured(again, (rows[0].reshape(-1, 3, 1), rows[1].reshape(-1, 3, 1)), sizes)
            np.testing.assert_equal(shaped, found)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 2)])
def test_outputs_that_are_not_there_are_told(shape: tuple[int, ...]) -> None:
    for kind in (metrics.MeanSquaredError, metrics.MeanAbsoluteError):
        with pytest.raises(MetricError, match=r"`num_outputs=3` is of values \[B, 3\]"):
            kind(num_outputs=3).update(torch.zeros(shape), torch.zeros(shape))


def test_every_metric_of_the_language_is_here() -> None:
    from tdsl.dsl.signatures import METRICS

    assert {name for table in (ORACLES, BINARY, REGRESSION) for name, _, _ in table} == set(METRICS)
