"""How sure of a metric one can be: 95% intervals."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor

from tdsl.runtime.metric import Metric
from tdsl.runtime.metrics import Accuracy

RESAMPLES = 400
# The quantile of the normal distribution that leaves 2.5% above it.
Z = 1.959964


def bootstrap(metric: Metric, prediction: Tensor, target: Tensor) -> list[float] | None:
    """Where 95% of a metric lie over rows drawn again with replacement; None where too many draws lack what defines it.

    (The percentile bootstrap; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.)
    """
    again = deepcopy(metric)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(RESAMPLES):
        rows = torch.randint(len(target), (len(target),), generator=generator)
        again.reset()
        again.update(prediction[rows], target[rows])
        if _complete(again, metric):
            found.append(again.compute())
    values = torch.tensor(found).double()
    values = values[values.isfinite()]
    if len(values) < RESAMPLES // 2:
        return None
    interval: list[float] = values.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return interval


def _complete(again: Metric, metric: Metric) -> bool:
    """Whether a sample has the classes without which a metric means another thing."""
    return not metric.per_class or bool(((again.counts > 0) == (metric.counts > 0)).all())


def is_share(metric: Metric) -> bool:
    """Whether a metric is the share of targets that are predicted right."""
    return type(metric) is Accuracy and metric.args.get("average", "micro") == "micro"


def wilson(share: float, count: int) -> list[float]:
    """The score interval of a share of `count` independent trials.

    (Wilson, "Probable inference, the law of succession, and statistical inference", 1927.)
    """
    square = Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return [max(0.0, middle - half), min(1.0, middle + half)]
