"""Rows 5 and 6: what stands between two parts of a transformer's block."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.bench import Bench, Floor
from benchmarks.problem import Function, Problem, Results
from benchmarks.programs import emitted, with_parameters

EPS = 1e-6
P = 0.1


def add_rms_norm(bench: Bench, n: int, dim: int) -> Problem:
    """Row 5. Forward x and a are read, h and y written; backward h and both gradients are read, one is written."""
    n, dim = bench.size(n, 24), bench.size(dim, 48)
    x, a = _inputs(bench, n, dim)
    weight = nn.Parameter(torch.rand(dim, device=bench.device).to(bench.dtype) + 0.5)

    def eager(x: Tensor, a: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        h = x + a
        return h, F.rms_norm(h, (h.shape[-1],), weight, EPS)

    def ours() -> Function:
        module = emitted("add_rms_norm", bench).module("AddRMSNorm", bench, dim)
        with_parameters(module, norm__weight=weight)
        return lambda x, a, weight: module(x, a)

    def liger() -> Function:
        function = peers.liger("liger_fused_add_rms_norm")
        return lambda x, a, weight: function(x, a, weight, EPS, in_place=False)[::-1]

    return Problem(
        f"add and RMSNorm, forward and backward, {n} x {dim}",
        {"x": x, "a": a, "weight": weight},
        eager,
        ours,
        {**peers.compiling(eager, bench), "Liger": liger},
        Floor(bytes=8 * x.nbytes),
    )


def dropout_add_layer_norm(bench: Bench, n: int, dim: int) -> Problem:
    """Row 6. As row 5, with a second gradient written; the mask is drawn again, not kept."""
    n, dim = bench.size(n, 96), bench.size(dim, 48)
    x, a = _inputs(bench, n, dim)
    weight = nn.Parameter(torch.rand(dim, device=bench.device).to(bench.dtype) + 0.5)
    bias = nn.Parameter(torch.randn(dim, device=bench.device).to(bench.dtype))

    def eager(x: Tensor, a: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        h = x + F.dropout(a, P)
        return h, F.layer_norm(h, (h.shape[-1],), weight, bias)

    def ours() -> Function:
        module = emitted("dropout_add_layer_norm", bench).module("DropoutAddLayerNorm", bench, dim)
        with_parameters(module, norm__weight=weight, norm__bias=bias)
        return lambda x, a, weight, bias: module(x, a)

    return Problem(
        f"dropout, add and LayerNorm, forward and backward, {n} x {dim}",
        {"x": x, "a": a, "weight": weight, "bias": bias},
        eager,
        ours,
        peers.compiling(eager, bench),
        Floor(bytes=9 * x.nbytes),
        reference=partial(_with_its_own_mask, x),
    )


def _inputs(bench: Bench, n: int, dim: int) -> tuple[Tensor, Tensor]:
    x, a = (torch.randn(n, dim, device=bench.device).to(bench.dtype).requires_grad_() for _ in range(2))
    return x, a


def _with_its_own_mask(x: Tensor, found: Results) -> Function:
    """The same with what a candidate has kept: where `a` has a gradient. Raises where that is not the share asked for.

    In a low precision one gradient in a thousand of plain PyTorch's is 0 by chance: what has changed `x` is kept, too.
    That the forward has kept the same as the backward is seen in the results.
    """
    kept = (found.grads[1] != 0) | (found.outputs[0] != x)
    share, sigma = kept.double().mean().item(), (P * (1 - P) / kept.numel()) ** 0.5
    if abs(share - (1 - P)) > 6 * sigma:
        raise ValueError(f"kept {share:.5f} of {kept.numel()} instead of {1 - P}")

    def exact(x: Tensor, a: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        h = x + a * kept / (1 - P)
        return h, F.layer_norm(h, (h.shape[-1],), weight, bias)

    return exact
