"""Row 10: causal attention by each of the back ends that PyTorch chooses from, and by FlexAttention."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.problem import Function, Problem
from benchmarks.programs import emitted

BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "FlashAttention": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def causal(bench: Bench, batch: int, heads: int, length: int, dim: int) -> Problem:
    """Forward and backward. No floor: how much the backward computes again is the algorithm's choice."""
    batch, heads = bench.size(batch, 2), bench.size(heads, 2)
    length, dim = bench.size(length, 16), bench.size(dim, 8)
    shape = (batch, length, heads, dim)
    # As projections leave them: heads beside one another.
    tensors = {
        name: torch.randn(shape, device=bench.device).to(bench.dtype).transpose(1, 2).requires_grad_()
        for name in ("q", "k", "v")
    }
    return Problem(
        f"causal attention, forward and backward, {(batch, heads, length, dim)}",
        tensors,
        _default,
        lambda: emitted("attention", bench).module("Causal", bench),
        {**_backends(), "FlexAttention": lambda: _flex(bench, length)},
        rows=tuple(tensors),
        pieces=bench.size(max(1, batch * heads * length**2 >> 28), 2),
    )


def _default(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _backends() -> Mapping[str, Callable[[], Function]]:
    def by(backend: SDPBackend) -> Function:
        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return _default(q, k, v)

        return attention

    return {name: lambda backend=backend: by(backend) for name, backend in BACKENDS.items()}


def _flex(bench: Bench, length: int) -> Function:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, length, length, device=bench.device.type)
    return peers.compiled(lambda q, k, v: flex_attention(q, k, v, block_mask=mask), bench)
