"""Fused kernels of gated.model, written by tdsl 0.1.0.

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

# silu_mul: gated.model:9
#     return down(silu(gate(x)) * up(x))
# Moves 12 bytes (f32) an element forward, 20 backward.


def silu_mul_reference(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


@triton.jit
def _silu_mul_forward(
    gate_ptr,
    up_ptr,
    y_ptr,
    n_rows,
    x_stride,
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
    gate = tl.load(gate_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _silu_mul_backward(
    gate_ptr,
    up_ptr,
    d_y_ptr,
    d_gate_ptr,
    d_up_ptr,
    n_rows,
    x_stride,
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
    gate = tl.load(gate_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + x_offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    d_product = d_y * up
    d_up = d_y * (gate * sigmoid)
    d_gate = d_product * sigmoid + d_product * gate * sigmoid * (1.0 - sigmoid)
    tl.store(d_gate_ptr + x_offsets, d_gate, mask=mask)
    tl.store(d_up_ptr + x_offsets, d_up, mask=mask)


@launch.falls_back_to(silu_mul_reference)
class _SiluMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        gate, up = x.chunk(2, dim=-1)
        shape = gate.shape
        ctx.x_shape = x.shape
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.column_tile(n_cols)
        y = gate.new_empty(shape)
        if shape.numel():
            _silu_mul_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                gate,
                up,
                y,
                n_rows,
                gate.stride(-2),
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (x,) = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        gate, up = x.chunk(2, dim=-1)
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.column_tile(n_cols)
        d_x = d_y.new_empty(ctx.x_shape)
        d_gate, d_up = d_x.chunk(2, dim=-1)
        if shape.numel():
            _silu_mul_backward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                gate,
                up,
                d_y,
                d_gate,
                d_up,
                n_rows,
                gate.stride(-2),
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_x


def silu_mul(x: Tensor) -> Tensor:
    if launch.use_kernels(x):
        return _SiluMul.apply(x)
    return silu_mul_reference(x)
