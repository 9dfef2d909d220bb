"""Fused kernels of mixture.model, written by tdsl 0.1.0.

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
from tdsl.runtime import triton_math as tm

# softmax_add_log_sum: mixture.model:6, mixture.model:7
#     p = softmax(h, dim=-1)
#     return p, -sum(p * log(p + 1e-9), dim=-1)
# Moves 8 bytes (f32) an element forward, 12 backward.


def softmax_add_log_sum_reference(h: Tensor) -> tuple[Tensor, Tensor]:
    p = F.softmax(h, dim=-1)
    return p, -(p * torch.log(p + 1e-9)).sum(dim=-1)


@triton.jit
def _softmax_add_log_sum_forward(
    h_ptr,
    p_ptr,
    y_ptr,
    stop_ptr,
    total_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    col_mask = cols < N_COLS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    mask = row_mask & col_mask
    offsets = rows * N_COLS + cols
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    top = tm.row_max(tl.where(mask, h, float("-inf")))
    exp = tl.exp(h - top)
    total = tl.sum(tl.where(mask, exp, 0.0), axis=1, keep_dims=True)
    p = exp / total
    total_2 = tl.sum(tl.where(mask, p * tl.log(p + 1e-09), 0.0), axis=1, keep_dims=True)
    y = -total_2
    tl.store(p_ptr + offsets, p, mask=mask)
    tl.store(y_ptr + rows, y, mask=row_mask)
    tl.store(stop_ptr + rows, top, mask=row_mask)
    tl.store(total_ptr + rows, total, mask=row_mask)


@triton.jit
def _softmax_add_log_sum_backward(
    h_ptr,
    stop_ptr,
    total_ptr,
    d_p_ptr,
    d_y_ptr,
    d_h_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    col_mask = cols < N_COLS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    mask = row_mask & col_mask
    offsets = rows * N_COLS + cols
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    stop = tl.load(stop_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
    total = tl.load(total_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
    d_p = tl.load(d_p_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
    exp = tl.exp(h - stop)
    p = exp / total
    sum = p + 1e-09
    d_p_2 = (-d_y) * tl.log(sum) + (-d_y) * p / sum + d_p
    d_total = tl.sum(tl.where(mask, (-d_p_2) * p / total, 0.0), axis=1, keep_dims=True)
    d_h = (d_p_2 / total + d_total) * exp
    tl.store(d_h_ptr + offsets, d_h, mask=mask)


@launch.falls_back_to(softmax_add_log_sum_reference)
class _SoftmaxAddLogSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        shape = h.shape
        h = h.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=3)
        p = torch.empty_like(h)
        y = h.new_empty(shape[:-1])
        stop = h.new_empty(n_rows, dtype=torch.float32)
        total = h.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _softmax_add_log_sum_forward[(triton.cdiv(n_rows, tile.rows),)](
                h,
                p,
                y,
                stop,
                total,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(h, stop, total)
        ctx.shape = shape
        return p, y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_p, d_y):
        h, stop, total = ctx.saved_tensors
        shape = ctx.shape
        d_p, d_y = d_p.contiguous(), d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=7)
        d_h = torch.empty_like(h)
        if shape.numel():
            _softmax_add_log_sum_backward[(triton.cdiv(n_rows, tile.rows),)](
                h,
                stop,
                total,
                d_p,
                d_y,
                d_h,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_h


def softmax_add_log_sum(h: Tensor) -> tuple[Tensor, Tensor]:
    if launch.use_kernels(h):
        return _SoftmaxAddLogSum.apply(h)
    return softmax_add_log_sum_reference(h)
