"""Fused kernels of branches.model, written by tdsl 0.1.0.

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

# silu_add: branches.model:7
#     h = h + silu(step(h))
# Moves 12 bytes (f32) an element forward, 12 backward.


def silu_add_reference(x: Tensor, steps: Tensor) -> Tensor:
    return x + F.silu(steps)


@triton.jit
def _silu_add_forward(x_ptr, steps_ptr, h_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    steps = tl.load(steps_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h = x + steps * tl.sigmoid(steps)
    tl.store(h_ptr + offsets, h, mask=mask)


@triton.jit
def _silu_add_backward(steps_ptr, d_h_ptr, d_steps_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    steps = tl.load(steps_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_h = tl.load(d_h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(steps)
    d_steps = d_h * sigmoid + d_h * steps * sigmoid * (1.0 - sigmoid)
    tl.store(d_steps_ptr + offsets, d_steps, mask=mask)


@launch.falls_back_to(silu_add_reference)
class _SiluAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, steps):
        shape = x.shape
        x, steps = launch.alike(x, steps)
        n = shape.numel()
        tile = launch.flat_tile()
        h = torch.empty_like(x)
        if n:
            _silu_add_forward[(triton.cdiv(n, tile.cols),)](x, steps, h, n, BLOCK=tile.cols, num_warps=tile.warps)
        ctx.save_for_backward(steps)
        ctx.shape = shape
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, d_h):
        (steps,) = ctx.saved_tensors
        shape = ctx.shape
        steps, d_h = launch.alike(steps, d_h)
        n = shape.numel()
        tile = launch.flat_tile()
        d_steps = torch.empty_like(steps)
        if n:
            _silu_add_backward[(triton.cdiv(n, tile.cols),)](
                steps,
                d_h,
                d_steps,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_h, d_steps


def silu_add(x: Tensor, steps: Tensor) -> Tensor:
    if launch.use_kernels(x, steps):
        return _SiluAdd.apply(x, steps)
    return silu_add_reference(x, steps)


# silu_add_sigmoid: branches.model:7, branches.model:10
#     h = h + silu(step(h))
#     h = h * sigmoid(gate(x))
# Moves 16 bytes (f32) an element forward, 28 backward.


def silu_add_sigmoid_reference(gate: Tensor, h: Tensor, steps: Tensor) -> Tensor:
    h = h + F.silu(steps)
    return h * torch.sigmoid(gate)


@triton.jit
def _silu_add_sigmoid_forward(gate_ptr, h_ptr, steps_ptr, h_2_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    gate = tl.load(gate_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    steps = tl.load(steps_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h_2 = h + steps * tl.sigmoid(steps)
    h_3 = h_2 * tl.sigmoid(gate)
    tl.store(h_2_ptr + offsets, h_3, mask=mask)


@triton.jit
def _silu_add_sigmoid_backward(
    gate_ptr,
    h_ptr,
    steps_ptr,
    d_h_2_ptr,
    d_gate_ptr,
    d_h_ptr,
    d_steps_ptr,
    n,
    BLOCK: tl.constexpr,
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    gate = tl.load(gate_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    steps = tl.load(steps_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_h_2 = tl.load(d_h_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(steps)
    h_2 = h + steps * sigmoid
    sigmoid_2 = tl.sigmoid(gate)
    d_h = d_h_2 * sigmoid_2
    d_gate = d_h_2 * h_2 * sigmoid_2 * (1.0 - sigmoid_2)
    d_steps = d_h * sigmoid + d_h * steps * sigmoid * (1.0 - sigmoid)
    tl.store(d_gate_ptr + offsets, d_gate, mask=mask)
    tl.store(d_h_ptr + offsets, d_h, mask=mask)
    tl.store(d_steps_ptr + offsets, d_steps, mask=mask)


@launch.falls_back_to(silu_add_sigmoid_reference)
class _SiluAddSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, h, steps):
        shape = gate.shape
        gate, h, steps = launch.alike(gate, h, steps)
        n = shape.numel()
        tile = launch.flat_tile()
        h_2 = torch.empty_like(gate)
        if n:
            _silu_add_sigmoid_forward[(triton.cdiv(n, tile.cols),)](
                gate,
                h,
                steps,
                h_2,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(gate, h, steps)
        ctx.shape = shape
        return h_2

    @staticmethod
    @once_differentiable
    def backward(ctx, d_h_2):
        gate, h, steps = ctx.saved_tensors
        shape = ctx.shape
        gate, h, steps, d_h_2 = launch.alike(gate, h, steps, d_h_2)
        n = shape.numel()
        tile = launch.flat_tile()
        d_gate = torch.empty_like(gate)
        d_h = torch.empty_like(gate)
        d_steps = torch.empty_like(gate)
        if n:
            _silu_add_sigmoid_backward[(triton.cdiv(n, tile.cols),)](
                gate,
                h,
                steps,
                d_h_2,
                d_gate,
                d_h,
                d_steps,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_gate, d_h, d_steps


def silu_add_sigmoid(gate: Tensor, h: Tensor, steps: Tensor) -> Tensor:
    if launch.use_kernels(gate, h, steps):
        return _SiluAddSigmoid.apply(gate, h, steps)
    return silu_add_sigmoid_reference(gate, h, steps)
