"""Every argument of every metric, for each task: what is emitted agrees with scikit-learn, or it is E330.

An argument that were taken and not heeded would give a number that is not what was asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import metrics as sk

import tdsl.compiler.ops  # noqa: F401
from tdsl.compiler.emit.evaluate import metric_texts, unsupported
from tdsl.dsl.signatures import METRICS
from tdsl.runtime import metrics
from tdsl.runtime.metric import log_odds
from tests.test_emit_evaluate import BINARY, SCORES, digits
from tests.test_metric_cases import calibration, jaccard, shares

ROWS, CLASSES = 120, 10
VALUES: Mapping[str, tuple[Any, ...]] = {
    "threshold": (0.7,),
    "average": ("micro", "macro", "weighted", "none", None),
    "top_k": (2,),
    "ignore_index": (1,),
    "thresholds": ((0.2, 0.5, 0.8),),
    "max_fpr": (0.3,),
    "normalize": ("true", "pred", "all"),
    "n_bins": (7,),
    "norm": ("l2", "max"),
    "squared": (False,),
    "num_outputs": (10,),
    "adjusted": (2,),
    "multioutput": ("raw_values", "variance_weighted"),
}
COUNTS: Mapping[str, Callable[..., Any]] = {
    # Of one class the accuracy is its recall.
    "Accuracy": sk.recall_score,
    "Precision": sk.precision_score,
    "Recall": sk.recall_score,
    "F1Score": sk.f1_score,
    "JaccardIndex": jaccard,
}
AREAS = {"AUROC": sk.roc_auc_score, "AveragePrecision": sk.average_precision_score}
CLASSES_REFUSE = {(name, "threshold") for name in (*COUNTS, "ConfusionMatrix")} | {("AUROC", "max_fpr")}
TOPPED = [name for name in COUNTS if name != "JaccardIndex"]
TWO_REFUSE = (
    {(name, "top_k") for name in TOPPED} | {(name, "average") for name in AREAS} | {("Perplexity", "ignore_index")}
)
REGRESSION = ("MeanSquaredError", "MeanAbsoluteError", "R2Score")


class Case(NamedTuple):
    """A metric with one argument, or with none."""

    name: str
    argument: str = ""
    given: Any = None

    @property
    def text(self) -> str:
        return f"{self.name}({self.argument}={json.dumps(self.given).replace('null', 'none')})"


def cases(regression: bool) -> Iterator[Case]:
    for name, signature in METRICS.items():
        for arg in signature.args if (name in REGRESSION) == regression else ():
            # Of two classes the default of a count is of one of them, and no average.
            values = (each for each in VALUES[arg.name] if name in COUNTS or each != arg.default)
            yield from (Case(name, arg.name, value) for value in values if arg.kind.accepts(value))


def emitted(compare: str, asked: Sequence[Case]) -> tuple[dict[Case, str], set[Case]]:
    """The constructors of those that are taken, and those that are E330."""
    unit = digits(compare, ", ".join(case.text for case in asked))
    run, evaluation = unit.runs["digits"], unit.evaluations["digits"]
    found = unsupported(unit, run, evaluation)
    assert {each.code for each in found} <= {"E330"}
    refused = {case for case in asked if case.text in {each.span.text for each in found if each.span}}
    texts = dict(zip(asked, metric_texts(unit, run, evaluation), strict=True))
    return {case: text.removesuffix(",") for case, text in texts.items() if case not in refused}, refused


def measured(constructor: str, prediction: np.ndarray, target: np.ndarray) -> Any:
    metric = eval(constructor, {"metrics": metrics})
    metric.update(torch.tensor(prediction), torch.tensor(target))
    return metric.compute()


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        classes = [each["class"] for each in found] == [each["class"] for each in expected]
        return classes and all(same(a[key], b[key]) for a, b in zip(found, expected, strict=True) for key in b)
    found, expected = np.asarray(found), np.asarray(expected)
    return found.shape == expected.shape and np.allclose(found, expected, rtol=1e-6, atol=1e-9, equal_nan=True)


def check(texts: Mapping[Case, str], prediction: np.ndarray, target: np.ndarray, oracle: Callable[..., Any]) -> None:
    """That each is what scikit-learn has, which is not what it has without the argument."""
    for case, text in texts.items():
        expected = oracle(case, prediction, target)
        assert same(measured(text, prediction, target), expected), case
        # These averages of accuracies are the accuracy of all rows, and this one of unions is what there is without.
        if case.given not in ("micro", "weighted") and case != Case("JaccardIndex", "average", "macro"):
            assert not same(oracle(Case(case.name), prediction, target), expected), case


# Scores against classes ----------------------------------------------------------------------------------------------


def drawn(classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(classes)
    labels = generator.choice(classes, ROWS, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    if classes == 2:
        return generator.normal(size=ROWS) + 1.5 * labels - 0.4, labels
    return generator.normal(size=(ROWS, classes)) + 1.5 * np.eye(classes)[labels], labels


def decided(case: Case, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The classes that are predicted; with `top_k`, the true one where it is among the first."""
    if scores.ndim == 1:
        return (shares(scores) > (case.given if case.argument == "threshold" else 0.5)).astype(int)
    top = np.argsort(-scores, 1)[:, : case.given if case.argument == "top_k" else 1]
    return np.where((top == labels[:, None]).any(1), labels, top[:, 0])


def counted(case: Case, scores: np.ndarray, labels: np.ndarray) -> Any:
    predicted, two = decided(case, scores, labels), scores.ndim == 1
    if case.argument == "average":
        average = None if case.given == "none" else case.given
        classes = range(2 if two else CLASSES) if average is None else None
        missing = math.nan if average is None else 0
        return COUNTS[case.name](labels, predicted, labels=classes, average=average, zero_division=missing)
    if case.name == "Accuracy":
        return sk.accuracy_score(labels, predicted)
    average, missing = ("macro", 0.0) if case.name == "JaccardIndex" else ("micro", math.nan)
    return COUNTS[case.name](labels, predicted, average="binary" if two else average, zero_division=missing)


def area(case: Case, scores: np.ndarray, labels: np.ndarray) -> Any:
    """Of each class against the others; averages leave out those that have no rows."""
    ranks = log_odds(torch.tensor(scores)).numpy() if scores.ndim > 1 else scores[:, None]
    kinds = range(CLASSES) if scores.ndim > 1 else [1]
    if case.argument == "thresholds":
        ranks = shares(scores).reshape(len(labels), -1)
        each = [binned(case.name, case.given, ranks[:, i], labels == kind) for i, kind in enumerate(kinds)]
    else:
        more = {"max_fpr": case.given} if case.argument == "max_fpr" else {}
        known = [
            bool((labels == kind).any() and (case.name == "AveragePrecision" or (labels != kind).any()))
            for kind in kinds
        ]
        each = [
            AREAS[case.name](labels == kind, ranks[:, i], **more) if known[i] else math.nan
            for i, kind in enumerate(kinds)
        ]
    average = case.given if case.argument == "average" else "macro"
    if average in ("none", None):
        return each
    defined = [i for i, value in enumerate(each) if not math.isnan(value)]
    weights = [(labels == kinds[i]).sum() if average == "weighted" else 1 for i in defined]
    return np.average([each[i] for i in defined], weights=weights) if defined else math.nan


def points(thresholds: Sequence[float], scores: np.ndarray, right: np.ndarray) -> tuple[list[float], ...]:
    """False and true positive rates, and precision, at each threshold."""
    found = [sk.confusion_matrix(right, scores >= each, labels=[False, True]).ravel() for each in thresholds]
    fpr = [fp / (fp + tn) for tn, fp, _, _ in found]
    tpr = [tp / (tp + fn) for _, _, fn, tp in found]
    return fpr, tpr, [tp / (tp + fp) if tp + fp else math.nan for _, fp, _, tp in found]


def binned(name: str, thresholds: Sequence[float], scores: np.ndarray, right: np.ndarray) -> float:
    fpr, tpr, precision = points(thresholds, scores, right)
    if name == "AUROC":
        return float(sk.auc(fpr, tpr))
    return float(-(np.diff([*tpr, 0.0]) * np.nan_to_num(precision)).sum())


def curve(case: Case, scores: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    ranks = (
        shares(scores).reshape(len(labels), -1)
        if case.argument == "thresholds"
        else (log_odds(torch.tensor(scores)).numpy() if scores.ndim > 1 else scores[:, None])
    )
    found: list[dict[str, Any]] = []
    for i, kind in enumerate(range(CLASSES) if scores.ndim > 1 else [1]):
        right = labels == kind
        if not right.any() or right.all():
            continue
        if case.argument == "thresholds":
            fpr, tpr, precision = points(case.given, ranks[:, i], right)
            one = {"fpr": fpr[::-1], "tpr": tpr[::-1]}
            if case.name == "PrecisionRecallCurve":
                kept = [each for each in zip(tpr, precision, case.given, strict=True) if not math.isnan(each[1])]
                recall, precision, thresholds = (list(each) for each in zip(*kept, strict=True))
                one = {"recall": [*recall, 0.0], "precision": [*precision, 1.0], "thresholds": thresholds}
        elif case.name == "ROC":
            one = dict(zip(("fpr", "tpr"), sk.roc_curve(right, ranks[:, i], drop_intermediate=False), strict=False))
        else:
            one = dict(zip(("precision", "recall"), sk.precision_recall_curve(right, ranks[:, i]), strict=False))
        found.append({"class": kind, **one})
    return found


def classified(case: Case, scores: np.ndarray, labels: np.ndarray) -> Any:
    if case.argument == "ignore_index":
        kept = labels != case.given
        if case.name == "JaccardIndex" and scores.ndim > 1:
            # As in torchmetrics, the average leaves out the class whose rows are left out.
            others = [each for each in range(CLASSES) if each != case.given]
            return sk.jaccard_score(labels[kept], decided(case, scores, labels)[kept], labels=others, average="macro")
        return classified(Case(case.name), scores[kept], labels[kept])
    if case.name in COUNTS:
        return counted(case, scores, labels)
    if case.name in AREAS:
        return area(case, scores, labels)
    if case.name in ("ROC", "PrecisionRecallCurve"):
        return curve(case, scores, labels)
    if case.name == "ConfusionMatrix":
        kinds = range(2 if scores.ndim == 1 else CLASSES)
        normal = case.given if case.argument == "normalize" else None
        return sk.confusion_matrix(labels, decided(case, scores, labels), labels=kinds, normalize=normal)
    if case.name == "CalibrationError":
        norm, bins = (
            case.given if case.argument == name else default for name, default in (("norm", "l1"), ("n_bins", 15))
        )
        return calibration(norm, bins)(scores, labels)
    assert case.name == "Perplexity"
    return math.exp(sk.log_loss(labels, shares(scores), labels=range(CLASSES)))


def test_several_classes() -> None:
    texts, refused = emitted(f"{SCORES}, batch.label", list(cases(False)))
    assert {(case.name, case.argument) for case in refused} == CLASSES_REFUSE
    check(texts, *drawn(CLASSES), classified)


def test_two_classes() -> None:
    texts, refused = emitted(BINARY, list(cases(False)))
    assert {(case.name, case.argument) for case in refused} == TWO_REFUSE
    check(texts, *drawn(2), classified)


def valued(case: Case, found: np.ndarray, target: np.ndarray) -> Any:
    several = {"multioutput": "raw_values"} if case.argument == "num_outputs" else {}
    if case.name == "R2Score":
        several = {"multioutput": case.given} if case.argument == "multioutput" else {}
        score = sk.r2_score(target, found, **several)
        return 1 - (1 - score) * (ROWS - 1) / (ROWS - 1 - case.given) if case.argument == "adjusted" else score
    error = sk.mean_absolute_error if case.name == "MeanAbsoluteError" else sk.mean_squared_error
    value = error(target, found, **several)
    return math.sqrt(value) if case.argument == "squared" else value


def test_values() -> None:
    texts, refused = emitted(f"{SCORES}, batch.pixels[:, 0:10]", list(cases(True)))
    assert not refused
    target = np.random.default_rng(0).normal(size=(ROWS, 10)) * np.arange(1, 11)
    check(texts, target + np.random.default_rng(1).normal(size=(ROWS, 10)), target, valued)
    _, refused = emitted(f"{SCORES}, batch.pixels[:, 0:9]", everything := list(cases(False)))
    assert refused == set(everything)
    _, refused = emitted(f"{SCORES}, batch.label", everything := list(cases(True)))
    assert refused == set(everything)


def test_more_classes_than_there_are() -> None:
    many = [Case(name, "top_k", value) for name in TOPPED for value in (10, 11)]
    _, refused = emitted(f"{SCORES}, batch.label", many)
    assert refused == {Case(name, "top_k", 11) for name in TOPPED}


def test_an_area_over_all_rows_of_all_classes_is_no_choice() -> None:
    micro = {case.name for case in cases(False) if case.given == "micro"}
    assert micro == set(COUNTS)
