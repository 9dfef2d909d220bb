"""One pass over a split: the loss, what is tracked, the metrics and how sure of them one can be."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor

from tdsl.runtime import intervals, ranks
from tdsl.runtime.metric import Metric, Value
from tdsl.runtime.metrics import CalibrationError, ConfusionMatrix, Curve
from tdsl.runtime.row_results import Pairs, Worst, joined, worst

# Resampling is done with at most so many scores, where it takes about a second.
MOST_RESAMPLED = 100_000
# A curve is written with about so many points at most, its ends among them; fewer where there are many curves.
MOST_POINTS, LEAST_POINTS = 500, 60
MOST_POINTS_OF_ALL = 50_000
# So many classes are listed in a warning.
MOST_LISTED = 10


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
        # Whether each row has one target.
        self._single = True
        self._worst = Worst(ranks.rank())
        self._pairs = Pairs()

    def add_loss(self, loss: Tensor, tracked: Mapping[str, Tensor] | None = None, *, rows: float) -> None:
        """Takes the mean loss of `rows` rows, or of a part that counts as so many, and its tracked scalars."""
        self.rows += rows
        for name, value in {"loss": loss, **(tracked or {})}.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().double() * rows

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Takes what `compare` returns for a batch. Raises `MetricError` for what can't be compared."""
        for metric in self.metrics.values():
            metric.update(prediction, target)
        for metric in list(self.metrics.values())[:1]:
            self._worst.add(metric, prediction, target)
            if metric.task is None:
                self._pairs.add(prediction, target)
        self._compared += len(target)
        self._single &= target.ndim == 1
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
        self._worst.rows = worst(ranks.gathered(self._worst.rows))
        self._pairs = joined(ranks.gathered(self._pairs))

    def scalars(self) -> dict[str, Value]:
        """The loss, what is tracked and the metrics that are numbers, by the names they are logged under."""
        means: dict[str, Value] = {name: float(total) / max(self.rows, 1) for name, total in self._sums.items()}
        return means | {
            key: metric.compute() for key, metric in self.metrics.items() if metric.scalar and self._compared
        }

    def summary(self) -> dict[str, Any]:
        """All of it as plain data for JSON, in which what is undefined is None.

        `rows`, the `task`, `loss`, what is `tracked`, the `metrics` that are numbers (or one number a class) and their
        95% `intervals` (with the `interval_methods`), `curves`, `calibration`, `confusion_matrix` [true class]
        [predicted class], `support` (how many targets each class has), the `worst` rows, `pairs` of values and
        predictions, and `warnings`.
        """
        scalars = self.scalars()
        counts = self._counts()
        found_intervals = self._intervals(scalars)
        found: dict[str, Any] = _plain(
            {
                "rows": round(self.rows) or self._compared,
                "task": self._task(),
                "loss": scalars.get("loss"),
                "tracked": {name: scalars[name] for name in self._sums if name != "loss"},
                "metrics": {key: scalars[key] for key in self.metrics if key in scalars},
                "intervals": {key: interval for key, (_, interval) in found_intervals.items()},
                "interval_methods": {key: method for key, (method, _) in found_intervals.items()},
                "curves": {key: list(_curves(metric)) for key, metric in self._of(Curve).items()},
                "calibration": next((m.bins() for m in self._of(CalibrationError).values()), None),
                "confusion_matrix": next((m.compute() for m in self._of(ConfusionMatrix).values()), None),
                "support": None if counts is None else counts.tolist(),
                "worst": self._worst.rows,
                "pairs": self._pairs.summary() if self._pairs.seen else None,
                "warnings": list(self._warnings()),
            }
        )
        return found

    def _task(self) -> dict[str, Any] | None:
        """What is predicted, where anything is compared."""
        first = next(iter(self.metrics.values()), None)
        return None if first is None else {"name": first.task or "regression", "classes": first.classes}

    def _of(self, kind: type[M]) -> dict[str, M]:
        """The metrics of one kind, where anything was compared."""
        return {key: metric for key, metric in self.metrics.items() if isinstance(metric, kind) and self._compared}

    def _intervals(self, scalars: Mapping[str, Value]) -> dict[str, tuple[str, list[float]]]:
        """Of each metric that is one number, how its 95% interval was found, and it; too much is not resampled."""
        single = {key: metric for key, metric in self.metrics.items() if _finite(scalars.get(key))}
        if not self._kept:
            # Targets of one row depend on each other: only rows are trials of their own.
            shares = {key: m for key, m in single.items() if self._single and intervals.is_share(m)}
            value = {key: scalars[key] for key in shares}
            return {
                key: ("wilson", intervals.wilson(share, int(shares[key].counts.sum())))
                for key, share in value.items()
                if isinstance(share, float)
            }
        prediction, target = (torch.cat(each) for each in zip(*self._kept, strict=True))
        found = {key: intervals.bootstrap(metric, prediction, target) for key, metric in single.items()}
        return {key: ("bootstrap", interval) for key, interval in found.items() if interval}

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
                more = f" and {len(absent) - MOST_LISTED:,} more" if len(absent) > MOST_LISTED else ""
                listed = ", ".join(absent[:MOST_LISTED]) + more
                yield f"no row has the class {listed}: what is undefined for it is left out"
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
    """A name for each metric: its own, with its arguments where others have that too: `f1_score(average="macro")`."""
    own = Counter(metric.key for metric in metrics)
    return [
        f"{metric.key}({_given(metric)})" if own[metric.key] > 1 and metric.args else metric.key for metric in metrics
    ]


def _given(metric: Metric) -> str:
    """The arguments of a metric, as a program writes them."""
    return ", ".join(f"{name}={_written(value)}" for name, value in metric.args.items())


def _written(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _finite(value: Value | None) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """Values of JSON, which has no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _curves(metric: Curve) -> Iterator[dict[str, Any]]:
    """The curves of each class, with the area below each."""
    curves = metric.compute()
    most = min(MOST_POINTS, max(LEAST_POINTS, MOST_POINTS_OF_ALL // max(len(curves), 1)))
    for curve in curves:
        yield {"area": _area(curve), **_thinned(curve, most)}


def _area(curve: Mapping[str, Any]) -> float:
    """Below an ROC curve by trapezoids, below precision over recall by steps, which is the average precision."""
    if "fpr" in curve:
        return float(torch.trapezoid(curve["tpr"].double(), curve["fpr"].double()))
    return float(-(curve["recall"].double().diff() * curve["precision"].double()[:-1]).sum())


def _thinned(curve: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A curve with about `most` points at most, evenly spread along it."""
    x, y, *_ = (series for series in curve.values() if isinstance(series, Tensor))
    kept = torch.arange(len(x))
    if len(x) > most:
        length = torch.cat([torch.zeros(1), (x.diff().abs() + y.diff().abs()).cumsum(0)])
        kept = torch.searchsorted(length, torch.linspace(0, float(length[-1]), most)).clamp(max=len(x) - 1)
        kept = torch.tensor(sorted({0, len(x) - 1, *kept.tolist()}))
    return {
        name: [float(f"{value:.6g}") for value in series[kept[kept < len(series)]]]
        if isinstance(series, Tensor)
        else series
        for name, series in curve.items()
    }
