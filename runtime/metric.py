"""What all metrics share: torchmetrics, fed with what a model returns.

Names, arguments, defaults and values are torchmetrics'. Three things are settled here, so that no batch is misread:

- Scores are logits unless `from_logits=False` says that they are probabilities already. torchmetrics decides that for
  each batch by whether all values lie in [0, 1], which logits sometimes do.
- Scores are in float64, and curves rank by log-odds, so that confident predictions are not tied at 1.0.
- What is undefined is NaN, not 0: the AUROC of a class without rows, the precision of one that is never predicted, all
  of no rows. Averages over classes leave out those without rows; those of counts (precision, recall, F1, Jaccard) leave
  out what has neither rows nor predictions, and count as 0 what has one of them, as torchmetrics and scikit-learn do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import torch
import torchmetrics
from torch import Tensor

from tdsl.runtime import ranks
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
