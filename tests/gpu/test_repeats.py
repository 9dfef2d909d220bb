"""The same call gives the same bits, a thousand times: sums in a fixed order, no atomics, no races."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.kinds import DEVICE, KINDS, gradients, run

TIMES = 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", KINDS)
def test_results_and_gradients_are_bit_equal(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    module, inputs = KINDS[name].module(tmp_path, dtype), KINDS[name].inputs(dtype)
    first = module(*inputs)
    grads = gradients(list(first) if isinstance(first, tuple) else [first])
    wanted = run(module, inputs, grads)
    different = torch.zeros((), dtype=torch.int64, device=DEVICE)
    for _ in range(TIMES):
        for found, expected in zip(run(module, inputs, grads), wanted, strict=True):
            different += (found != expected).sum()
    assert different.item() == 0
