"""Fused kernels of dropout.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsl.runtime import launch, random
from tdsl.runtime import triton_math as tm

# gelu_dropout: dropout.model:5
#     forward(x: float[B, 16]) -> float[B, 3] { return down(drop(gelu(up(x)))) }
# Moves 8 bytes (f32) an element forward, 12 backward.


def gelu_dropout_reference(x: Tensor, p: float, seed: int) -> Tensor:
    return random.dropout(F.gelu(x), p, seed)


@triton.jit
def _gelu_dropout_forward(x_ptr, y_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    chosen = tl.where(tm.uniform(seed, offsets) >= p, 1.0 - p, float("inf"))
    y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476)) / chosen
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _gelu_dropout_backward(x_ptr, d_y_ptr, d_x_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    product = x * 0.7071067811865476
    chosen = tl.where(tm.uniform(seed, offsets) >= p, 1.0 - p, float("inf"))
    quotient = d_y / chosen
    product_2 = quotient * (0.5 * x) * 1.1283791670955126 * tl.exp(-product * product)
    d_x = product_2 * 0.7071067811865476 + quotient * (1.0 + tl.erf(product)) * 0.5
    tl.store(d_x_ptr + offsets, d_x, mask=mask)


@launch.falls_back_to(gelu_dropout_reference)
class _GeluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p, seed):
        shape = x.shape
        x = x.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        y = torch.empty_like(x)
        if n:
            _gelu_dropout_forward[(triton.cdiv(n, tile.cols),)](x, y, n, p, seed, BLOCK=tile.cols, num_warps=tile.warps)
        ctx.save_for_backward(x)
        ctx.shape = shape
        ctx.p = p
        ctx.seed = seed
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (x,) = ctx.saved_tensors
        p = ctx.p
        seed = ctx.seed
        shape = ctx.shape
        d_y = d_y.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        d_x = torch.empty_like(x)
        if n:
            _gelu_dropout_backward[(triton.cdiv(n, tile.cols),)](
                x,
                d_y,
                d_x,
                n,
                p,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_x, None, None


def gelu_dropout(x: Tensor, p: float) -> Tensor:
    seed = random.next_seed()
    if launch.use_kernels(x):
        return _GeluDropout.apply(x, p, seed)
    return gelu_dropout_reference(x, p, seed)
