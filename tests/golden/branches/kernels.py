"""Fused kernels of branches.model, written by tdsl 0.1.0.

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

from tdsl.runtime import launch

# silu_add: branches.model:7
#     h = h + silu(step(h))
# Moves 12 bytes (f32) an element forward, 12 backward.


def silu_add_reference(x: Tensor, x_2: Tensor) -> Tensor:
    return x + F.silu(x_2)


@triton.jit
def _silu_add_forward(x_ptr, x_2_ptr, h_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h = x + x_2 * tl.sigmoid(x_2)
    tl.store(h_ptr + offsets, h, mask=mask)


@triton.jit
def _silu_add_backward(x_2_ptr, d_h_ptr, d_x_2_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_h = tl.load(d_h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(x_2)
    d_x_2 = d_h * sigmoid + d_h * x_2 * sigmoid * (1.0 - sigmoid)
    tl.store(d_x_2_ptr + offsets, d_x_2, mask=mask)


@launch.falls_back_to(silu_add_reference)
class _SiluAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, x_2):
        shape = x.shape
        x, x_2 = launch.alike(x, x_2)
        n = shape.numel()
        tile = launch.flat_tile()
        h = torch.empty_like(x)
        if n:
            _silu_add_forward[(triton.cdiv(n, tile.cols),)](x, x_2, h, n, BLOCK=tile.cols, num_warps=tile.warps)
        ctx.save_for_backward(x_2)
        ctx.shape = shape
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, d_h):
        (x_2,) = ctx.saved_tensors
        shape = ctx.shape
        x_2, d_h = launch.alike(x_2, d_h)
        n = shape.numel()
        tile = launch.flat_tile()
        d_x_2 = torch.empty_like(x_2)
        if n:
            _silu_add_backward[(triton.cdiv(n, tile.cols),)](x_2, d_h, d_x_2, n, BLOCK=tile.cols, num_warps=tile.warps)
        return d_h, d_x_2


def silu_add(x: Tensor, x_2: Tensor) -> Tensor:
    if launch.use_kernels(x, x_2):
        return _SiluAdd.apply(x, x_2)
    return silu_add_reference(x, x_2)


# silu_add_sigmoid: branches.model:7, branches.model:10
#     h = h + silu(step(h))
#     h = h * sigmoid(gate(x))
# Moves 16 bytes (f32) an element forward, 28 backward.


def silu_add_sigmoid_reference(h: Tensor, x: Tensor, x_2: Tensor) -> Tensor:
    h = h + F.silu(x)
    return h * torch.sigmoid(x_2)


@triton.jit
def _silu_add_sigmoid_forward(h_ptr, x_ptr, x_2_ptr, h_2_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h_2 = h + x * tl.sigmoid(x)
    h_3 = h_2 * tl.sigmoid(x_2)
    tl.store(h_2_ptr + offsets, h_3, mask=mask)


@triton.jit
def _silu_add_sigmoid_backward(h_ptr, x_ptr, x_2_ptr, d_h_2_ptr, d_h_ptr, d_x_ptr, d_x_2_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_h_2 = tl.load(d_h_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(x)
    h_2 = h + x * sigmoid
    sigmoid_2 = tl.sigmoid(x_2)
    d_h = d_h_2 * sigmoid_2
    d_x_2 = d_h_2 * h_2 * sigmoid_2 * (1.0 - sigmoid_2)
    d_x = d_h * sigmoid + d_h * x * sigmoid * (1.0 - sigmoid)
    tl.store(d_h_ptr + offsets, d_h, mask=mask)
    tl.store(d_x_ptr + offsets, d_x, mask=mask)
    tl.store(d_x_2_ptr + offsets, d_x_2, mask=mask)


@launch.falls_back_to(silu_add_sigmoid_reference)
class _SiluAddSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, x, x_2):
        shape = h.shape
        h, x, x_2 = launch.alike(h, x, x_2)
        n = shape.numel()
        tile = launch.flat_tile()
        h_2 = torch.empty_like(h)
        if n:
            _silu_add_sigmoid_forward[(triton.cdiv(n, tile.cols),)](
                h,
                x,
                x_2,
                h_2,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(h, x, x_2)
        ctx.shape = shape
        return h_2

    @staticmethod
    @once_differentiable
    def backward(ctx, d_h_2):
        h, x, x_2 = ctx.saved_tensors
        shape = ctx.shape
        h, x, x_2, d_h_2 = launch.alike(h, x, x_2, d_h_2)
        n = shape.numel()
        tile = launch.flat_tile()
        d_h = torch.empty_like(h)
        d_x = torch.empty_like(h)
        d_x_2 = torch.empty_like(h)
        if n:
            _silu_add_sigmoid_backward[(triton.cdiv(n, tile.cols),)](
                h,
                x,
                x_2,
                d_h_2,
                d_h,
                d_x,
                d_x_2,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_h, d_x, d_x_2


def silu_add_sigmoid(h: Tensor, x: Tensor, x_2: Tensor) -> Tensor:
    if launch.use_kernels(h, x, x_2):
        return _SiluAddSigmoid.apply(h, x, x_2)
    return silu_add_sigmoid_reference(h, x, x_2)
