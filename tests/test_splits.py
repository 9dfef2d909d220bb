"""Splits: sizes, disjointness, proportions, and independence of the global random state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor

from tdsl.runtime import splits

FRACTIONS = [
    {"train": 0.7, "val": 0.15, "test": 0.15},
    {"train": 0.9, "val": 0.1},
    {"train": 1.0},
    {"train": 0.5, "test": 0.2},
    {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3},
]


def check(found: dict[str, Tensor], rows: int, fractions: dict[str, float], slack: float) -> None:
    every = torch.cat(list(found.values()))
    assert len(every.unique()) == len(every)
    assert every.numel() == 0 or (every.min() >= 0 and every.max() < rows)
    for split, fraction in fractions.items():
        assert abs(len(found[split]) - rows * fraction) < slack + 1e-6
    if abs(sum(fractions.values()) - 1) < 1e-9:
        assert len(every) == rows


@pytest.mark.parametrize("fractions", FRACTIONS)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 10, 569, 1797])
def test_sizes_are_within_one_row_and_rows_in_one_split(rows: int, fractions: dict[str, float]) -> None:
    check(splits.random(rows, seed=3, **fractions), rows, fractions, 1)
    check(splits.sequential(rows, **fractions), rows, fractions, 1)


def test_sequential_keeps_the_order() -> None:
    found = splits.sequential(10, train=0.6, val=0.2, test=0.2)
    assert torch.cat(list(found.values())).tolist() == list(range(10))


@pytest.mark.parametrize("fractions", FRACTIONS)
@pytest.mark.parametrize("labels", [load_digits().target, load_breast_cancer().target])
def test_stratified_keeps_the_proportions_of_every_class(labels: object, fractions: dict[str, float]) -> None:
    classes = torch.as_tensor(labels)
    found = splits.stratified(classes, seed=7, **fractions)
    check(found, len(classes), fractions, 2)
    for label in classes.unique():
        for split, fraction in fractions.items():
            count = int((classes[found[split]] == label).sum())
            assert abs(count - fraction * int((classes == label).sum())) < 1 + 1e-6


def test_stratified_of_many_small_classes_keeps_the_fractions() -> None:
    found = splits.stratified(torch.arange(1000), seed=0, train=0.7, val=0.15, test=0.15)
    check(found, 1000, {"train": 0.7, "val": 0.15, "test": 0.15}, 2)


def test_stratified_by_text() -> None:
    labels = torch.tensor([0, 1] * 50).numpy().astype(str)
    found = splits.stratified(labels, seed=0, train=0.5, test=0.5)
    assert sorted(labels[found["test"]].tolist()) == ["0"] * 25 + ["1"] * 25


@pytest.mark.parametrize("seed", range(5))
def test_grouped_keeps_groups_whole_and_the_fractions_nearly(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 40, 60)
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(60), sizes))
    fractions = {"train": 0.6, "val": 0.2, "test": 0.1}
    found = splits.grouped(groups, seed=seed, **fractions)
    members = [set(groups[rows].tolist()) for rows in found.values()]
    assert sum(map(len, members)) == len(set.union(*members))
    for split, rows in found.items():
        assert abs(len(rows) - fractions[split] * len(groups)) <= sizes.max()
        assert rows.dtype == torch.int64
        assert torch.equal(rows, rows.sort().values)
        assert torch.equal(rows, splits.grouped(groups, seed=seed, **fractions)[split])
    assert not torch.equal(found["val"], splits.grouped(groups, seed=seed + 100, **fractions)["val"])


def test_grouped_gives_each_split_a_group_where_there_are_enough() -> None:
    found = splits.grouped(np.array(["ann", "bob", "eve"] * 5), seed=0, train=0.8, val=0.1, test=0.1)
    assert [len(rows) for rows in found.values()] == [5, 5, 5]
    assert [len(rows) for rows in splits.grouped(np.array([]), train=0.8, val=0.2).values()] == [0, 0]
    whole = splits.grouped(torch.tensor([3, 3, 4]), train=1.0)
    assert whole["train"].tolist() == [0, 1, 2]


def test_a_seed_decides_and_the_global_state_does_not() -> None:
    torch.manual_seed(0)
    first = splits.random(100, train=0.5, seed=1)["train"]
    state = torch.get_rng_state()
    torch.rand(7)
    assert torch.equal(first, splits.random(100, train=0.5, seed=1)["train"])
    assert not torch.equal(first, splits.random(100, train=0.5, seed=2)["train"])
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("fractions", [{"train": 0.9, "val": 0.2}, {"train": -0.1}])
def test_fractions_that_are_none(fractions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="add up"):
        splits.sequential(10, **fractions)
