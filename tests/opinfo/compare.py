"""Results and gradients of PyTorch's operator and of a module, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.opinfo.samples import Case

# The one that OpInfo sets before it draws.
SEED = 42
# A kernel rounds powers and the like otherwise than PyTorch (tests/test_kernels.py holds each against float64), and does
# in float32 what PyTorch rounds to 16 bits after each step.
KERNEL = {torch.float32: (1e-5, 1e-5), torch.float16: (1e-2, 1e-3), torch.bfloat16: (5e-2, 1e-2)}


def computed(call: Callable[[list[Tensor]], Any], case: Case) -> tuple[list[Tensor], list[Tensor | None]]:
    """Results, and gradients of the sum of each times a random tensor."""
    leaves = [_leaf(t) for t in case.inputs]
    torch.manual_seed(SEED)
    results = tensors(call(leaves))
    generator = torch.Generator().manual_seed(SEED)
    roots, given = [], []
    for result in results:
        cotangent = torch.randn(result.shape, generator=generator, dtype=torch.float64)
        if result.requires_grad:
            roots.append(result)
            given.append(cotangent.to(result.dtype))
    wanted = [t for t in leaves if t.requires_grad]
    gradients: Sequence[Tensor | None] = [None] * len(wanted)
    if roots and wanted:
        gradients = torch.autograd.grad(roots, wanted, given, allow_unused=True)
    return [r.detach() for r in results], list(gradients)


def _leaf(t: Tensor) -> Tensor:
    """Its own to change in place where it has no gradient, as running averages are."""
    return t.detach().requires_grad_() if t.requires_grad else t.detach().clone()


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return []


def disagreement(case: Case, model: Any, how: str) -> str:
    """What differs between a module and PyTorch's operator; empty where nothing does."""
    try:
        model.train(case.training)
        results, gradients = computed(lambda leaves: model(*leaves), case)
    except Exception as error:
        return f"{how}: {type(error).__name__}: {str(error)[-300:]}"
    for what, found, wanted in (("result", results, case.expected), ("gradient", gradients, case.gradients)):
        if len(found) != len(wanted):
            return f"{how}: {len(found)} {what}s, not {len(wanted)}"
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            told = _difference(a, b, how)
            if told:
                return f"{how}: {what} {number}: {told}"
    return ""


def _difference(found: Tensor | None, wanted: Tensor | None, how: str) -> str:
    """A gradient that is none is one of zeros."""
    if found is None and wanted is None:
        return ""
    found = torch.zeros_like(wanted) if found is None else found
    wanted = torch.zeros_like(found) if wanted is None else wanted
    rtol, atol = KERNEL.get(wanted.dtype, (None, None)) if how == "kernel" else (None, None)
    try:
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol, equal_nan=True)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""
