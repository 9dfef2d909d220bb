"""The kernels of the optimizers, compiled ahead of time for GPUs that need not be there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from tdsl.runtime import aot, low_precision, optim, optim_kernels

# Each optimizer with all that it can have, and what is most used; the dtypes of parameters and of copies.
CASES: Mapping[str, tuple[str, dict[str, Any], torch.dtype, torch.dtype | None]] = {
    "AdamW with copies": ("AdamW", {}, torch.float32, torch.bfloat16),
    "Adam with all options": ("Adam", {"amsgrad": True, "weight_decay": 0.1}, torch.float32, torch.float16),
    "AdamW in bfloat16": ("AdamW", {}, torch.bfloat16, None),
    "SGD": ("SGD", {"momentum": 0.9, "nesterov": True}, torch.float32, torch.bfloat16),
    "RMSprop": ("RMSprop", {"momentum": 0.9, "centered": True}, torch.float32, torch.bfloat16),
    "Lion": ("Lion", {}, torch.float16, None),
}


def launches(name: str) -> list[aot.Launch]:
    """Those of clipping and of two steps, of which one is scaled and checked for overflow."""
    kind, options, dtype, low = CASES[name]
    parameters = [nn.Parameter(torch.zeros(5000, dtype=dtype)), nn.Parameter(torch.zeros(3, dtype=dtype))]
    if low is not None:
        low_precision.of(parameters[0], low)
    for each in parameters:
        each.grad = torch.zeros_like(each)
    with aot.recording(optim_kernels) as found:
        made = getattr(optim, kind)(parameters, lr=0.1, **options)
        optim.clip_gradients(made, 1.0)
        optim.clip_gradients(made, 1.0)
        made.grad_scale, made.found_inf = torch.ones(()), torch.zeros(())
        made.step()
        made.grad_scale, made.found_inf = None, None
        made.step()
    return list({each.key(): each for each in found}.values())


@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_nothing_spills(name: str, target: str) -> None:
    found = [aot.compiled(each, target, CASES[name][2]) for each in launches(name)]
    assert [each.kernel for each in found] == ["_squares", "_clip", "_clip", "_update", "_update"]
    assert [each for each in found if each.spilled] == []


def test_whole_blocks_are_read_and_written_four_elements_at_once() -> None:
    """Four operands read and three written, 1,024 elements at once by 128 threads; the copy 4 times 2 bytes."""
    update = launches("AdamW with copies")[-1]
    text = aot.binary(update, "sm_90").asm["ptx"]
    wide = re.findall(r"(ld|st)\.global\.(v\d)\.b32", text)
    assert {each: wide.count(each) for each in wide} == {("ld", "v4"): 8, ("st", "v4"): 6, ("st", "v2"): 2}
