"""Philox in plain PyTorch and by NumPy; that kernels draw the same is in tests/test_dropout.py and others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tdsl.runtime import random

SEEDS = (0, 5, (1 << 62) - 1, 0x0123456789ABCDEF)


def test_known_answers() -> None:
    """Of the authors' Random123: Philox-4x32-10 of a key of zeros and of a counter of zeros."""
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert random.philox(0, 1).tolist() == [expected]
    assert random._by_torch(0, 1, "cpu").tolist() == [expected]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [0, 1, random._BLOCK - 1, random._BLOCK, random._BLOCK + 1, 3 * random._BLOCK + 7])
def test_numpy_and_torch_have_the_same_words(seed: int, count: int) -> None:
    found = random.philox(seed, count)
    assert found.shape == (count, 4)
    assert found.dtype is torch.int64
    assert torch.equal(found, random._by_torch(seed, count, "cpu"))


def test_counters_go_beyond_32_bits() -> None:
    start = (1 << 32) - 2
    found = np.empty((4, 4), dtype=np.uint64)
    random._block(7, start, found)
    low = random._by_torch(7, 2, "cpu").numpy()
    # The first two lie below 2^32, where the low word alone counts; the others have the counters (0, 1) and (1, 1).
    assert not (found[2:] == low.astype(np.uint64)).any()
    assert len({tuple(row) for row in found.tolist()}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("p", [0.0, 2**-24, 1e-9, 0.1, 1 / 3, 0.5, 0.999999, 1.0])
def test_dropout_keeps_what_is_drawn_to_be_at_least_p(p: float, dtype: torch.dtype) -> None:
    for seed in SEEDS:
        x = torch.randn(1001, dtype=torch.float64).to(dtype).reshape(7, 143)
        kept = random.uniform(x, seed) >= p
        scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
        assert torch.equal(random.dropout(x, p, seed), x * (kept.to(dtype) * scale))


def test_numbers_are_those_of_their_distributions() -> None:
    x = torch.empty(200_000)
    uniform, normal = random.rand_like(x, 3), random.randn_like(x, 3)
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    assert abs(float(uniform.mean()) - 0.5) < 4 / math.sqrt(12 * len(x))
    assert abs(float(normal.mean())) < 4 / math.sqrt(len(x))
    assert abs(float(normal.var()) - 1.0) < 4 * math.sqrt(2 / len(x))
