"""Metrics of torchmetrics, fed with what a model returns.

Names, arguments, defaults and values are torchmetrics'. Three things are settled here, so that no batch is misread:

- Scores are logits unless `from_logits=False` says that they are probabilities already. torchmetrics decides that for
  each batch by whether all values lie in [0, 1], which logits sometimes do.
- Scores are in float64, and curves rank by log-odds, so that confident predictions are not tied at 1.0.
- What is undefined is NaN, not 0: the AUROC of a class without rows, the precision of one that is never predicted, all
  of no rows. Averages over classes leave out those without rows; those of counts (precision, recall, F1) leave out what
  has neither rows nor predictions, and count as 0 what has one of them, as torchmetrics and scikit-learn do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.text import Perplexity as _Perplexity

from tdsl.runtime import ranks
from tdsl.runtime.r2_score import R2
from tdsl.runtime.run import Failure

Task = Literal["binary", "multiclass", "multilabel"]
# Of one metric: a number, or one for each class.
Value: TypeAlias = "float | list[float]"

# Left to itself, torchmetrics waits for the other processes in each `compute`; `gather` does that once.
ALONE: Mapping[str, Any] = {"sync_on_compute": False}
# Log-odds beyond this are as good as certain; finite, as infinity has no rank.
CERTAIN = 1e9


class MetricError(Failure):
    """Predictions or targets that can't be compared; the message says why, and what to do."""


class Metric:
    """One metric of torchmetrics.

    `task="binary"`: scores and 0/1 targets (of any dtype), both [B, ...]. `task="multiclass"`: scores [B, C] or
    [B, ..., C] with integer targets [B, ...]; where the classes are not the last dimension, `class_dim` says which. No
    task (regression): values and targets of one shape. `args` are torchmetrics'.

    `num_labels=L`, of binary scores [B, L], asks for the metric of each label and their average.
    """

    key: str
    title: ClassVar[str]
    # What torchmetrics is given: `scores` as they are, `probabilities`, or `ranks` (in the order of the probabilities).
    reads: ClassVar[Literal["scores", "probabilities", "ranks"]] = "scores"
    # Whether one number (or one a class) sums it up.
    scalar: ClassVar[bool] = True
    # Whether it compares each class with the others, so that a class without rows leaves it undefined.
    per_class: ClassVar[bool] = False
    # Whether more is better; None where it is neither.
    higher_is_better: ClassVar[bool | None] = True

    def __init__(
        self,
        task: Task | None = None,
        *,
        num_classes: int | None = None,
        num_labels: int | None = None,
        from_logits: bool = True,
        class_dim: int = -1,
        **args: Any,
    ) -> None:
        self.task, self.classes = task, 2 if task == "binary" else num_classes or 0
        self.from_logits, self.class_dim, self.args = from_logits, class_dim, args
        self.labels = num_labels or 0
        self.counts = torch.zeros(self.classes, dtype=torch.int64)
        # Of each label, the rows without and with it.
        self.by_label = torch.zeros(self.labels, 2, dtype=torch.int64)
        self.metric = self._make().set_dtype(torch.float64)

    def _make(self) -> torchmetrics.Metric:
        make: Any = getattr(torchmetrics, type(self).__name__)
        # Targets are checked here, with messages that say what to do.
        given: dict[str, Any] = {"task": self.counted, "validate_args": False} if self.task else {}
        given |= {"num_classes": self.classes} if self.counted == "multiclass" else {}
        given |= {"num_labels": self.labels, "average": "none"} if self.labels else {}
        found: torchmetrics.Metric = make(**self.args | given, **ALONE)
        return found

    @property
    def counted(self) -> Task | None:
        """The task that torchmetrics is given."""
        return "multilabel" if self.labels else self.task

    @property
    def seen(self) -> Tensor:
        """How many targets each class has; of labels, with and without each [L, 2]."""
        return self.by_label if self.labels else self.counts

    @property
    def support(self) -> Tensor:
        """How many targets there are of each class, or of each label."""
        return self.by_label[:, 1] if self.labels else self.counts

    @property
    def single(self) -> bool:
        """Whether the value is one number, not one for each class or output."""
        asked = self.args.get("average", "") in ("none", None) or self.args.get("multioutput") == "raw_values"
        return self.scalar and not asked and self.args.get("num_outputs", 1) == 1

    @property
    def ignored(self) -> int | None:
        """The target that is left out."""
        index: int | None = self.args.get("ignore_index")
        return index

    @property
    def ranks(self) -> bool:
        """Whether scores are given by rank: where thresholds are asked for, they are probabilities."""
        return self.reads == "ranks" and self.args.get("thresholds") is None

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Takes a batch. Raises `MetricError` for predictions that are NaN, and for targets of no class."""
        if not len(target):
            return
        prediction, target = prediction.detach(), target.detach()
        if prediction.isnan().any():
            rows = int(prediction.flatten(1).isnan().any(1).sum() if prediction.ndim > 1 else prediction.isnan().sum())
            raise MetricError(
                f"{rows} of {len(prediction)} predictions of a batch are NaN: the parameters have diverged; "
                "train with a lower learning rate, or evaluate an earlier checkpoint"
            )
        self.metric.to(prediction.device).update(*self._prepare(prediction.double(), target))

    def _prepare(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.task is None:
            return _same_shape(prediction, target.double())
        if self.task == "multiclass":
            prediction = prediction.movedim(self.class_dim, -1).reshape(-1, self.classes)
        else:
            prediction, target = _same_shape(prediction.reshape(-1), target.reshape(-1))
        target = self._labels(target.reshape(-1))
        if self.labels:
            prediction, target = prediction.view(-1, self.labels), target.view(-1, self.labels)
            with_and_without = [(target == value) & (value != self.ignored) for value in (0, 1)]
            self.by_label += torch.stack(with_and_without, -1).sum(0).cpu()
        reads = self.reads if self.ranks or self.reads != "ranks" else "probabilities"
        return self._scores(prediction, reads), target

    def _labels(self, target: Tensor) -> Tensor:
        """Targets as integers, counted."""
        labels = target.long()
        kept = labels if self.ignored is None else labels[target != self.ignored]
        bad = (target != labels) | (labels < 0) | (labels >= self.classes)
        if self.ignored is not None:
            bad &= target != self.ignored
        if bad.any():
            help = "; `ignore_index=-100` leaves such rows out" if (target == -100).any() else ""
            raise MetricError(f"the target {target[bad][0].item():g} is none of 0 to {self.classes - 1}{help}")
        self.counts += kept.bincount(minlength=self.classes).cpu()
        return labels

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        if reads == "scores" and self.task == "multiclass":
            return prediction
        if not self.from_logits:
            return prediction
        if reads == "ranks":
            odds = prediction if self.task == "binary" else log_odds(prediction)
            odds = odds.clamp(-CERTAIN, CERTAIN)
            return 0.5 + 0.5 * odds / (1 + odds.abs())
        return prediction.sigmoid() if self.task == "binary" else prediction.softmax(-1)

    def compute(self) -> Any:
        """The value over all batches so far: a number, or a list with one a class (`average="none"`)."""
        with warnings.catch_warnings():
            # Told once, in the project's own words, by `Metrics.warnings`.
            warnings.simplefilter("ignore")
            return self._nothing() if self.task and not self.counts.sum() else self._compute()

    def _nothing(self) -> Any:
        """The value of no rows."""
        return math.nan if self.single else [math.nan] * len(self.support)

    def _compute(self) -> Any:
        found: Tensor = self.metric.compute()
        return found.cpu().tolist()

    def gather(self) -> None:
        """Takes in the batches of all ranks."""
        if ranks.count() == 1:
            return
        device = self.metric.device
        own = {name: _to(value, torch.device("cpu")) for name, value in self.metric.metric_state.items()}
        found = ranks.gathered((own, self.counts, self.by_label))
        self.reset()
        for state, counts, by_label in found:
            self.metric.merge_state({name: _to(value, device) for name, value in state.items()})
            self.counts += counts
            self.by_label += by_label

    def reset(self) -> None:
        """Forgets all batches."""
        self.metric.reset()
        self.counts.zero_()
        self.by_label.zero_()

    def _average(self, found: Tensor, kept: Tensor) -> float:
        """The mean of the values of classes or labels, those that are `kept`; what is undefined counts as 0."""
        weights = (self.support if self.args.get("average") == "weighted" else torch.ones_like(self.support)) * kept
        return float((found.nan_to_num() * weights).sum() / weights.sum())


def _to(state: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return [each.to(device) for each in state] if isinstance(state, list) else state.to(device)


def log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = softmax(logits), [N, C] to [N, C], exact where p rounds to 1."""
    logs = logits.log_softmax(-1)
    top = logs.argmax(-1, keepdim=True)
    # Of one class, the largest, 1 - p may vanish: there it is summed from the others.
    others = logs.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    return (logs - torch.log1p(-logs.exp())).scatter(-1, top, logs.gather(-1, top) - others)


def _same_shape(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape:
        shapes = f"{list(prediction.shape)} and {list(target.shape)}"
        raise MetricError(f"predictions and targets have the shapes {shapes}: make them equal in `compare`")
    return prediction, target


class _Decided(Metric):
    """What looks at the class that is predicted: the largest score, or a probability above the threshold."""

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        return super()._scores(prediction, "probabilities" if self.task == "binary" else reads)


class _Counts(_Decided):
    """A ratio of numbers of predictions, undefined where its denominator is 0.

    Of two classes it is that of class 1; `average` asks for both, as if there were a score of each, or for labels.
    """

    @property
    def counted(self) -> Task | None:
        return "multiclass" if "average" in self.args and not self.labels else super().counted

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        found = super()._scores(prediction, reads)
        return found if self.counted in (self.task, "multilabel") else (found > self.args.get("threshold", 0.5)).long()

    def _denominator(self, right: Tensor, claimed: Tensor, missed: Tensor) -> Tensor:
        """Of true positives, false positives and false negatives."""
        raise NotImplementedError

    def _compute(self) -> Value:
        counts: Any = self.metric
        found = self.metric.compute().cpu()
        if self.counted != "multiclass" or not self.single:
            denominator = self._denominator(counts.tp, counts.fp, counts.fn).cpu().view_as(found)
            found = found.masked_fill(denominator == 0, torch.nan)
            if self.labels and self.single:
                return self._average(found, (denominator + counts.tp.cpu() + counts.fp.cpu() + counts.fn.cpu()) > 0)
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
    higher_is_better = False

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

    higher_is_better = False

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
    higher_is_better = False

    def _make(self) -> torchmetrics.Metric:
        return _Perplexity(**ALONE, **self.args)

    def _prepare(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        scores, labels = super()._prepare(prediction, target)
        return scores[None], labels[None]

    def _scores(self, prediction: Tensor, reads: str) -> Tensor:
        # torchmetrics applies softmax, which leaves the logarithms of probabilities as they are.
        return prediction if self.from_logits else prediction.log()
