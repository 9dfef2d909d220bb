"""Rows 7, 8 and 11: what is computed element by element, alone and after a product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.bench import Bench, Floor
from benchmarks.problem import Function, Problem
from benchmarks.programs import emitted, with_parameters

BASE = 10000.0


def swiglu(bench: Bench, n: int, dim: int) -> Problem:
    """Row 7. Forward two are read and one written; backward three are read and two written."""
    n, dim = bench.size(n, 24), bench.size(dim, 56)
    gate, up = (torch.randn(n, dim, device=bench.device).to(bench.dtype).requires_grad_() for _ in range(2))

    def eager(gate: Tensor, up: Tensor) -> Tensor:
        return F.silu(gate) * up

    return Problem(
        f"SwiGLU's pointwise part, forward and backward, {n} x {dim}",
        {"gate": gate, "up": up},
        eager,
        lambda: emitted("swiglu", bench).module("SwiGLU", bench),
        {**peers.compiling(eager, bench), "Liger": lambda: peers.liger("liger_swiglu")},
        Floor(bytes=8 * gate.nbytes),
        in_place=True,
    )


def rope(bench: Bench, batch: int, length: int, heads: int, groups: int, dim: int) -> Problem:
    """Row 8. Queries and keys are read and written, and so are their gradients.

    They lie as a projection leaves them, heads beside one another, and their gradients as FlashAttention leaves them.
    PyTorch and Liger are given tables of cosines and sines, which the model has made once.
    """
    batch, length = bench.size(batch, 2), bench.size(length, 24)
    heads, groups, dim = bench.size(heads, 4), bench.size(groups, 2), bench.size(dim, 8)
    q, k = (
        torch.randn(batch, length, each, dim, device=bench.device).to(bench.dtype).requires_grad_()
        for each in (heads, groups)
    )
    rates = BASE ** (-torch.arange(0, dim, 2, device=bench.device).double() / dim)
    angles = torch.outer(torch.arange(length, device=bench.device).double(), rates).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    tables = {dtype: (cos.to(dtype), sin.to(dtype)) for dtype in (bench.dtype, torch.float64)}

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        cos, sin = tables[x.dtype]
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def eager(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return turned(q.transpose(1, 2)), turned(k.transpose(1, 2))

    def liger() -> Function:
        function = peers.liger("liger_rope")
        cos, sin = tables[bench.dtype]
        return lambda q, k: function(q.transpose(1, 2), k.transpose(1, 2), cos, sin)

    return Problem(
        f"rope, forward and backward, B{batch} S{length} H{heads}/{groups} D{dim}",
        {"q": q, "k": k},
        eager,
        lambda: emitted("rope", bench).module("Rotate", bench, heads, groups, dim),
        {**peers.compiling(eager, bench), "Liger": liger},
        Floor(bytes=4 * (q.nbytes + k.nbytes)),
        grads=[torch.randn_like(each).transpose(1, 2) for each in (q, k)],
        in_place=True,
    )


def linear_gelu(bench: Bench, n: int, dim: int, hidden: int, backward: bool) -> Problem:
    """Row 11. One product forward, three with the backward."""
    n, dim, hidden = bench.size(n, 24), bench.size(dim, 16), bench.size(hidden, 32)
    x = torch.randn(n, dim, device=bench.device).to(bench.dtype)
    weight = nn.Parameter((torch.randn(hidden, dim, device=bench.device) * dim**-0.5).to(bench.dtype))
    bias = nn.Parameter(torch.randn(hidden, device=bench.device).to(bench.dtype))
    for each in (x, weight, bias):
        each.requires_grad_(backward)

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.gelu(F.linear(x, weight, bias), approximate="tanh")

    def ours() -> Function:
        module = emitted("linear_gelu", bench).module("Up", bench, dim, hidden)
        with_parameters(module, up__weight=weight, up__bias=bias)
        return lambda x, weight, bias: module(x)

    def epilogue() -> Function:
        return lambda x, weight, bias: torch._addmm_activation(bias, x, weight.t(), use_gelu=True)

    peer = peers.compiling(eager, bench, tuned=False)
    return Problem(
        f"linear, bias and GELU, {'forward and backward' if backward else 'forward'}, {n}, {dim} to {hidden}",
        {"x": x, "weight": weight, "bias": bias},
        eager,
        ours,
        peer if backward else {**peer, "cuBLAS epilogue": epilogue},
        Floor(flops=(6 if backward else 2) * n * dim * hidden),
    )
