"""95% intervals: SciPy's are the judge, and what lies within them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score

from tdsl.runtime import metrics
from tdsl.runtime.intervals import bootstrap, is_share, wilson
from tdsl.runtime.metric import Metric
from tdsl.runtime.results import MOST_RESAMPLED, Results

GENERATOR = torch.Generator().manual_seed(0)
TARGET = torch.randint(3, (300,), generator=GENERATOR)
SCORES = torch.randn(300, 3, generator=GENERATOR) + 1.5 * torch.eye(3)[TARGET]
RIGHT = SCORES.argmax(1) == TARGET
VALUES = torch.randn(300, generator=GENERATOR)
ERRORS = 0.3 * torch.randn(300, generator=GENERATOR) ** 3
CLASSES: dict[str, Any] = {"task": "multiclass", "num_classes": 3}
CASES: dict[str, tuple[Metric, Any, Any, tuple[Any, ...]]] = {
    "accuracy": (metrics.Accuracy(**CLASSES), SCORES, TARGET, (lambda right, axis: right.mean(axis), RIGHT.double())),
    "mean squared error": (
        metrics.MeanSquaredError(), VALUES + ERRORS, VALUES,
        (lambda errors, axis: (errors**2).mean(axis), ERRORS.double()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_bootstrap_is_that_of_scipy(case: str) -> None:
    metric, prediction, target, (statistic, rows) = CASES[case]
    metric.update(prediction, target)
    found = bootstrap(metric, prediction, target)
    theirs = stats.bootstrap(
        (rows.numpy(),), statistic, n_resamples=4000, method="percentile", vectorized=True, rng=np.random.default_rng(1)
    ).confidence_interval
    # Of 400 draws the ends lie a tenth of the width from where they do of many more, at most.
    width = theirs.high - theirs.low
    assert found == pytest.approx([theirs.low, theirs.high], abs=0.1 * width)


def test_the_bootstrap_of_an_average_over_classes() -> None:
    metric = metrics.F1Score(**CLASSES, average="macro")
    metric.update(SCORES, TARGET)
    found = bootstrap(metric, SCORES, TARGET)
    assert found is not None
    assert found[0] < f1_score(TARGET, SCORES.argmax(1), average="macro") < found[1]
    assert bootstrap(metric, SCORES, TARGET) == found


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (10, 10), (9_871, 10_000)])
def test_wilsons_interval_is_that_of_scipy(right: int, count: int) -> None:
    theirs = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right / count, count) == pytest.approx([theirs.low, theirs.high], abs=1e-6)


def test_shares_are_accuracies_over_all_rows() -> None:
    assert is_share(metrics.Accuracy(**CLASSES))
    assert is_share(metrics.Accuracy(**CLASSES, top_k=2))
    assert not is_share(metrics.Accuracy(**CLASSES, average="macro"))
    assert not is_share(metrics.Precision(**CLASSES))


def test_what_is_too_much_has_the_interval_of_its_rows_alone() -> None:
    count = MOST_RESAMPLED // 3 + 1
    target = torch.arange(count) % 3
    scores = torch.eye(3)[target.where(torch.arange(count) % 10 > 0, 0)]
    results = Results([metrics.Accuracy(**CLASSES), metrics.F1Score(**CLASSES, average="macro")])
    results.add(scores, target)
    found = results.summary()
    assert found["interval_methods"] == {"accuracy": "wilson"}
    assert found["intervals"]["accuracy"] == pytest.approx(wilson(found["metrics"]["accuracy"], count))
    # Targets of one row are no trials of their own.
    results = Results([metrics.Accuracy(**CLASSES)])
    results.add(scores[:, None].expand(-1, 2, -1), target[:, None].expand(-1, 2))
    assert results.summary()["intervals"] == {}
