"""Dropout at its ends: a rate of 1 leaves nothing, and no gradient, in kernels and beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tdsl.runtime import random
from tests.helpers import ROOT, compiled, emitted, python, written

PROGRAM = """
module Dropped(rate: float = 1.0) {
    forward(x: float[B, D]) -> float[B, D] { return dropout(gelu(x), rate) + 0 * x }
}
"""
RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import model
for rate in (1.0, 0.0, 0.25):
    torch.manual_seed(0)
    x = torch.randn(40, 50, requires_grad=True)
    y = model.Dropped(rate)(x)
    y.sum().backward()
    kept = (y != 0).float().mean()
    assert abs(float(kept) - (1 - rate)) < 0.05, (rate, kept)
    assert bool(x.grad.isfinite().all()), rate
    assert torch.equal(x.grad != 0, y != 0), rate
    assert torch.allclose(y[y != 0], (torch.nn.functional.gelu(x) / max(1 - rate, 0.1))[y != 0], atol=1e-6), rate
"""


@pytest.mark.parametrize("interpret", [True, False])
def test_what_is_dropped_has_no_gradient(interpret: bool, tmp_path: Path) -> None:
    folder = written(emitted(compiled(PROGRAM)), tmp_path)
    assert "kernels." in (folder / "model.py").read_text(encoding="utf-8")
    ran = python("-c", RUN, folder, interpret=interpret, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_rate_of_one(dtype: torch.dtype) -> None:
    x = torch.randn(5, 7, dtype=dtype, requires_grad=True)
    y = random.dropout(x, 1.0, seed=3)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == dtype
    assert torch.equal(y, torch.zeros_like(x))
    assert torch.equal(gradient, torch.zeros_like(x))
