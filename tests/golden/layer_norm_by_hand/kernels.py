"""Fused kernels of layer_norm_by_hand.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsl.runtime import launch

# norm: layer_norm_by_hand.model:6, layer_norm_by_hand.model:7, layer_norm_by_hand.model:8
#     centred  = x - mean(x, dim=-1, keepdim=true)
#     variance = mean(centred ** 2, dim=-1, keepdim=true)
#     return centred * rsqrt(variance + eps) * weight + bias
# Moves 8 bytes (f32) an element forward, 12 backward.


def norm_reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt(variance + eps) * weight + bias


@triton.jit
def _norm_forward(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    quotient_ptr,
    inverse_ptr,
    n_rows,
    eps,
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
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    total = tl.sum(tl.where(mask, x, 0.0), axis=1, keep_dims=True)
    quotient = total / N_COLS
    centred = x - quotient
    total_2 = tl.sum(tl.where(mask, centred * centred, 0.0), axis=1, keep_dims=True)
    variance = total_2 / N_COLS
    inverse = tl.rsqrt(variance + eps)
    y = centred * inverse * weight + bias
    tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(quotient_ptr + rows, quotient, mask=row_mask)
    tl.store(inverse_ptr + rows, inverse, mask=row_mask)


@triton.jit
def _norm_backward(
    x_ptr,
    weight_ptr,
    quotient_ptr,
    inverse_ptr,
    d_y_ptr,
    d_x_ptr,
    d_weight_ptr,
    d_bias_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    col_mask = cols < N_COLS
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    d_weight_sum = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    d_bias_sum = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    for first in range(tl.program_id(0) * BLOCK_ROWS, n_rows, tl.num_programs(0) * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)
        row_mask = rows < n_rows
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        quotient = tl.load(quotient_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        inverse = tl.load(inverse_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        centred = x - quotient
        d_product = d_y * weight
        d_inverse = tl.sum(tl.where(mask, d_product * centred, 0.0), axis=1, keep_dims=True)
        product = d_inverse * (-0.5) * inverse * inverse * inverse / N_COLS * centred
        d_centred = d_product * inverse + product + product
        d_quotient = tl.sum(tl.where(mask, -d_centred, 0.0), axis=1, keep_dims=True)
        d_x = d_centred + d_quotient / N_COLS
        tl.store(d_x_ptr + offsets, d_x, mask=mask)
        d_weight_sum += tl.where(mask, d_y * (centred * inverse), 0.0)
        d_bias_sum += tl.where(mask, d_y, 0.0)
    d_weight_sum = tl.sum(d_weight_sum, axis=0, keep_dims=True)
    d_bias_sum = tl.sum(d_bias_sum, axis=0, keep_dims=True)
    tl.store(d_weight_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_weight_sum, mask=col_mask)
    tl.store(d_bias_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_bias_sum, mask=col_mask)


@launch.falls_back_to(norm_reference)
class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        shape = x.shape
        ctx.weight_shape = weight.shape
        ctx.bias_shape = bias.shape
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=2)
        y = torch.empty_like(x)
        quotient = x.new_empty(n_rows, dtype=torch.float32)
        inverse = x.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _norm_forward[(triton.cdiv(n_rows, tile.rows),)](
                x,
                weight,
                bias,
                y,
                quotient,
                inverse,
                n_rows,
                eps,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x, weight, quotient, inverse)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, weight, quotient, inverse = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=8)
        programs = launch.programs(n_rows, tile.rows)
        d_x = torch.empty_like(x)
        d_weight = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        d_bias = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        if shape.numel():
            _norm_backward[(programs,)](
                x,
                weight,
                quotient,
                inverse,
                d_y,
                d_x,
                d_weight,
                d_bias,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return (
            d_x,
            d_weight.sum(0).view(ctx.weight_shape).to(d_y.dtype),
            d_bias.sum(0).view(ctx.bias_shape).to(d_y.dtype),
            None,
        )


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if launch.use_kernels(x, weight, bias):
        return _Norm.apply(x, weight, bias, eps)
    return norm_reference(x, weight, bias, eps)
