"""The metrics that a program may name, each a class of torchmetrics' name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.text import Perplexity as _Perplexity

from tdsl.runtime.metric import ALONE, MetricError, Task, Value
from tdsl.runtime.metric import Metric as Metric
from tdsl.runtime.r2_score import R2


class _Decided(Metric):
    """What looks at the class that is predicted: the largest score, or a probability above the threshold."""

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        return super()._scores(prediction, "probabilities" if self.task == "binary" else reads)


class _Counts(_Decided, ABC):
    """A ratio of numbers of predictions, undefined where its denominator is 0.

    Of two classes it is that of class 1; `average` asks for both, as if there were a score of each, or for labels.
    """

    @property
    def counted(self) -> Task | None:
        return "multiclass" if "average" in self.args and not self.labels else super().counted

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        found = super()._scores(prediction, reads)
        return found if self.counted in (self.task, "multilabel") else (found > self.args.get("threshold", 0.5)).long()

    @abstractmethod
    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        """Of true positives, false positives and false negatives."""

    def _counted(self) -> tuple[Tensor, Tensor, Tensor]:
        """True positives, false positives and false negatives, of each class or label where they are told apart."""
        counts: Any = self.metric
        return counts.tp.cpu(), counts.fp.cpu(), counts.fn.cpu()

    def _compute(self) -> Value:
        found = self.metric.compute().cpu()
        if self.counted != "multiclass" or not self.single:
            counts = self._counted()
            found = found.masked_fill(self._denominator(*counts).view_as(found) == 0, torch.nan)
            if self.labels and self.single:
                return self._average(found, torch.stack(counts).sum(0) > 0)
        value: Value = found.tolist()
        return value


class Accuracy(_Counts):
    """The recall of each class, where it is not told of all rows together."""

    key, title = "accuracy", "Accuracy"

    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        return right + missed if self.counted == "multiclass" else torch.ones_like(right)


class Precision(_Counts):
    key, title = "precision", "Precision"

    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        return right + claimed


class Recall(_Counts):
    key, title = "recall", "Recall"

    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        return right + missed


class F1Score(_Counts):
    key, title = "f1_score", "F1 score"

    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        return right + claimed + missed


class JaccardIndex(_Counts):
    """Intersection over union, of pixels say: of what is of a class or predicted to be, the share that is both."""

    key, title = "jaccard_index", "Jaccard index"

    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        return right + claimed + missed

    def _counted(self) -> tuple[Tensor, Tensor, Tensor]:
        matrix: Any = self.metric.confmat
        matrix = matrix.cpu()
        if self.counted == "multiclass":
            right = matrix.diag()
            return right, matrix.sum(0) - right, matrix.sum(1) - right
        return matrix[..., 1, 1], matrix[..., 0, 1], matrix[..., 1, 0]


class ConfusionMatrix(_Decided):
    """Rows are the true classes, columns the predicted ones. Shares of a class without rows are 0, as its counts."""

    key, title = "confusion_matrix", "Confusion matrix"
    scalar = False

    def _nothing(self) -> list[list[float]]:
        return self._compute()

    def _compute(self) -> list[list[float]]:
        found: Tensor = self.metric.compute().cpu()
        rows: list[list[float]] = (found if self.args.get("normalize") else found.long()).tolist()
        return rows


class _PerClass(Metric):
    """A scalar of one class against the others, averaged over the classes that have both."""

    reads = "ranks"
    per_class = True

    def _make(self) -> torchmetrics.Metric:
        args, self.args = self.args, self.args | ({"average": "none"} if self.task == "multiclass" else {})
        made = super()._make()
        self.args = args
        return made

    def _defined(self) -> Tensor:
        """Of each class, whether the metric means something."""
        return (self.by_label > 0).all(-1) if self.labels else (self.counts > 0) & (self.counts < self.counts.sum())

    def _compute(self) -> Value:
        found = self.metric.compute().double().cpu()
        if self.counted == "binary":
            return float(found) if self._defined()[1] else math.nan
        found = found.masked_fill(~self._defined(), torch.nan)
        values: list[float] = found.tolist()
        return self._average(found, self._defined()) if self.single else values


class AUROC(_PerClass):
    key, title = "auroc", "AUROC"


class AveragePrecision(_PerClass):
    key, title = "average_precision", "Average precision"

    def _defined(self) -> Tensor:
        return self.support > 0


class Curve(Metric):
    """Three series of points for each class against the others, but for classes that lack rows for or against."""

    reads = "ranks"
    scalar = False

    def _nothing(self) -> list[dict[str, Any]]:
        return []

    def _classes(self) -> list[tuple[int, Tensor, Tensor, Tensor]]:
        """Of each class with rows for and against it: its number and the curve's three series."""
        series = self.metric.compute()
        if self.task == "binary":
            series = [(None, each) for each in series]
        rows: list[tuple[int, Tensor, Tensor, Tensor]] = []
        for label in [1] if self.task == "binary" else range(self.classes):
            if 0 < self.counts[label] < self.counts.sum():
                a, b, t = (each[label] if isinstance(each, (list, tuple)) or each.ndim > 1 else each for each in series)
                rows.append((label, a.cpu(), b.cpu(), self._thresholds(t.cpu().reshape(-1))))
        return rows

    def _thresholds(self, found: Tensor) -> Tensor:
        """Ranks as the probabilities that they stand for."""
        if not self.ranks or not self.from_logits:
            return found
        squashed = 2 * found - 1
        return (squashed / (1 - squashed.abs())).sigmoid()


class ROC(Curve):
    """Of each class: `fpr`, `tpr` and `thresholds`."""

    key, title = "roc", "ROC"

    def _compute(self) -> list[dict[str, Any]]:
        return [{"class": label, "fpr": x, "tpr": y, "thresholds": t} for label, x, y, t in self._classes()]


class PrecisionRecallCurve(Curve):
    """Of each class: `recall`, `precision` and `thresholds`, one fewer, as the last point has none.

    Thresholds that are given and that no score reaches have no precision, and are left out.
    """

    key, title = "precision_recall", "Precision and recall"

    def _compute(self) -> list[dict[str, Any]]:
        known = [(label, y, x, t, ~y.isnan()) for label, y, x, t in self._classes()]
        return [
            {"class": label, "recall": x[kept], "precision": y[kept], "thresholds": t[kept[:-1]]}
            for label, y, x, t, kept in known
        ]


class CalibrationError(Metric):
    key, title = "calibration_error", "Calibration error"
    reads = "probabilities"

    def bins(self) -> dict[str, list[float]]:
        """Over the bins that have rows: mean `confidence`, `accuracy` and `rows`."""
        kept: list[Any] = [self.metric.confidences, self.metric.accuracies]
        sure, right = (torch.cat(list(each)).double().cpu() for each in kept)
        count = int(self.args.get("n_bins", 15))
        number = (sure * count).long().clamp(max=count - 1)
        rows = number.bincount(minlength=count)
        sums = [number.bincount(each, minlength=count)[rows > 0] / rows[rows > 0] for each in (sure, right)]
        return {"confidence": sums[0].tolist(), "accuracy": sums[1].tolist(), "rows": rows[rows > 0].tolist()}


class _Errors(Metric):
    """Errors over all values, or over those of each of `num_outputs` columns."""

    def _prepare(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.args.get("num_outputs", 1)
        if outputs > 1 and (target.ndim != 2 or target.shape[1] != outputs):
            raise MetricError(f"`num_outputs={outputs}` is of values [B, {outputs}], not {list(target.shape)}")
        return super()._prepare(prediction, target)


class MeanSquaredError(_Errors):
    """With `squared=False` it is another number, and has another name: that of its root."""

    key, title = "mean_squared_error", "Mean squared error"

    def _make(self) -> torchmetrics.Metric:
        if not self.args.get("squared", True):
            self.key = "root_mean_squared_error"
        return super()._make()


class MeanAbsoluteError(_Errors):
    key, title = "mean_absolute_error", "Mean absolute error"


class R2Score(Metric):
    """Of several outputs [B, ...] an average, which leaves out those whose target does not vary."""

    key, title = "r2_score", "R²"

    def _make(self) -> torchmetrics.Metric:
        return R2(**ALONE, **self.args)

    def _prepare(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        prediction, target = super()._prepare(prediction, target)
        return (prediction, target) if target.ndim == 1 else (prediction.flatten(1), target.flatten(1))


class Perplexity(Metric):
    """exp of the mean negative log-likelihood a token; scores [B, ..., C] with targets [B, ...]."""

    key, title = "perplexity", "Perplexity"

    def _make(self) -> torchmetrics.Metric:
        return _Perplexity(**ALONE, **self.args)

    def _prepare(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        scores, labels = super()._prepare(prediction, target)
        return scores[None], labels[None]

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        # torchmetrics applies softmax, which leaves the logarithms of probabilities as they are.
        return prediction if self.from_logits else prediction.log()
