"""One pass over a split: the loss, what is tracked, the metrics and how sure of them one can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor

from tdsl.runtime import ranks
from tdsl.runtime.metrics import CalibrationError, ConfusionMatrix, Curve, Metric, Value

# Resampling is done with at most so many scores, where it takes about a second.
MOST_RESAMPLED = 100_000
RESAMPLES = 400
# A curve is written with about so many points at most, its ends among them.
MOST_POINTS = 500


M = TypeVar("M", bound=Metric)


class Results:
    """What `add_loss` and `add` took, batch by batch, summed up by `summary`.

    Every row counts once, whatever the batches: the loss is the mean over rows of what the batches' losses are.
    """

    def __init__(self, metrics: Sequence[Metric] = ()) -> None:
        self.metrics = dict(zip(_keys(metrics), metrics, strict=True))
        self.rows = 0.0
        self._compared = 0
        self._sums: dict[str, Tensor] = {}
        # What is resampled; None where it is too much.
        self._kept: list[tuple[Tensor, Tensor]] | None = []

    def add_loss(self, loss: Tensor, tracked: Mapping[str, Tensor] | None = None, *, rows: float) -> None:
        """Takes the mean loss of `rows` rows, or of a part that counts as so many, and its tracked scalars."""
        self.rows += rows
        for name, value in {"loss": loss, **(tracked or {})}.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().double() * rows

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Takes what `compare` returns for a batch. Raises `MetricError` for what can't be compared."""
        for metric in self.metrics.values():
            metric.update(prediction, target)
        self._compared += len(target)
        if self._kept is not None:
            self._kept.append((prediction.detach().cpu(), target.detach().cpu()))
            self._kept = _few(self._kept)

    def gather(self) -> None:
        """Takes in what other ranks took of the same batches, so that each row counts once."""
        if ranks.count() == 1:
            return
        for metric in self.metrics.values():
            metric.gather()
        sums = {name: float(total) for name, total in self._sums.items()}
        found = ranks.gathered((self.rows, self._compared, sums, self._kept))
        self.rows, self._compared = sum(rows for rows, *_ in found), sum(compared for _, compared, *_ in found)
        self._sums = {}
        for _, _, sums, _ in found:
            for name, total in sums.items():
                self._sums[name] = self._sums.get(name, torch.zeros((), dtype=torch.float64)) + total
        self._kept = _in_order([kept for *_, kept in found])

    def scalars(self) -> dict[str, Value]:
        """The loss, what is tracked and the metrics that are numbers, by the names they are logged under."""
        means: dict[str, Value] = {name: float(total) / max(self.rows, 1) for name, total in self._sums.items()}
        return means | {
            key: metric.compute() for key, metric in self.metrics.items() if metric.scalar and self._compared
        }

    def summary(self) -> dict[str, Any]:
        """All of it as plain data for JSON, in which what is undefined is None.

        `rows`, `loss`, what is `tracked`, the `metrics` that are numbers (or one number a class) and their 95%
        `intervals`, `curves`, `calibration`, `confusion_matrix` [true class][predicted class], `support` (how many
        targets each class has) and `warnings`.
        """
        scalars = self.scalars()
        counts = self._counts()
        found: dict[str, Any] = _plain(
            {
                "rows": round(self.rows) or self._compared,
                "loss": scalars.get("loss"),
                "tracked": {name: scalars[name] for name in self._sums if name != "loss"},
                "metrics": {key: scalars[key] for key in self.metrics if key in scalars},
                "intervals": self._intervals(scalars),
                "curves": {key: [_thinned(curve) for curve in m.compute()] for key, m in self._of(Curve).items()},
                "calibration": next((m.bins() for m in self._of(CalibrationError).values()), None),
                "confusion_matrix": next((m.compute() for m in self._of(ConfusionMatrix).values()), None),
                "support": None if counts is None else counts.tolist(),
                "warnings": list(self._warnings()),
            }
        )
        return found

    def _of(self, kind: type[M]) -> dict[str, M]:
        """The metrics of one kind, where anything was compared."""
        return {key: metric for key, metric in self.metrics.items() if isinstance(metric, kind) and self._compared}

    def _intervals(self, scalars: Mapping[str, Value]) -> dict[str, list[float]]:
        """Of each metric that is one number, where 95% of it lie over rows drawn again with replacement.

        (The percentile bootstrap; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.)
        """
        if not self._kept:
            return {}
        prediction, target = (torch.cat(each) for each in zip(*self._kept, strict=True))
        single = {key: metric for key, metric in self.metrics.items() if _finite(scalars.get(key))}
        found = {key: _bootstrap(metric, prediction, target) for key, metric in single.items()}
        return {key: interval for key, interval in found.items() if interval}

    def _counts(self) -> Tensor | None:
        """How many targets each class has."""
        found = [metric.counts for metric in self.metrics.values() if metric.task]
        return found[0] if found else None

    def _warnings(self) -> Iterator[str]:
        counts = self._counts()
        if not self.rows and not self._compared:
            yield "the split has no rows"
        elif counts is not None:
            absent = [str(label) for label in range(len(counts)) if not counts[label]]
            if absent:
                yield f"no row has the class {', '.join(absent)}: what is undefined for it is left out"
            if self._doubtful():
                yield (
                    "all predictions lie in [0, 1] and were taken for logits: if they are probabilities, let `compare` "
                    "return what `sigmoid` or `softmax` was applied to"
                )

    def _doubtful(self) -> bool:
        """Whether probabilities seem to be taken for logits."""
        first = next(iter(self.metrics.values()))
        if not self._kept or not first.from_logits:
            return False
        scores = torch.cat([prediction for prediction, _ in self._kept]).double()
        if bool(((scores < 0) | (scores > 1)).any()):
            return False
        sums = scores.sum(first.class_dim) if first.task == "multiclass" else torch.ones(())
        return bool(((sums - 1).abs() < 1e-3).all())


def _few(kept: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]] | None:
    return kept if sum(scores.numel() for scores, _ in kept) <= MOST_RESAMPLED else None


def _in_order(kept: Sequence[list[tuple[Tensor, Tensor]] | None]) -> list[tuple[Tensor, Tensor]] | None:
    """Batches of several ranks in the order of their rows: the parts of the first batch, then of the next."""
    known = [each for each in kept if each is not None]
    if len(known) < len(kept):
        return None
    return _few([part for batch in zip_longest(*known) for part in batch if part is not None])


def _keys(metrics: Sequence[Metric]) -> list[str]:
    """A name for each metric: its own, or for a further one of that name, with its arguments."""
    found: list[str] = []
    for metric in metrics:
        given = ", ".join(f"{name}={value}" for name, value in metric.args.items())
        found.append(metric.key if metric.key not in found else f"{metric.key}({given})")
    return found


def _finite(value: Value | None) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """Values of JSON, which has no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _thinned(curve: Mapping[str, Any]) -> dict[str, Any]:
    """A curve with about MOST_POINTS points at most, evenly spread along it."""
    x, y, *_ = (series for series in curve.values() if isinstance(series, Tensor))
    kept = torch.arange(len(x))
    if len(x) > MOST_POINTS:
        length = torch.cat([torch.zeros(1), (x.diff().abs() + y.diff().abs()).cumsum(0)])
        kept = torch.searchsorted(length, torch.linspace(0, float(length[-1]), MOST_POINTS)).clamp(max=len(x) - 1)
        kept = torch.tensor(sorted({0, len(x) - 1, *kept.tolist()}))
    return {
        name: [float(f"{value:.6g}") for value in series[kept[kept < len(series)]]]
        if isinstance(series, Tensor)
        else series
        for name, series in curve.items()
    }


def _bootstrap(metric: Metric, prediction: Tensor, target: Tensor) -> list[float] | None:
    """The 95% interval of a metric over resampled rows; None where too many samples lack what defines it."""
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
