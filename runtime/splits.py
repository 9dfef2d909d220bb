"""Rows divided among splits.

All return a tensor of row numbers (int64, ascending) for each split that has a fraction. No row is in two splits; where
the fractions add up to less than one, rows are left over. Draws come from a generator of their own, so that neither
the global random state nor its later use matters. Fractions that are negative or add up to more than one raise
`ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tdsl.runtime.columns import Column

# What rounding may add to fractions such as 0.7 + 0.15 + 0.15.
TOLERANCE = 1e-6
# The rows that no split gets.
LEFT = ""


def random(rows: int, *, seed: int = 0, **fractions: float) -> dict[str, Tensor]:
    """Rows drawn without replacement: `random(1797, train=0.7, val=0.15, test=0.15, seed=0)`."""
    return _deal(torch.randperm(rows, generator=_generator(seed)), _sizes(rows, fractions))


def sequential(rows: int, **fractions: float) -> dict[str, Tensor]:
    """The first rows to the first split, those that follow to the next."""
    return _deal(torch.arange(rows), _sizes(rows, fractions))


def stratified(
    labels: Tensor | Column | npt.NDArray[np.generic], *, seed: int = 0, **fractions: float
) -> dict[str, Tensor]:
    """Rows drawn so that each split has every label [rows] in the same proportion, to within one row.

    Each label's rows are shuffled on their own, label after label: rows of the last label that are added leave the
    others where they are.
    """
    values, groups = np.unique(_whole(labels), return_inverse=True)
    classes = torch.from_numpy(groups.reshape(-1))
    generator = _generator(seed)
    owed = dict.fromkeys((*fractions, LEFT), 0.0)
    parts = []
    for label in range(len(values)):
        rows = (classes == label).nonzero().view(-1)
        order = rows[torch.randperm(len(rows), generator=generator)]
        parts.append(_deal(order, _sizes(len(rows), fractions, owed)))
    return {split: torch.cat([part[split] for part in parts]).sort().values for split in fractions}


def grouped(
    groups: Tensor | Column | npt.NDArray[np.generic], *, seed: int = 0, **fractions: float
) -> dict[str, Tensor]:
    """Whole groups drawn at random: rows with one value of `groups` [rows] are in one split.

    The fractions are of rows. Each group goes to the split that lacks most rows by then, so a split is off by less than
    the largest group; where only as many groups are left as there are splits without one, each of these gets one.
    """
    values, members = np.unique(_whole(groups), return_inverse=True)
    sizes = np.bincount(members.reshape(-1), minlength=len(values))
    lacking = {split: float(rows) for split, rows in _sizes(int(sizes.sum()), fractions).items()}
    lacking[LEFT] = float(sizes.sum()) - sum(lacking.values())
    empty = [split for split, rows in lacking.items() if rows and split != LEFT]
    chosen = [""] * len(values)
    for dealt, group in enumerate(torch.randperm(len(values), generator=_generator(seed)).tolist()):
        split = max(empty if len(values) - dealt <= len(empty) else lacking, key=lacking.__getitem__)
        chosen[group] = split
        lacking[split] -= float(sizes[group])
        empty = [each for each in empty if each != split]
    owner = np.asarray(chosen)[members.reshape(-1)] if chosen else np.asarray([], dtype=str)
    return {split: torch.from_numpy(np.flatnonzero(owner == split)) for split in fractions}


def _whole(values: Tensor | Column | npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    found: npt.NDArray[np.generic] = np.asarray(
        values.take(torch.arange(len(values))) if isinstance(values, Column) else values
    )
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _deal(order: Tensor, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    dealt = torch.split(order, [*sizes.values(), len(order) - sum(sizes.values())])
    return {split: rows.sort().values for split, rows in zip(sizes, dealt, strict=False)}


def _sizes(rows: int, fractions: Mapping[str, float], owed: dict[str, float] | None = None) -> dict[str, int]:
    """Rows of each split by the largest remainder: its fraction rounded down or up.

    `owed` carries what rounding took from each split over to the next call, so that many small classes together still
    have the fractions asked for.
    """
    if min(fractions.values(), default=0) < 0 or sum(fractions.values()) > 1 + TOLERANCE:
        told = ", ".join(f"{split}={fraction}" for split, fraction in fractions.items())
        raise ValueError(f"the fractions of a split are at least 0 and add up to at most 1: {told}")
    shares = {split: rows * fraction for split, fraction in fractions.items()}
    shares[LEFT] = max(0.0, rows - sum(shares.values()))
    owed = dict.fromkeys(shares, 0.0) if owed is None else owed
    sizes = {split: int(share + TOLERANCE) for split, share in shares.items()}
    for split, share in shares.items():
        owed[split] += share - sizes[split]
    rounded = [split for split, share in shares.items() if share - sizes[split] > TOLERANCE]
    for split in sorted(rounded, key=lambda split: -owed[split])[: rows - sum(sizes.values())]:
        sizes[split] += 1
        owed[split] -= 1
    return {split: sizes[split] for split in fractions}
