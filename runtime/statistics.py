"""Means and standard deviations of columns over the rows of the train split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tdsl.runtime.columns import Column

Numbers = npt.NDArray[np.float64]
# Sums of the same values may differ by rounding where NumPy or the processor is another.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Statistics:
    """What fields take from some `rows` (int64 [k]) of a table: those of the train split.

    A statistic is computed where it is first asked for, in float64, and known from then on, for other tables, too.
    Those of a checkpoint, which have no `rows`, are all known. `means` are by column, `scales` by field: the mean and
    the standard deviation of each element of a row. Values that are NaN count for nothing.
    """

    rows: Tensor | None = None
    means: dict[str, Tensor] = field(default_factory=dict)
    scales: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Statistics:
        """Those that `record` has told."""
        means = {name: _tensor(value) for name, value in record.get("means", {}).items()}
        scales = {name: (_tensor(mean), _tensor(std)) for name, (mean, std) in record.get("scales", {}).items()}
        return cls(None, means, scales)

    def record(self) -> dict[str, Any]:
        """All that are known, for JSON."""
        return {
            "means": {name: mean.tolist() for name, mean in self.means.items()},
            "scales": {name: [mean.tolist(), std.tolist()] for name, (mean, std) in self.scales.items()},
        }

    def mean(self, column: str, values: Tensor | Column) -> Tensor | None:
        """The mean of a column, `values` [rows, ...], as [...]; NaN where it has none, None where it is not known."""
        if column not in self.means and self.rows is not None:
            self.means[column] = _tensor(_mean(self._of_train(values)))
        return self.means.get(column)

    def scale(self, field: str, values: Tensor | Column) -> tuple[Tensor, Tensor] | None:
        """The mean and the standard deviation of a field, `values` [rows, ...], each as [...]; None if not known.

        The deviation is that of the whole population, and 1 for values that are all the same, as far as rounding tells.
        """
        if field not in self.scales and self.rows is not None:
            mean, std = _scale(self._of_train(values))
            self.scales[field] = _tensor(mean), _tensor(std)
        return self.scales.get(field)

    def changed(self, record: Mapping[str, Any]) -> str | None:
        """The column or field whose statistics are others than a record tells; None where all are the same."""
        told = Statistics.of(record)
        mine = {**{f"column {name}": (mean,) for name, mean in self.means.items()}, **self.scales}
        others = {**{f"column {name}": (mean,) for name, mean in told.means.items()}, **told.scales}
        for name in {**others, **mine}:
            if name not in mine or name not in others or not _same(mine[name], others[name]):
                return name.removeprefix("column ")
        return None

    def _of_train(self, values: Tensor | Column) -> Numbers:
        """The values of the train split, [..., rows]."""
        assert self.rows is not None
        found = values.take(self.rows) if isinstance(values, Column) else values[self.rows]
        return np.ascontiguousarray(np.moveaxis(found.double().numpy(), 0, -1))


def _mean(values: Numbers) -> Numbers:
    """The mean over the last axis, of what is not NaN; NumPy adds in one order, whatever the number of threads."""
    known = ~np.isnan(values)
    with np.errstate(all="ignore"):  # without values it is NaN, and infinite of those that are too large
        return np.asarray(np.where(known, values, 0.0).sum(-1) / known.sum(-1))


def _scale(values: Numbers) -> tuple[Numbers, Numbers]:
    """The mean and the deviation over the last axis; which values are constant is told as by `StandardScaler`.

    That is `_is_constant_feature` in `sklearn/preprocessing/_data.py`.
    """
    mean, counts, epsilon = _mean(values), (~np.isnan(values)).sum(-1), np.finfo(np.float64).eps
    with np.errstate(all="ignore"):
        variance = _mean((values - mean[..., None]) ** 2)
        constant = variance <= counts * epsilon * variance + (counts * mean * epsilon) ** 2
        return mean, np.where(constant & np.isfinite(variance), 1.0, np.sqrt(variance))


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _same(mine: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    """Whether statistics are those, within rounding, which a mean near 0 has by the standard deviation."""
    if [each.shape for each in mine] != [each.shape for each in others]:
        return False
    allowed = ROUNDING * torch.maximum(mine[0].abs(), mine[-1].abs())
    return all(bool(((a - b).abs() <= allowed).all()) for a, b in zip(mine, others, strict=True))
