"""What single rows tell of an evaluation: those with the highest loss, and a sample of values beside predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from tdsl.runtime.metric import Metric

# So many rows are told of.
MOST_ROWS = 12
# Of a row with many targets, so many values.
MOST_VALUES = 64
# A sample has so many pairs at most.
MOST_PAIRS = 2000


class Worst:
    """The rows whose predictions have the highest loss.

    That is the negative log-likelihood of the target, or the squared error: the mean over the targets of a row.
    """

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank
        self.batches = 0
        self.rows: list[dict[str, Any]] = []

    def add(self, metric: Metric, prediction: Tensor, target: Tensor) -> None:
        """Takes a batch of what `metric` compares."""
        number, self.batches = self.batches, self.batches + 1
        if not len(target):
            return
        look = {"multiclass": _classes, "binary": _logits, None: _values}[metric.task]
        told = look(metric, prediction.detach().float(), target.detach())
        losses = told.losses.double().cpu()
        order = losses.nan_to_num(-1.0).sort(descending=True, stable=True).indices[:MOST_ROWS]
        least = self.rows[-1]["loss"] if len(self.rows) == MOST_ROWS else -1.0
        found = [
            {"loss": float(losses[row]), "rank": self.rank, "batch": number, "offset": row, **told.row(row)}
            for row in order.tolist()
            if losses[row] > least
        ]
        self.rows = worst([self.rows, found])


def worst(parts: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of all parts with the highest loss, the first of those that are alike first."""
    rows = [dict(row) for part in parts for row in part]
    return sorted(rows, key=lambda row: (-row["loss"], row["batch"], row["rank"], row["offset"]))[:MOST_ROWS]


@dataclass(frozen=True)
class Told:
    """Of each row of a batch: its loss, the targets and what was predicted; of classes, how surely, how much right."""

    losses: Tensor
    true: Tensor
    predicted: Tensor
    confidence: Tensor | None = None
    right: Tensor | None = None

    def row(self, row: int) -> dict[str, Any]:
        """One row: single values, or the first of many with how many there are."""
        found: dict[str, Any] = {"true": _plain(self.true[row]), "predicted": _plain(self.predicted[row])}
        if self.confidence is not None:
            found["confidence"] = float(self.confidence[row])
        if self.true[row].numel() > 1:
            found["targets"] = self.true[row].numel()
            found |= {} if self.right is None else {"right": float(self.right[row])}
        return found


def _plain(values: Tensor) -> Any:
    flat = values.reshape(-1)[:MOST_VALUES].tolist()
    flat = [value if not isinstance(value, float) else float(f"{value:.6g}") for value in flat]
    return flat[0] if values.numel() == 1 else flat


def _classes(metric: Metric, scores: Tensor, target: Tensor) -> Told:
    scores = scores.movedim(metric.class_dim, -1).reshape(len(target), -1, metric.classes)
    target = target.reshape(len(target), -1).long()
    kept = _kept(metric, target)
    logs = scores.log_softmax(-1) if metric.from_logits else scores.clamp_min(1e-30).log()
    losses = -logs.gather(-1, target.where(kept, 0)[..., None])[..., 0]
    top = logs.max(-1)
    sure, right = _mean(top.values.exp(), kept), _mean(top.indices == target, kept)
    return Told(_mean(losses, kept), target, top.indices, sure, right)


def _logits(metric: Metric, scores: Tensor, target: Tensor) -> Told:
    scores, target = scores.reshape(len(target), -1), target.reshape(len(target), -1).long()
    kept = _kept(metric, target)
    odds = scores if metric.from_logits else scores.clamp(1e-7, 1 - 1e-7).logit()
    losses = F.softplus(odds.where(target < 1, -odds))
    top = (odds > 0).long()
    sure, right = _mean(odds.abs().sigmoid(), kept), _mean(top == target, kept)
    return Told(_mean(losses, kept), target, top, sure, right)


def _values(metric: Metric, values: Tensor, target: Tensor) -> Told:
    values, target = values.reshape(len(target), -1), target.reshape(len(target), -1).float()
    return Told((values - target).square().mean(-1), target, values)


def _kept(metric: Metric, target: Tensor) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool) if metric.ignored is None else target != metric.ignored


def _mean(values: Tensor, kept: Tensor) -> Tensor:
    """Of each row, the mean of the values that are kept; NaN where there is none."""
    return values.float().where(kept, 0).sum(-1) / kept.sum(-1)


class Pairs:
    """A sample of targets with their predictions, at most MOST_PAIRS, and how they differ in all.

    A pair is kept where the hash of its place is below a limit, which is halved when there are too many: so the sample
    depends on no batch, and on no period of the data.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.limit = 1 << 63
        self.kept: list[tuple[int, float, float]] = []
        # Of the differences, and of their squares.
        self.sums = [0.0, 0.0]

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Takes a batch of values."""
        values, targets = prediction.detach().reshape(-1).double(), target.detach().reshape(-1).double()
        differences = values - targets
        self.sums = [self.sums[0] + float(differences.sum()), self.sums[1] + float(differences.square().sum())]
        hashes = _hashes(self.seen, len(targets))
        self.seen += len(targets)
        places = np.flatnonzero(hashes < self.limit)
        at = torch.from_numpy(places).to(targets.device)
        self.kept += zip(hashes[places].tolist(), targets[at].tolist(), values[at].tolist(), strict=True)
        self._halve()

    def _halve(self) -> None:
        while len(self.kept) > MOST_PAIRS:
            self.limit //= 2
            self.kept = [each for each in self.kept if each[0] < self.limit]

    def summary(self) -> dict[str, Any]:
        """The pairs, of how many they are a sample, and the mean and the standard deviation of the differences."""
        pairs = [(true, value) for _, true, value in self.kept if math.isfinite(true) and math.isfinite(value)]
        mean, square = (each / max(self.seen, 1) for each in self.sums)
        return {
            "true": [float(f"{true:.6g}") for true, _ in pairs],
            "predicted": [float(f"{value:.6g}") for _, value in pairs],
            "of": self.seen,
            "mean": mean,
            "deviation": math.sqrt(max(0.0, square - mean * mean)),
        }


def _hashes(start: int, count: int) -> npt.NDArray[np.uint64]:
    """Of places from `start` on, each a number below 2^63 (Steele, Lea, Flood, "Fast splittable PRNGs", 2014)."""
    found = (np.arange(start, start + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = (found ^ (found >> np.uint64(31))) >> np.uint64(1)
    return mixed


def joined(parts: Iterable[Pairs]) -> Pairs:
    """The pairs of several ranks."""
    whole = Pairs()
    for part in parts:
        whole.limit = min(whole.limit, part.limit)
        whole.kept += part.kept
        whole.seen += part.seen
        whole.sums = [a + b for a, b in zip(whole.sums, part.sums, strict=True)]
    whole.kept = [each for each in whole.kept if each[0] < whole.limit]
    whole._halve()
    return whole
