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

# exp_randn_like_add: gaussian.model:5, gaussian.model:6
#     mu = mean(x)
#     return mu + exp(0.5 * logvar(x)) * randn_like(mu)
# Moves 12 bytes (f32) an element forward, 16 backward.


def exp_randn_like_add_reference(x: Tensor, seed: int) -> Tensor:
    mu, logvar = x.chunk(2, dim=-1)
    return mu + torch.exp(0.5 * logvar) * random.randn_like(mu, seed)


@triton.jit
def _exp_randn_like_add_forward(
    mu_ptr,
    logvar_ptr,
    y_ptr,
    n_rows,
    x_stride,
    seed,
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
    x_offsets = rows * x_stride + cols
    mu = tl.load(mu_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    logvar = tl.load(logvar_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    y = mu + tl.exp(0.5 * logvar) * tm.gaussian(seed, offsets)
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _exp_randn_like_add_backward(
    logvar_ptr,
    d_y_ptr,
    d_mu_ptr,
    d_logvar_ptr,
    n_rows,
    x_stride,
    seed,
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
    x_offsets = rows * x_stride + cols
    logvar = tl.load(logvar_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_logvar = d_y * tm.gaussian(seed, offsets) * tl.exp(0.5 * logvar) * 0.5
    tl.store(d_mu_ptr + x_offsets, d_y, mask=mask)
    tl.store(d_logvar_ptr + x_offsets, d_logvar, mask=mask)


@launch.falls_back_to(exp_randn_like_add_reference)
class _ExpRandnLikeAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seed):
        x = x.contiguous()
        mu, logvar = x.chunk(2, dim=-1)
        shape = mu.shape
        ctx.x_shape = x.shape
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.column_tile(n_cols)
        y = mu.new_empty(shape)
        if shape.numel():
            _exp_randn_like_add_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                mu,
                logvar,
                y,
                n_rows,
                mu.stride(-2),
                seed,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x)
        ctx.shape = shape
        ctx.seed = seed
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (x,) = ctx.saved_tensors
        seed = ctx.seed
        shape = ctx.shape
        d_y = d_y.contiguous()
        _, logvar = x.chunk(2, dim=-1)
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.column_tile(n_cols)
        d_x = d_y.new_empty(ctx.x_shape)
        d_mu, d_logvar = d_x.chunk(2, dim=-1)
        if shape.numel():
            _exp_randn_like_add_backward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                logvar,
                d_y,
                d_mu,
                d_logvar,
                n_rows,
                logvar.stride(-2),
                seed,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_x, None


def exp_randn_like_add(x: Tensor) -> Tensor:
    seed = random.next_seed()
    if launch.use_kernels(x):
        return _ExpRandnLikeAdd.apply(x, seed)
    return exp_randn_like_add_reference(x, seed)
