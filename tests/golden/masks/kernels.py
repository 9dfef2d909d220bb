"""Fused kernels of masks.model, written by tdsl 0.1.0.

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

# div_where_softmax: masks.model:5, masks.model:6
#     scores = query(x) @ key(x).T / 4
#     return softmax(where(keep, scores, -1e9), dim=-1)
# Moves 12 bytes (f32) an element forward, 16 backward.


def div_where_softmax_reference(keep: Tensor, x: Tensor) -> Tensor:
    scores = x / 4
    return F.softmax(torch.where(keep, scores, -1000000000.0), dim=-1)


@triton.jit
def _div_where_softmax_forward(
    keep_ptr,
    x_ptr,
    y_ptr,
    stop_ptr,
    total_ptr,
    n_rows,
    keep_inner,
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
        keep = tl.load(keep_ptr + rows // keep_inner * N_COLS + cols, mask=mask, other=0).to(tl.int1)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        scores = x / 4
        chosen = tl.where(keep, scores, -1000000000.0)
        top = tm.maximum(top, tl.where(mask, chosen, float("-inf")))
    top = tm.row_max(top)
    total = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        keep_2 = tl.load(keep_ptr + rows // keep_inner * N_COLS + cols, mask=mask, other=0).to(tl.int1)
        x_2 = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        scores_2 = x_2 / 4
        chosen_2 = tl.where(keep_2, scores_2, -1000000000.0)
        exp = tl.exp(chosen_2 - top)
        total = total + tl.where(mask, exp, 0.0)
    total = tl.sum(total, axis=1, keep_dims=True)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        keep_3 = tl.load(keep_ptr + rows // keep_inner * N_COLS + cols, mask=mask, other=0).to(tl.int1)
        x_3 = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        scores_3 = x_3 / 4
        chosen_3 = tl.where(keep_3, scores_3, -1000000000.0)
        exp_2 = tl.exp(chosen_3 - top)
        y = exp_2 / total
        tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(stop_ptr + rows, top, mask=row_mask)
    tl.store(total_ptr + rows, total, mask=row_mask)


@triton.jit
def _div_where_softmax_backward(
    keep_ptr,
    x_ptr,
    stop_ptr,
    total_ptr,
    d_y_ptr,
    d_x_ptr,
    n_rows,
    keep_inner,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    stop = tl.load(stop_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
    total = tl.load(total_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
    d_total = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        keep = tl.load(keep_ptr + rows // keep_inner * N_COLS + cols, mask=mask, other=0).to(tl.int1)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        scores = x / 4
        exp = tl.exp(tl.where(keep, scores, -1000000000.0) - stop)
        d_total = d_total + tl.where(mask, (-d_y) * (exp / total) / total, 0.0)
    d_total = tl.sum(d_total, axis=1, keep_dims=True)
    for start in range(0, N_COLS, BLOCK_COLS):
        cols = start + tl.arange(0, BLOCK_COLS)[None, :]
        col_mask = cols < N_COLS
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        keep_2 = tl.load(keep_ptr + rows // keep_inner * N_COLS + cols, mask=mask, other=0).to(tl.int1)
        x_2 = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_y_2 = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        scores_2 = x_2 / 4
        exp_2 = tl.exp(tl.where(keep_2, scores_2, -1000000000.0) - stop)
        d_x = tl.where(keep_2, (d_y_2 / total + d_total) * exp_2, 0.0) / 4
        tl.store(d_x_ptr + offsets, d_x, mask=mask)


@launch.falls_back_to(div_where_softmax_reference)
class _DivWhereSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, keep, x):
        shape = x.shape
        keep, x = keep.contiguous(), x.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=3, longest=launch.CHUNK)
        y = torch.empty_like(x)
        stop = x.new_empty(n_rows, dtype=torch.float32)
        total = x.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _div_where_softmax_forward[(triton.cdiv(n_rows, tile.rows),)](
                keep,
                x,
                y,
                stop,
                total,
                n_rows,
                shape[-2],
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(keep, x, stop, total)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        keep, x, stop, total = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=6, longest=launch.CHUNK)
        d_x = torch.empty_like(x)
        if shape.numel():
            _div_where_softmax_backward[(triton.cdiv(n_rows, tile.rows),)](
                keep,
                x,
                stop,
                total,
                d_y,
                d_x,
                n_rows,
                shape[-2],
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return None, d_x


def div_where_softmax(keep: Tensor, x: Tensor) -> Tensor:
    if launch.use_kernels(keep, x):
        return _DivWhereSoftmax.apply(keep, x)
    return div_where_softmax_reference(keep, x)
