"""Fused kernels of tied.model, written by tdsl 0.1.0.

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

# layer_norm_gelu: tied.model:5
#     forward(tokens: int[B, T]) -> float[B, T, vocab] { return head(gelu(norm(embed(tokens)))) }
# Moves 8 bytes (f32) an element forward, 12 backward.


def layer_norm_gelu_reference(embed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(F.layer_norm(embed, (embed.shape[-1],), weight, bias))


@triton.jit
def _layer_norm_gelu_forward(
    embed_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    quotient_ptr,
    inverse_ptr,
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
    embed = tl.load(embed_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    total = tl.sum(tl.where(mask, embed, 0.0), axis=1, keep_dims=True)
    quotient = total / N_COLS
    difference = embed - quotient
    total_2 = tl.sum(tl.where(mask, difference * difference, 0.0), axis=1, keep_dims=True)
    inverse = tl.rsqrt(total_2 / N_COLS + 1e-05)
    sum = difference * inverse * weight + bias
    y = 0.5 * sum * (1.0 + tl.erf(sum * 0.7071067811865476))
    tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(quotient_ptr + rows, quotient, mask=row_mask)
    tl.store(inverse_ptr + rows, inverse, mask=row_mask)


@triton.jit
def _layer_norm_gelu_backward(
    embed_ptr,
    weight_ptr,
    bias_ptr,
    quotient_ptr,
    inverse_ptr,
    d_y_ptr,
    d_embed_ptr,
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
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    d_weight_sum = tl.zeros([1, BLOCK_COLS], tl.float32)
    d_bias_sum = tl.zeros([1, BLOCK_COLS], tl.float32)
    for first in range(tl.program_id(0) * BLOCK_ROWS, n_rows, tl.num_programs(0) * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)
        row_mask = rows < n_rows
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        embed = tl.load(embed_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        quotient = tl.load(quotient_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        inverse = tl.load(inverse_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        difference = embed - quotient
        product = difference * inverse
        sum = product * weight + bias
        product_2 = sum * 0.7071067811865476
        d_product = d_y * (0.5 * sum) * 1.1283791670955126 * tl.exp(-product_2 * product_2)
        d_sum = d_product * 0.7071067811865476 + d_y * (1.0 + tl.erf(product_2)) * 0.5
        d_product_2 = d_sum * weight
        d_inverse = tl.sum(tl.where(mask, d_product_2 * difference, 0.0), axis=1, keep_dims=True)
        product_3 = d_inverse * (-0.5) * inverse * inverse * inverse / N_COLS * difference
        d_difference = d_product_2 * inverse + product_3 + product_3
        d_quotient = tl.sum(tl.where(mask, -d_difference, 0.0), axis=1, keep_dims=True)
        d_embed = d_difference + d_quotient / N_COLS
        tl.store(d_embed_ptr + offsets, d_embed, mask=mask)
        d_weight_sum += tl.sum(tl.where(mask, d_sum * product, 0.0), axis=0, keep_dims=True)
        d_bias_sum += tl.sum(tl.where(mask, d_sum, 0.0), axis=0, keep_dims=True)
    tl.store(d_weight_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_weight_sum, mask=col_mask)
    tl.store(d_bias_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_bias_sum, mask=col_mask)


@launch.falls_back_to(layer_norm_gelu_reference)
class _LayerNormGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embed, weight, bias):
        shape = embed.shape
        ctx.weight_shape = weight.shape
        ctx.bias_shape = bias.shape
        embed, weight, bias = embed.contiguous(), weight.contiguous(), bias.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=3)
        y = torch.empty_like(embed)
        quotient = embed.new_empty(n_rows, dtype=torch.float32)
        inverse = embed.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _layer_norm_gelu_forward[(triton.cdiv(n_rows, tile.rows),)](
                embed,
                weight,
                bias,
                y,
                quotient,
                inverse,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(embed, weight, bias, quotient, inverse)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        embed, weight, bias, quotient, inverse = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=9)
        programs = launch.programs(n_rows, tile.rows)
        d_embed = torch.empty_like(embed)
        d_weight = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        d_bias = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        if shape.numel():
            _layer_norm_gelu_backward[(programs,)](
                embed,
                weight,
                bias,
                quotient,
                inverse,
                d_y,
                d_embed,
                d_weight,
                d_bias,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return (
            d_embed,
            d_weight.sum(0).view(ctx.weight_shape).to(d_y.dtype),
            d_bias.sum(0).view(ctx.bias_shape).to(d_y.dtype),
        )


def layer_norm_gelu(embed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if launch.use_kernels(embed, weight, bias):
        return _LayerNormGelu.apply(embed, weight, bias)
    return layer_norm_gelu_reference(embed, weight, bias)
