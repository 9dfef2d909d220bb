"""Who else computes a row: `torch.compile`, and kernels of other projects where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.bench import Bench

COMPILED, TUNED = "torch.compile", "torch.compile, max-autotune"


def compiled(function: Callable[..., Any], bench: Bench, mode: str = "default") -> Callable[..., Any]:
    """By Inductor for the sizes at hand; on a dry run what comes before Inductor alone, which takes a tenth as long."""
    if bench.dry:
        return torch.compile(function, backend="aot_eager", dynamic=False)
    return torch.compile(function, mode=mode, dynamic=False)


def compiling(
    function: Callable[..., Any], bench: Bench, tuned: bool = True
) -> Mapping[str, Callable[[], Callable[..., Any]]]:
    """Plain PyTorch compiled, in the default mode and, where that is quick enough, tuned."""
    found = {COMPILED: lambda: compiled(function, bench)}
    if tuned:
        found[TUNED] = lambda: compiled(function, bench, "max-autotune-no-cudagraphs")
    return found


def liger(name: str) -> Callable[..., Any]:
    """A function of Liger-Kernel (https://github.com/linkedin/Liger-Kernel); raises where that is not installed."""
    from liger_kernel.transformers import functional

    found: Callable[..., Any] = getattr(functional, name)
    return found


def cut_cross_entropy() -> Callable[..., Any]:
    """Cut cross-entropy (https://github.com/apple/ml-cross-entropy) without its gradient filter: all gradients."""
    from cut_cross_entropy import linear_cross_entropy

    return lambda x, weight, labels: linear_cross_entropy(x, weight, labels, filter_eps=None)
