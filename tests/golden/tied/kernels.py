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

# embedding: tied.model:5
#     forward(tokens: int[B, T]) -> float[B, T, vocab] { return head(gelu(norm(embed(tokens)))) }
# Moves 8 bytes (f32) an element forward, 4 and the table's gradient backward.


def embedding_reference(tokens: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(tokens, weight)


@triton.jit
def _embedding_forward(
    tokens_ptr,
    weight_ptr,
    y_ptr,
    n_rows,
    n_entries,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
    row_mask = rows < n_rows
    mask = row_mask & (cols < N_COLS)
    entry = tl.load(tokens_ptr + rows, mask=row_mask, other=0).to(tl.int64)
    known = (entry >= 0) & (entry < n_entries)
    y = tl.load(weight_ptr + entry * N_COLS + cols, mask=mask & known, other=float("nan"))
    tl.store(y_ptr + rows * N_COLS + cols, y, mask=mask)


@triton.jit
def _embedding_runs(
    entries_ptr,
    places_ptr,
    d_y_ptr,
    d_weight_ptr,
    leading_ptr,
    trailing_ptr,
    n_rows,
    n_entries,
    N_COLS: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Sums over runs of equal entries, of LENGTH places in order: those that begin and end among them are done.

    Of the others each program leaves its part, `leading` of one that began before, `trailing` of one that goes on.
    """
    program = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    mask = cols < N_COLS
    first = program * LENGTH
    entry = tl.load(entries_ptr + first).to(tl.int64)
    leads = (first > 0) & (tl.load(entries_ptr + first - 1, mask=first > 0, other=-1) == entry)
    place = tl.load(places_ptr + first)
    total = tl.zeros([BLOCK_COLS], tl.float32)
    done = first == n_rows
    for i in range(first, tl.minimum(first + LENGTH, n_rows)):
        d_y = tl.load(d_y_ptr + place * N_COLS + cols, mask=mask, other=0.0)
        following = tl.load(entries_ptr + i + 1, mask=i + 1 < n_rows, other=-1).to(tl.int64)
        place = tl.load(places_ptr + i + 1, mask=i + 1 < n_rows, other=0)
        total += d_y.to(tl.float32)
        done = (i + 1 == n_rows) | (following != entry)
        known = (entry >= 0) & (entry < n_entries)
        tl.store(d_weight_ptr + entry * N_COLS + cols, total, mask=mask & known & done & (leads == 0))
        tl.store(leading_ptr + program * N_COLS + cols, total, mask=mask & done & leads)
        total = tl.where(done, 0.0, total)
        leads = leads & (done == 0)
        entry = following
    tl.store(leading_ptr + program * N_COLS + cols, total, mask=mask & leads)
    tl.store(trailing_ptr + program * N_COLS + cols, total, mask=mask & (leads == 0) & (done == 0))


@triton.jit
def _embedding_joined(
    entries_ptr,
    leading_ptr,
    trailing_ptr,
    d_weight_ptr,
    n_rows,
    n_entries,
    N_COLS: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Adds up the parts of a run that more than one program summed, where it begins."""
    program = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    mask = cols < N_COLS
    first = program * LENGTH
    entry = tl.load(entries_ptr + first + LENGTH - 1).to(tl.int64)
    goes_on = tl.load(entries_ptr + first + LENGTH) == entry
    begins = (first == 0) | (tl.load(entries_ptr + first - 1, mask=first > 0, other=-1) != entry)
    known = (entry >= 0) & (entry < n_entries)
    if goes_on & begins & known:
        total = tl.load(trailing_ptr + program * N_COLS + cols, mask=mask, other=0.0)
        n_programs = tl.cdiv(n_rows, LENGTH)
        program += 1
        while tl.load(entries_ptr + program * LENGTH, mask=program < n_programs, other=-1) == entry:
            programs = program + tl.arange(0, BLOCK_ROWS)[:, None]
            same = tl.load(entries_ptr + programs * LENGTH, mask=programs < n_programs, other=-1) == entry
            parts = tl.load(leading_ptr + programs * N_COLS + cols[None, :], mask=same & mask[None, :], other=0.0)
            total += tl.sum(parts, axis=0)
            program += BLOCK_ROWS
        tl.store(d_weight_ptr + entry * N_COLS + cols, total, mask=mask)


@launch.falls_back_to(embedding_reference)
class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, weight):
        tokens, weight = tokens.contiguous(), weight.contiguous()
        n_rows = tokens.numel()
        n_entries, n_cols = weight.shape
        y = weight.new_empty(*tokens.shape, n_cols)
        if y.numel():
            tile = launch.column_tile(n_cols)
            _embedding_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                tokens,
                weight,
                y,
                n_rows,
                n_entries,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(tokens)
        ctx.shape = weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (tokens,) = ctx.saved_tensors
        n_entries, n_cols = ctx.shape
        d_y = d_y.contiguous()
        d_weight = d_y.new_zeros(n_entries, n_cols, dtype=torch.float32)
        if d_y.numel() and n_entries:
            entries, places = tokens.flatten().sort(stable=True)
            n_rows = entries.numel()
            runs = launch.runs(n_rows, n_cols)
            leading = d_weight.new_empty(runs.programs, n_cols)
            trailing = d_weight.new_empty(runs.programs, n_cols)
            _embedding_runs[(runs.programs, triton.cdiv(n_cols, runs.cols))](
                entries,
                places,
                d_y,
                d_weight,
                leading,
                trailing,
                n_rows,
                n_entries,
                N_COLS=n_cols,
                LENGTH=runs.length,
                BLOCK_COLS=runs.cols,
                num_warps=runs.warps,
            )
            if runs.programs > 1:
                _embedding_joined[(runs.programs - 1, triton.cdiv(n_cols, 128))](
                    entries,
                    leading,
                    trailing,
                    d_weight,
                    n_rows,
                    n_entries,
                    N_COLS=n_cols,
                    LENGTH=runs.length,
                    BLOCK_ROWS=32,
                    BLOCK_COLS=128,
                )
        return None, d_weight.to(d_y.dtype)


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    if launch.use_kernels(tokens, weight):
        return _Embedding.apply(tokens, weight)
    return embedding_reference(tokens, weight)


# layer_norm_gelu: tied.model:5
#     forward(tokens: int[B, T]) -> float[B, T, vocab] { return head(gelu(norm(embed(tokens)))) }
# Moves 8 bytes (f32) an element forward, 12 backward.


def layer_norm_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(F.layer_norm(x, (x.shape[-1],), weight, bias))


@triton.jit
def _layer_norm_gelu_forward(
    x_ptr,
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
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    total = tl.sum(tl.where(mask, x, 0.0), axis=1, keep_dims=True)
    quotient = total / N_COLS
    difference = x - quotient
    total_2 = tl.sum(tl.where(mask, difference * difference, 0.0), axis=1, keep_dims=True)
    inverse = tl.rsqrt(total_2 / N_COLS + 1e-05)
    sum = difference * inverse * weight + bias
    y = 0.5 * sum * (1.0 + tl.erf(sum * 0.7071067811865476))
    tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(quotient_ptr + rows, quotient, mask=row_mask)
    tl.store(inverse_ptr + rows, inverse, mask=row_mask)


@triton.jit
def _layer_norm_gelu_backward(
    x_ptr,
    weight_ptr,
    bias_ptr,
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
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
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
        difference = x - quotient
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
        d_x = d_difference + d_quotient / N_COLS
        tl.store(d_x_ptr + offsets, d_x, mask=mask)
        d_weight_sum += tl.where(mask, d_sum * product, 0.0)
        d_bias_sum += tl.where(mask, d_sum, 0.0)
    d_weight_sum = tl.sum(d_weight_sum, axis=0, keep_dims=True)
    d_bias_sum = tl.sum(d_bias_sum, axis=0, keep_dims=True)
    tl.store(d_weight_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_weight_sum, mask=col_mask)
    tl.store(d_bias_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_bias_sum, mask=col_mask)


@launch.falls_back_to(layer_norm_gelu_reference)
class _LayerNormGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        shape = x.shape
        ctx.weight_shape = weight.shape
        ctx.bias_shape = bias.shape
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=3)
        y = torch.empty_like(x)
        quotient = x.new_empty(n_rows, dtype=torch.float32)
        inverse = x.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _layer_norm_gelu_forward[(triton.cdiv(n_rows, tile.rows),)](
                x,
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
        ctx.save_for_backward(x, weight, bias, quotient, inverse)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, weight, bias, quotient, inverse = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=9)
        programs = launch.programs(n_rows, tile.rows)
        d_x = torch.empty_like(x)
        d_weight = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        d_bias = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        if shape.numel():
            _layer_norm_gelu_backward[(programs,)](
                x,
                weight,
                bias,
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
        )


def layer_norm_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if launch.use_kernels(x, weight, bias):
        return _LayerNormGelu.apply(x, weight, bias)
    return layer_norm_gelu_reference(x, weight, bias)
