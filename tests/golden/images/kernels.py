"""Fused kernels of images.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsl.runtime import launch

# affine: images.model:13
#     forward(x: float[B, channels, H, W]) -> float[B, channels, H, W] { return x * gamma + beta }
# Moves 8 bytes (f32) an element forward, 12 backward.


def affine_reference(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return x * gamma + beta


@triton.jit
def _affine_forward(
    x_ptr,
    gamma_ptr,
    beta_ptr,
    y_ptr,
    n_rows,
    gamma_count,
    beta_count,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
    col_mask = cols < N_COLS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    mask = row_mask & col_mask
    offsets = rows * N_COLS + cols
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + rows % gamma_count, mask=row_mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + rows % beta_count, mask=row_mask, other=0.0).to(tl.float32)
    y = x * gamma + beta
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _affine_backward(
    x_ptr,
    gamma_ptr,
    d_y_ptr,
    d_x_ptr,
    d_gamma_ptr,
    d_beta_ptr,
    n_rows,
    gamma_count,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    gamma = tl.load(gamma_ptr + rows % gamma_count, mask=row_mask, other=0.0).to(tl.float32)
    d_beta = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    d_gamma = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_x = d_y * gamma
        tl.store(d_x_ptr + offsets, d_x, mask=mask)
        d_beta = d_beta + tl.where(mask, d_y, 0.0)
        d_gamma = d_gamma + tl.where(mask, d_y * x, 0.0)
    d_beta = tl.sum(d_beta, axis=1, keep_dims=True)
    d_gamma = tl.sum(d_gamma, axis=1, keep_dims=True)
    tl.store(d_gamma_ptr + rows, d_gamma, mask=row_mask)
    tl.store(d_beta_ptr + rows, d_beta, mask=row_mask)


@launch.falls_back_to(affine_reference)
class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta):
        shape = x.shape
        ctx.gamma_shape = gamma.shape
        ctx.beta_shape = beta.shape
        x, gamma, beta = x.contiguous(), gamma.contiguous(), beta.contiguous()
        n_cols = math.prod(shape[-2:])
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.column_tile(n_cols)
        y = torch.empty_like(x)
        if shape.numel():
            _affine_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                x,
                gamma,
                beta,
                y,
                n_rows,
                shape[-3],
                shape[-3],
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x, gamma)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, gamma = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = math.prod(shape[-2:])
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=4, longest=launch.CHUNK)
        d_x = torch.empty_like(x)
        d_gamma = d_y.new_empty(n_rows, dtype=torch.float32)
        d_beta = d_y.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _affine_backward[(triton.cdiv(n_rows, tile.rows),)](
                x,
                gamma,
                d_y,
                d_x,
                d_gamma,
                d_beta,
                n_rows,
                shape[-3],
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return (
            d_x,
            d_gamma.view((*shape[:-2], 1, 1)).sum_to_size(ctx.gamma_shape).to(d_y.dtype),
            d_beta.view((*shape[:-2], 1, 1)).sum_to_size(ctx.beta_shape).to(d_y.dtype),
        )


def affine(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    if launch.use_kernels(x, gamma, beta):
        return _Affine.apply(x, gamma, beta)
    return affine_reference(x, gamma, beta)


# affine_add_relu: images.model:13, images.model:6
#     forward(x: float[B, channels, H, W]) -> float[B, channels, H, W] { return x * gamma + beta }
#     return relu(x + scale(conv2(relu(conv1(x)))))
# Moves 12 bytes (f32) an element forward, 20 backward.


def affine_add_relu_reference(x: Tensor, conv2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.relu(x + (conv2 * gamma + beta))


@triton.jit
def _affine_add_relu_forward(
    x_ptr,
    conv2_ptr,
    gamma_ptr,
    beta_ptr,
    y_ptr,
    n_rows,
    gamma_count,
    beta_count,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
    col_mask = cols < N_COLS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    mask = row_mask & col_mask
    offsets = rows * N_COLS + cols
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    conv2 = tl.load(conv2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + rows % gamma_count, mask=row_mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + rows % beta_count, mask=row_mask, other=0.0).to(tl.float32)
    sum = x + (conv2 * gamma + beta)
    y = tl.where(sum <= 0.0, 0.0, sum)
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _affine_add_relu_backward(
    x_ptr,
    conv2_ptr,
    gamma_ptr,
    beta_ptr,
    d_y_ptr,
    d_x_ptr,
    d_conv2_ptr,
    d_gamma_ptr,
    d_beta_ptr,
    n_rows,
    gamma_count,
    beta_count,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    gamma = tl.load(gamma_ptr + rows % gamma_count, mask=row_mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + rows % beta_count, mask=row_mask, other=0.0).to(tl.float32)
    d_beta = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    d_gamma = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        conv2 = tl.load(conv2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_x = tl.where(x + (conv2 * gamma + beta) <= 0.0, 0.0, d_y)
        d_conv2 = d_x * gamma
        tl.store(d_x_ptr + offsets, d_x, mask=mask)
        tl.store(d_conv2_ptr + offsets, d_conv2, mask=mask)
        d_beta = d_beta + tl.where(mask, d_x, 0.0)
        d_gamma = d_gamma + tl.where(mask, d_x * conv2, 0.0)
    d_beta = tl.sum(d_beta, axis=1, keep_dims=True)
    d_gamma = tl.sum(d_gamma, axis=1, keep_dims=True)
    tl.store(d_gamma_ptr + rows, d_gamma, mask=row_mask)
    tl.store(d_beta_ptr + rows, d_beta, mask=row_mask)


@launch.falls_back_to(affine_add_relu_reference)
class _AffineAddRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, conv2, gamma, beta):
        shape = x.shape
        ctx.gamma_shape = gamma.shape
        ctx.beta_shape = beta.shape
        x, conv2, gamma, beta = x.contiguous(), conv2.contiguous(), gamma.contiguous(), beta.contiguous()
        n_cols = math.prod(shape[-2:])
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.column_tile(n_cols)
        y = torch.empty_like(x)
        if shape.numel():
            _affine_add_relu_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                x,
                conv2,
                gamma,
                beta,
                y,
                n_rows,
                shape[-3],
                shape[-3],
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x, conv2, gamma, beta)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, conv2, gamma, beta = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = math.prod(shape[-2:])
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=5, longest=launch.CHUNK)
        d_x = torch.empty_like(x)
        d_conv2 = torch.empty_like(x)
        d_gamma = d_y.new_empty(n_rows, dtype=torch.float32)
        d_beta = d_y.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _affine_add_relu_backward[(triton.cdiv(n_rows, tile.rows),)](
                x,
                conv2,
                gamma,
                beta,
                d_y,
                d_x,
                d_conv2,
                d_gamma,
                d_beta,
                n_rows,
                shape[-3],
                shape[-3],
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return (
            d_x,
            d_conv2,
            d_gamma.view((*shape[:-2], 1, 1)).sum_to_size(ctx.gamma_shape).to(d_y.dtype),
            d_beta.view((*shape[:-2], 1, 1)).sum_to_size(ctx.beta_shape).to(d_y.dtype),
        )


def affine_add_relu(x: Tensor, conv2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    if launch.use_kernels(x, conv2, gamma, beta):
        return _AffineAddRelu.apply(x, conv2, gamma, beta)
    return affine_add_relu_reference(x, conv2, gamma, beta)
