"""Fused kernels of gaussian.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsl.runtime import launch, random
from tdsl.runtime import triton_math as tm

# exp_randn_like_add: gaussian.model:6
#     return mu + exp(0.5 * logvar(x)) * randn_like(mu)
# Moves 12 bytes (f32) an element forward, 12 backward.


def exp_randn_like_add_reference(mu: Tensor, logvar: Tensor, seed: int) -> Tensor:
    return mu + torch.exp(0.5 * logvar) * random.randn_like(mu, seed)


@triton.jit
def _exp_randn_like_add_forward(mu_ptr, logvar_ptr, y_ptr, n, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    mu = tl.load(mu_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    logvar = tl.load(logvar_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = mu + tl.exp(0.5 * logvar) * tm.gaussian(seed, offsets)
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _exp_randn_like_add_backward(logvar_ptr, d_y_ptr, d_logvar_ptr, n, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    logvar = tl.load(logvar_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_logvar = d_y * tm.gaussian(seed, offsets) * tl.exp(0.5 * logvar) * 0.5
    tl.store(d_logvar_ptr + offsets, d_logvar, mask=mask)


@launch.falls_back_to(exp_randn_like_add_reference)
class _ExpRandnLikeAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mu, logvar, seed):
        shape = mu.shape
        mu, logvar = mu.contiguous(), logvar.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        y = torch.empty_like(mu)
        if n:
            _exp_randn_like_add_forward[(triton.cdiv(n, tile.cols),)](
                mu,
                logvar,
                y,
                n,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(logvar)
        ctx.shape = shape
        ctx.seed = seed
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (logvar,) = ctx.saved_tensors
        seed = ctx.seed
        shape = ctx.shape
        d_y = d_y.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        d_logvar = torch.empty_like(logvar)
        if n:
            _exp_randn_like_add_backward[(triton.cdiv(n, tile.cols),)](
                logvar,
                d_y,
                d_logvar,
                n,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_y, d_logvar, None


def exp_randn_like_add(mu: Tensor, logvar: Tensor) -> Tensor:
    seed = random.next_seed()
    if launch.use_kernels(mu, logvar):
        return _ExpRandnLikeAdd.apply(mu, logvar, seed)
    return exp_randn_like_add_reference(mu, logvar, seed)
