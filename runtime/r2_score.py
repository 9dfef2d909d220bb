"""R² of torchmetrics, but NaN where it is undefined, and right where targets vary little."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor


class R2(torchmetrics.R2Score):
    """1 - (sum of squared errors) / (sum of squared distances of the targets from their mean), of [B] or [B, outputs].

    torchmetrics takes a sum of squares below 1e-4 for 0, and then answers 0 or 1, whatever the targets' unit; and falls
    back to the plain value where there are too few rows for `adjusted`. Here the targets' range tells those that do not
    vary, which have no R². An average over outputs leaves them out.
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, **args: Any) -> None:
        super().__init__(**args)
        self.add_state("lowest", torch.tensor(torch.inf), "min")
        self.add_state("highest", torch.tensor(-torch.inf), "max")

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds, target)
        self.lowest = torch.minimum(self.lowest, target.amin(0))
        self.highest = torch.maximum(self.highest, target.amax(0))

    def compute(self) -> Tensor:
        rows = self.total
        spread = self.sum_squared_error - self.sum_error * self.sum_error / rows
        spread = spread.masked_fill(self.lowest >= self.highest, 0.0)
        found = (1 - self.residual / spread).masked_fill(spread == 0, torch.nan)
        if self.multioutput == "variance_weighted":
            found = (found * spread).nansum() / spread.sum()
        elif self.multioutput == "uniform_average":
            found = found.nanmean()
        if not self.adjusted:
            return found
        free = rows - self.adjusted - 1
        return 1 - (1 - found) * (rows - 1) / torch.where(free > 0, free, torch.nan)
