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


def gelu_dropout_reference(up: Tensor, p: float, seed: int) -> Tensor:
    return random.dropout(F.gelu(up), p, seed)


@triton.jit
def _gelu_dropout_forward(up_ptr, y_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    up = tl.load(up_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    draw = tm.uniform(seed, tl.program_id(0).to(tl.int64) * BLOCK, BLOCK)
    y = 0.5 * up * (1.0 + tl.erf(up * 0.7071067811865476)) / tl.where(draw >= p, 1.0 - p, float("inf"))
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _gelu_dropout_backward(up_ptr, d_y_ptr, d_up_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    up = tl.load(up_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    product = up * 0.7071067811865476
    draw = tm.uniform(seed, tl.program_id(0).to(tl.int64) * BLOCK, BLOCK)
    d_product = d_y / tl.where(draw >= p, 1.0 - p, float("inf"))
    d_product_2 = d_product * (0.5 * up) * 1.1283791670955126 * tl.exp(-product * product)
    d_up = d_product_2 * 0.7071067811865476 + d_product * (1.0 + tl.erf(product)) * 0.5
    tl.store(d_up_ptr + offsets, d_up, mask=mask)


@launch.falls_back_to(gelu_dropout_reference)
class _GeluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, up, p, seed):
        shape = up.shape
        up = up.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        y = torch.empty_like(up)
        if n:
            _gelu_dropout_forward[(triton.cdiv(n, tile.cols),)](
                up,
                y,
                n,
                p,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(up)
        ctx.shape = shape
        ctx.p = p
        ctx.seed = seed
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (up,) = ctx.saved_tensors
        p = ctx.p
        seed = ctx.seed
        shape = ctx.shape
        d_y = d_y.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        d_up = torch.empty_like(up)
        if n:
            _gelu_dropout_backward[(triton.cdiv(n, tile.cols),)](
                up,
                d_y,
                d_up,
                n,
                p,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_up, None, None


def gelu_dropout(up: Tensor, p: float) -> Tensor:
    seed = random.next_seed()
    if launch.use_kernels(up):
        return _GeluDropout.apply(up, p, seed)
    return gelu_dropout_reference(up, p, seed)
