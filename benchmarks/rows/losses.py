"""Rows 1 to 4: cross-entropy over a vocabulary, of logits that are there and of logits that need never be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.bench import Bench, Floor
from benchmarks.problem import Function, Problem
from benchmarks.programs import emitted, with_parameters


def cross_entropy(bench: Bench, n: int, vocab: int) -> Problem:
    """Rows 1 and 2. Each logit is read once, and its gradient written once."""
    n, vocab = bench.size(n, 12), bench.size(vocab, 70)
    logits = torch.randn(n, vocab, device=bench.device).to(bench.dtype).requires_grad_()
    labels = torch.randint(0, vocab, (n,), device=bench.device)
    return Problem(
        f"cross-entropy, forward and backward, {n} x {vocab}",
        {"logits": logits, "labels": labels},
        F.cross_entropy,
        lambda: emitted("cross_entropy", bench).module("CrossEntropy", bench),
        {
            **peers.compiling(F.cross_entropy, bench),
            "Liger": lambda: peers.liger("liger_cross_entropy"),
        },
        Floor(bytes=2 * logits.nbytes),
        in_place=True,
        rows=("logits", "labels"),
        pieces=bench.size(4, 2),
    )


def linear_cross_entropy(bench: Bench, n: int, dim: int, vocab: int) -> Problem:
    """Rows 3 and 4. Three products: the logits, the gradient of x, that of the weight."""
    n, dim, vocab = bench.size(n, 12), bench.size(dim, 16), bench.size(vocab, 70)
    x = torch.randn(n, dim, device=bench.device).to(bench.dtype).requires_grad_()
    weight = nn.Parameter((torch.randn(vocab, dim, device=bench.device) * dim**-0.5).to(bench.dtype))
    labels = torch.randint(0, vocab, (n,), device=bench.device)

    def eager(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, weight), labels)

    def ours() -> Function:
        module = emitted("linear_cross_entropy", bench).module("Head", bench, dim, vocab)
        with_parameters(module, head__weight=weight)
        return lambda x, weight, labels: module(x, labels)

    return Problem(
        f"linear and cross-entropy, M {n}, H {dim}, V {vocab}",
        {"x": x, "weight": weight, "labels": labels},
        eager,
        ours,
        {
            **peers.compiling(eager, bench, tuned=False),
            "Liger": lambda: peers.liger("liger_fused_linear_cross_entropy"),
            "cut-cross-entropy": peers.cut_cross_entropy,
        },
        Floor(flops=6 * n * dim * vocab),
        rows=("x", "labels"),
        pieces=bench.size(max(1, n * vocab >> 28), 2),
    )
