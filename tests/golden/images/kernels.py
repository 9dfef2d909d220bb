"""Fused kernels of images.model, written by tdsl 0.1.0.

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

# affine: images.model:13
#     forward(x: float[B, channels, H, W]) -> float[B, channels, H, W] { return x * gamma + beta }
# Moves 16 bytes (f32) an element forward, 20 backward.


def affine_reference(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return x * gamma + beta


@triton.jit
def _affine_forward(x_ptr, gamma_ptr, beta_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = x * gamma + beta
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _affine_backward(x_ptr, gamma_ptr, d_y_ptr, d_x_ptr, d_gamma_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_x = d_y * gamma
    d_gamma = d_y * x
    tl.store(d_x_ptr + offsets, d_x, mask=mask)
    tl.store(d_gamma_ptr + offsets, d_gamma, mask=mask)


@launch.falls_back_to(affine_reference)
class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta):
        shape = x.shape
        ctx.gamma_shape = gamma.shape
        ctx.beta_shape = beta.shape
        gamma = gamma.expand(shape)
        beta = beta.expand(shape)
        x, gamma, beta = x.contiguous(), gamma.contiguous(), beta.contiguous()
        y = torch.empty_like(x)
        n = shape.numel()
        if n:
            tile = launch.flat_tile()
            _affine_forward[(triton.cdiv(n, tile.cols),)](x, gamma, beta, y, n, BLOCK=tile.cols, num_warps=tile.warps)
        ctx.save_for_backward(x, gamma)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, gamma = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        d_x = d_y.new_empty(shape)
        d_gamma = d_y.new_empty(shape)
        n = shape.numel()
        if n:
            tile = launch.flat_tile()
            _affine_backward[(triton.cdiv(n, tile.cols),)](
                x,
                gamma,
                d_y,
                d_x,
                d_gamma,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_x, d_gamma.sum_to_size(ctx.gamma_shape), d_y.sum_to_size(ctx.beta_shape)


def affine(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    if launch.use_kernels(x, gamma, beta):
        return _Affine.apply(x, gamma, beta)
    return affine_reference(x, gamma, beta)


# affine_add_relu: images.model:13, images.model:6
#     forward(x: float[B, channels, H, W]) -> float[B, channels, H, W] { return x * gamma + beta }
#     return relu(x + scale(conv2(relu(conv1(x)))))
# Moves 20 bytes (f32) an element forward, 32 backward.


def affine_add_relu_reference(x: Tensor, x_2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.relu(x + (x_2 * gamma + beta))


@triton.jit
def _affine_add_relu_forward(x_ptr, x_2_ptr, gamma_ptr, beta_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    sum = x + (x_2 * gamma + beta)
    y = tl.where(sum <= 0.0, 0.0, sum)
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _affine_add_relu_backward(
    x_ptr,
    x_2_ptr,
    gamma_ptr,
    beta_ptr,
    d_y_ptr,
    d_x_ptr,
    d_x_2_ptr,
    d_gamma_ptr,
    n,
    BLOCK: tl.constexpr,
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_x = tl.where(x + (x_2 * gamma + beta) <= 0.0, 0.0, d_y)
    d_x_2 = d_x * gamma
    d_gamma = d_x * x_2
    tl.store(d_x_ptr + offsets, d_x, mask=mask)
    tl.store(d_x_2_ptr + offsets, d_x_2, mask=mask)
    tl.store(d_gamma_ptr + offsets, d_gamma, mask=mask)


@launch.falls_back_to(affine_add_relu_reference)
class _AffineAddRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, x_2, gamma, beta):
        shape = x.shape
        ctx.gamma_shape = gamma.shape
        ctx.beta_shape = beta.shape
        gamma = gamma.expand(shape)
        beta = beta.expand(shape)
        x, x_2, gamma, beta = x.contiguous(), x_2.contiguous(), gamma.contiguous(), beta.contiguous()
        y = torch.empty_like(x)
        n = shape.numel()
        if n:
            tile = launch.flat_tile()
            _affine_add_relu_forward[(triton.cdiv(n, tile.cols),)](
                x,
                x_2,
                gamma,
                beta,
                y,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x, x_2, gamma, beta)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, x_2, gamma, beta = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        d_x = d_y.new_empty(shape)
        d_x_2 = d_y.new_empty(shape)
        d_gamma = d_y.new_empty(shape)
        n = shape.numel()
        if n:
            tile = launch.flat_tile()
            _affine_add_relu_backward[(triton.cdiv(n, tile.cols),)](
                x,
                x_2,
                gamma,
                beta,
                d_y,
                d_x,
                d_x_2,
                d_gamma,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_x, d_x_2, d_gamma.sum_to_size(ctx.gamma_shape), d_x.sum_to_size(ctx.beta_shape)


def affine_add_relu(x: Tensor, x_2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    if launch.use_kernels(x, x_2, gamma, beta):
        return _AffineAddRelu.apply(x, x_2, gamma, beta)
    return affine_add_relu_reference(x, x_2, gamma, beta)
