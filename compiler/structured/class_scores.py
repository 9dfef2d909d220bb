"""What varies in the kernels over rows of class scores: the texts that stand in `templates/triton/class_scores.jinja`.

The loss of a row with scores x, label t, class weights w and label smoothing e over C classes is PyTorch's

    (1 - e) * w[t] * -p[t] + e / C * sum_c w[c] * -p[c],    p[c] = (x[c] - top) - log sum_c exp(x[c] - top),

and its gradient `whole * exp(p) - wanted`, where `wanted` is (1 - e) * w[t] at the label plus e / C * w[c] at each
class, and `whole` the sum of that over the classes. The greatest score, `top`, and the logarithm stay apart: added,
they would be rounded as scores are, not as the distances between them. A mean divides by the sum of w[t] over the rows
that count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tdsl.compiler.emit.text import literal
from tdsl.compiler.ir import Structure


@dataclass(frozen=True)
class ScoreKernels:
    """The kernels of one group, their names beginning with `name`.

    `ignored` is the label that counts for nothing, None where each counts. `infinite`: an infinite score makes the loss
    infinite, as `logsumexp` does, not NaN. `at_once`: the gradient is written as the scores are read. `chunked`: the
    rows are some of all, in a buffer where their gradient takes their place; what all count for comes as one number, by
    which a mean's gradient alone is divided. `magnified`: that gradient is as many times the one of the sum instead.
    """

    name: str
    reduction: str
    weighted: bool
    smoothing: float
    ignored: int | None
    infinite: bool
    at_once: bool
    chunked: bool = False
    magnified: int = 0

    # Which lines there are

    @property
    def smoothed(self) -> bool:
        return self.smoothing > 0

    @property
    def totals(self) -> bool:
        """Whether the weight of every class matters to every row."""
        return self.weighted and self.smoothed

    @property
    def counts(self) -> bool:
        """Whether what the mean divides by is counted by a kernel of its own."""
        return self.reduction == "mean" and not self.chunked and (self.weighted or self.ignored is not None)

    @property
    def divides(self) -> bool:
        """Whether the gradient is divided by what all rows count for."""
        return self.reduction == "mean" and self.chunked and not self.magnified

    @property
    def alone(self) -> bool:
        """Whether a program that has all rows adds their losses itself."""
        return self.reduction != "none" and not self.chunked

    # Texts

    @property
    def counted(self) -> str:
        """Which rows count."""
        return "row_mask" if self.ignored is None else "counted"

    @property
    def amount(self) -> str:
        """What a row counts for."""
        return "share" if self.weighted else "1.0"

    @property
    def counting(self) -> Iterator[str]:
        """What becomes of a label in the kernel that counts."""
        return iter([*self._counted(), *(self._known_and_share() if self.weighted else ())])

    @property
    def labels(self) -> Iterator[str]:
        """What becomes of a label."""
        return iter([*self._counted(), *self._known_and_share()])

    def _counted(self) -> Iterator[str]:
        if self.ignored is not None:
            yield f"counted = row_mask & (label != {self.ignored})"

    def _known_and_share(self) -> Iterator[str]:
        yield "known = (label >= 0) & (label < N_COLS)"
        if self.weighted:
            mask, other = "row_mask & known", 'float("nan")'
            yield f"share = tl.load(weight_ptr + label, mask={mask}, other={other}).to(tl.float32)"
        if self.weighted and self.ignored is not None:
            yield "share = tl.where(counted, share, 0.0)"

    @property
    def kept(self) -> str:
        """What the first load of scores says of the cache, where they are read again."""
        return ', eviction_policy="evict_last"' if self.at_once else ""

    @property
    def per(self) -> str:
        """What a loss is divided by."""
        if self.reduction != "mean" or self.chunked:
            return ""
        return " / count" if self.counts else " / n_rows"

    @property
    def loss(self) -> str:
        """The loss of a row, as above; `spread` is its second sum."""
        distance = "share * (log_sum - (score - top))" if self.weighted else "log_sum - (score - top)"
        if not self.smoothed:
            return distance
        distance = distance if self.weighted else f"({distance})"
        return f"{literal(1 - self.smoothing)} * {distance} + {self._each} * spread"

    @property
    def distance(self) -> str:
        """What a class adds to `spread`."""
        return "weight * (log_sum - (x - top))" if self.weighted else "log_sum - (x - top)"

    @property
    def _each(self) -> str:
        return f"{literal(self.smoothing)} / N_COLS"

    @property
    def found(self) -> str:
        """What the gradient is less what is wanted."""
        return "whole * tl.exp(x - top - log_sum)" if self.totals else "tl.exp(x - top - log_sum)"

    @property
    def wanted(self) -> str:
        own = literal(1 - self.smoothing) + (" * share" if self.totals else "")
        hit = f"tl.where(at == label, {own}, 0.0)"
        each = f" + {self._each}{' * weight' if self.totals else ''}" if self.smoothed else ""
        return hit + each

    @property
    def prepared(self) -> Iterator[str]:
        """What the gradient of a row's scores is multiplied by."""
        if self.totals:
            yield f"whole = {literal(1 - self.smoothing)} * share + {self._each} * tl.load(total_weight_ptr)"
        yield f"scale = {self._scale()}"
        if self.at_once and not self.chunked:
            yield "d_start = d_scores_ptr + rows * D_ROW_STRIDE"

    def _scale(self) -> str:
        by = "d_loss" if not self.at_once else literal(float(self.magnified or 1))
        if self.weighted and not self.smoothed:
            by = "share" if by == "1.0" else f"{by} * share"
        by += " / tl.load(count_ptr)" if self.divides else self.per
        if not self.weighted:
            by = f'tl.where(known, {by}, float("nan"))'
        return by if self.ignored is None else f"tl.where(counted, {by}, 0.0)"


def score_kernels(
    name: str, structure: Structure, at_once: bool, chunked: bool = False, magnified: int = 0
) -> ScoreKernels:
    """The kernels of a structure with the options that `passes/patterns/cross_entropy.py` gives."""
    options = structure.options
    ignored, smoothing = options["ignore_index"], options["label_smoothing"]
    assert ignored is None or isinstance(ignored, int)
    assert isinstance(smoothing, (int, float))
    return ScoreKernels(
        name,
        str(options["reduction"]),
        "class_weight" in structure.roles,
        float(smoothing),
        ignored,
        bool(options["infinite"]),
        at_once,
        chunked,
        magnified,
    )
