"""Fused kernels of long_rows.model, written by tdsl 0.1.0.

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

# long: long_rows.model:5
#     return softmax(x * weight, dim=-1)
# Moves 8 bytes (f32) an element forward, 12 backward.


def long_reference(x: Tensor, weight: Tensor) -> Tensor:
    return F.softmax(x * weight, dim=-1)


@triton.jit
def _long_forward(
    x_ptr,
    weight_ptr,
    y_ptr,
    stop_ptr,
    total_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    top = tl.full([BLOCK_ROWS, BLOCK_COLS], float("-inf"), tl.float32)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
        product = x * weight
        top = tm.maximum(top, tl.where(mask, product, float("-inf")))
    top = tm.row_max(top)
    total = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x_2 = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        weight_2 = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
        product_2 = x_2 * weight_2
        exp = tl.exp(product_2 - top)
        total = total + tl.where(mask, exp, 0.0)
    total = tl.sum(total, axis=1, keep_dims=True)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x_3 = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        weight_3 = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
        product_3 = x_3 * weight_3
        exp_2 = tl.exp(product_3 - top)
        y = exp_2 / total
        tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(stop_ptr + rows, top, mask=row_mask)
    tl.store(total_ptr + rows, total, mask=row_mask)


@triton.jit
def _long_backward(
    x_ptr,
    weight_ptr,
    stop_ptr,
    total_ptr,
    d_y_ptr,
    d_x_ptr,
    d_weight_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    for first in range(tl.program_id(0) * BLOCK_ROWS, n_rows, tl.num_programs(0) * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)
        row_mask = rows < n_rows
        stop = tl.load(stop_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        total = tl.load(total_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        d_total = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
        for start in range(0, N_COLS, BLOCK_COLS):
            cols = start + tl.arange(0, BLOCK_COLS)[None, :]
            col_mask = cols < N_COLS
            mask = row_mask & col_mask
            offsets = rows * N_COLS + cols
            x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
            weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
            d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
            exp = tl.exp(x * weight - stop)
            d_total = d_total + tl.where(mask, (-d_y) * (exp / total) / total, 0.0)
        d_total = tl.sum(d_total, axis=1, keep_dims=True)
        for start in range(0, N_COLS, BLOCK_COLS):
            cols = start + tl.arange(0, BLOCK_COLS)[None, :]
            col_mask = cols < N_COLS
            mask = row_mask & col_mask
            offsets = rows * N_COLS + cols
            x_2 = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
            weight_2 = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
            d_y_2 = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
            exp_2 = tl.exp(x_2 * weight_2 - stop)
            d_difference = (d_y_2 / total + d_total) * exp_2
            d_x = d_difference * weight_2
            tl.store(d_x_ptr + offsets, d_x, mask=mask)
            d_weight_place = d_weight_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols
            d_weight_sum = tl.load(d_weight_place, mask=col_mask, other=0.0)
            d_weight_sum += tl.sum(tl.where(mask, d_difference * x_2, 0.0), axis=0, keep_dims=True)
            tl.store(d_weight_place, d_weight_sum, mask=col_mask)


@launch.falls_back_to(long_reference)
class _Long(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        shape = x.shape
        ctx.weight_shape = weight.shape
        x, weight = x.contiguous(), weight.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=2, longest=launch.CHUNK)
        y = torch.empty_like(x)
        stop = x.new_empty(n_rows, dtype=torch.float32)
        total = x.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _long_forward[(triton.cdiv(n_rows, tile.rows),)](
                x,
                weight,
                y,
                stop,
                total,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x, weight, stop, total)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, weight, stop, total = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=7, longest=launch.CHUNK)
        programs = launch.programs(n_rows, tile.rows)
        d_x = torch.empty_like(x)
        d_weight = d_y.new_zeros(programs, n_cols, dtype=torch.float32)
        if shape.numel():
            _long_backward[(programs,)](
                x,
                weight,
                stop,
                total,
                d_y,
                d_x,
                d_weight,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_x, d_weight.sum(0).view(ctx.weight_shape).to(d_y.dtype)


def long(x: Tensor, weight: Tensor) -> Tensor:
    if launch.use_kernels(x, weight):
        return _Long.apply(x, weight)
    return long_reference(x, weight)
