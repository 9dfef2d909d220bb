"""Attention's kernels on the GPU, in 16 bits too: against float64, the same bits each time, and without its scores."""

from __future__ import annotations

import pytest
import torch

from tests.attention_cases import Use, Variant, judge, kernel, make, run
from tests.gpu.kinds import DEVICE

GEMMA = Variant(True, (("window", 130), ("softcap", 30.0)), heads=4, groups=2, width=64, v_width=64)
VARIANTS = {
    "grouped heads, capped, in a window": GEMMA,
    "linear biases": Variant(True, alibi=True, heads=6, groups=6, width=128, v_width=128),
    "a bias, dropout, both ways": Variant(
        False, (("window", 130),), bias=("B", "1", "T", "S"), drops=True, width=80, v_width=80
    ),
    "a bias that is learnt": Variant(True, (("softcap", 5.0),), bias=("4", "1", "S"), heads=4, groups=4, v_width=24),
}
LAYOUTS = ("heads inside", "heads inside", "sliced", "contiguous", "heads inside")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", VARIANTS)
def test_kernels_agree_with_float64(name: str, dtype: torch.dtype) -> None:
    use = Use(VARIANTS[name], (2, 300, 277), dtype, layouts=LAYOUTS, seed=7, device=DEVICE)
    problem, _ = judge(use)
    assert problem == ""


def test_results_and_gradients_are_bit_equal() -> None:
    use = Use(VARIANTS["a bias, dropout, both ways"], (2, 300, 277), torch.bfloat16, seed=7, device=DEVICE)
    made = make(use)
    first = run(kernel(use), made)
    for _ in range(100):
        assert all(map(torch.equal, first, run(kernel(use), made)))


def test_no_scores_are_stored() -> None:
    """A twentieth of what the scores alone would take."""
    use = Use(GEMMA, (1, 16384, 16384), torch.bfloat16, layouts=LAYOUTS, device=DEVICE)
    made = make(use)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(kernel(use), made)
    assert torch.cuda.max_memory_allocated() - before < 4 * 16384 * 16384 * 2 / 20
