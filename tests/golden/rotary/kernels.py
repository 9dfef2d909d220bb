"""Fused kernels of rotary.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsl.runtime import launch, nn_functions, rotary

# split_rope: rotary.model:7, rotary.model:8, rotary.model:9, rotary.model:10
#     q, k, v = qkv(x).chunk(3, dim=-1)
#     q = rope(rearrange(q, "b t (h d) -> b h t d", h=heads))
#     k = rope(rearrange(k, "b t (h d) -> b h t d", h=heads))
#     v = rearrange(v, "b t (h d) -> b h t d", h=heads)
# Moves 8 bytes (f32) an element of q and k forward, of q, k and v backward.


def split_rope_reference(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    q = nn_functions.rope(q.transpose(1, 2))
    k = nn_functions.rope(k.transpose(1, 2))
    v = v.transpose(1, 2)
    return q, k, v


@triton.jit
def _split_rope_turn(x, y, cos, sin, mask, HALF: tl.constexpr):
    first = tl.load(x, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(x + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(y, first * cos - second * sin, mask=mask)
    tl.store(y + HALF, first * sin + second * cos, mask=mask)


@triton.jit
def _split_rope_copy(x, y, mask, HALF: tl.constexpr):
    tl.store(y, tl.load(x, mask=mask, other=0.0), mask=mask)
    tl.store(y + HALF, tl.load(x + HALF, mask=mask, other=0.0), mask=mask)


@triton.jit
def _split_rope_forward(
    qkv_ptr,
    table_ptr,
    q_ptr,
    k_ptr,
    n_rows,
    length,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    HALF: tl.constexpr = DIM // 2
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    mask = (rows < n_rows) & (cols < HALF)
    angles = table_ptr + rows % length * DIM + cols
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = tl.load(angles + HALF, mask=mask, other=0.0)
    qkv = qkv_ptr + rows * (3 * HEADS * DIM) + cols
    q = q_ptr + rows * (HEADS * DIM) + cols
    k = k_ptr + rows * (HEADS * DIM) + cols
    for head in range(tl.program_id(1).to(tl.int64), HEADS, tl.num_programs(1)):
        _split_rope_turn(qkv + head * DIM, q + head * DIM, cos, sin, mask, HALF)
        _split_rope_turn(qkv + (HEADS + head) * DIM, k + head * DIM, cos, sin, mask, HALF)


@triton.jit
def _split_rope_backward(
    d_q_ptr,
    d_k_ptr,
    d_v_ptr,
    table_ptr,
    d_qkv_ptr,
    n_rows,
    length,
    d_q_batch,
    d_q_head,
    d_q_time,
    d_k_batch,
    d_k_head,
    d_k_time,
    d_v_batch,
    d_v_head,
    d_v_time,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    HALF: tl.constexpr = DIM // 2
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    batch, time = rows // length, rows % length
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    mask = (rows < n_rows) & (cols < HALF)
    angles = table_ptr + time * DIM + cols
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = tl.load(angles + HALF, mask=mask, other=0.0)
    d_q = d_q_ptr + batch * d_q_batch + time * d_q_time + cols
    d_k = d_k_ptr + batch * d_k_batch + time * d_k_time + cols
    d_v = d_v_ptr + batch * d_v_batch + time * d_v_time + cols
    d_qkv = d_qkv_ptr + rows * (3 * HEADS * DIM) + cols
    for head in range(tl.program_id(1).to(tl.int64), HEADS, tl.num_programs(1)):
        _split_rope_turn(d_q + head * d_q_head, d_qkv + head * DIM, cos, -sin, mask, HALF)
        _split_rope_turn(d_k + head * d_k_head, d_qkv + (HEADS + head) * DIM, cos, -sin, mask, HALF)
        _split_rope_copy(d_v + head * d_v_head, d_qkv + (2 * HEADS + head) * DIM, mask, HALF)


@launch.falls_back_to(split_rope_reference)
class _SplitRope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, heads):
        qkv = qkv.contiguous()
        batch, length, width = qkv.shape
        dim = width // (3 * heads)
        q = qkv.new_empty(batch, length, heads, dim)
        k = qkv.new_empty(batch, length, heads, dim)
        table = rotary.table(length, dim, 10000.0, 0, qkv.device)
        if qkv.numel():
            tile = rotary.tile(batch * length, heads, dim)
            _split_rope_forward[tile.grid](
                qkv,
                table,
                q,
                k,
                batch * length,
                length,
                HEADS=heads,
                DIM=dim,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.table = table
        parts = qkv.view(batch, length, 3 * heads, dim)
        v = parts[:, :, 2 * heads :]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_q, d_k, d_v):
        batch, heads, length, dim = d_q.shape
        d_q, d_k, d_v = (d if d.stride(-1) == 1 else d.contiguous() for d in (d_q, d_k, d_v))
        d_qkv = d_q.new_empty(batch, length, 3 * heads * dim)
        if d_qkv.numel():
            tile = rotary.tile(batch * length, heads, dim)
            _split_rope_backward[tile.grid](
                d_q,
                d_k,
                d_v,
                ctx.table,
                d_qkv,
                batch * length,
                length,
                *d_q.stride()[:3],
                *d_k.stride()[:3],
                *d_v.stride()[:3],
                HEADS=heads,
                DIM=dim,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_qkv, None


def split_rope(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    if launch.use_kernels(qkv):
        return _SplitRope.apply(qkv, heads)
    return split_rope_reference(qkv, heads)


# split_rope_2: rotary.model:20, rotary.model:21, rotary.model:22, rotary.model:23
#     q, k, v = qkv(x).split([dim, small, small], dim=-1)
#     q = rope(rearrange(q, "b t (h d) -> b h t d", h=heads), base)
#     k = rope(rearrange(k, "b t (h d) -> b h t d", h=groups), base)
#     v = rearrange(v, "b t (h d) -> b h t d", h=groups)
# Moves 8 bytes (f32) an element of q and k forward, of q, k and v backward.


def split_rope_2_reference(
    qkv: Tensor,
    heads: int,
    groups: int,
    head_dim: int,
    base: float,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (-1, head_dim)).split((heads, groups, groups), dim=2)
    q = nn_functions.rope(q.transpose(1, 2), base=base)
    k = nn_functions.rope(k.transpose(1, 2), base=base)
    v = v.transpose(1, 2)
    return q, k, v


@triton.jit
def _split_rope_2_turn(x, y, cos, sin, mask, HALF: tl.constexpr):
    first = tl.load(x, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(x + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(y, first * cos - second * sin, mask=mask)
    tl.store(y + HALF, first * sin + second * cos, mask=mask)


@triton.jit
def _split_rope_2_copy(x, y, mask, HALF: tl.constexpr):
    tl.store(y, tl.load(x, mask=mask, other=0.0), mask=mask)
    tl.store(y + HALF, tl.load(x + HALF, mask=mask, other=0.0), mask=mask)


@triton.jit
def _split_rope_2_forward(
    qkv_ptr,
    table_ptr,
    q_ptr,
    k_ptr,
    n_rows,
    length,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    HALF: tl.constexpr = DIM // 2
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    mask = (rows < n_rows) & (cols < HALF)
    angles = table_ptr + rows % length * DIM + cols
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = tl.load(angles + HALF, mask=mask, other=0.0)
    qkv = qkv_ptr + rows * ((HEADS + 2 * GROUPS) * DIM) + cols
    q = q_ptr + rows * (HEADS * DIM) + cols
    k = k_ptr + rows * (GROUPS * DIM) + cols
    for head in range(tl.program_id(1).to(tl.int64), HEADS, tl.num_programs(1)):
        _split_rope_2_turn(qkv + head * DIM, q + head * DIM, cos, sin, mask, HALF)
    for head in range(tl.program_id(1).to(tl.int64), GROUPS, tl.num_programs(1)):
        _split_rope_2_turn(qkv + (HEADS + head) * DIM, k + head * DIM, cos, sin, mask, HALF)


@triton.jit
def _split_rope_2_backward(
    d_q_ptr,
    d_k_ptr,
    d_v_ptr,
    table_ptr,
    d_qkv_ptr,
    n_rows,
    length,
    d_q_batch,
    d_q_head,
    d_q_time,
    d_k_batch,
    d_k_head,
    d_k_time,
    d_v_batch,
    d_v_head,
    d_v_time,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    HALF: tl.constexpr = DIM // 2
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    batch, time = rows // length, rows % length
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    mask = (rows < n_rows) & (cols < HALF)
    angles = table_ptr + time * DIM + cols
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = tl.load(angles + HALF, mask=mask, other=0.0)
    d_q = d_q_ptr + batch * d_q_batch + time * d_q_time + cols
    d_k = d_k_ptr + batch * d_k_batch + time * d_k_time + cols
    d_v = d_v_ptr + batch * d_v_batch + time * d_v_time + cols
    d_qkv = d_qkv_ptr + rows * ((HEADS + 2 * GROUPS) * DIM) + cols
    for head in range(tl.program_id(1).to(tl.int64), HEADS, tl.num_programs(1)):
        _split_rope_2_turn(d_q + head * d_q_head, d_qkv + head * DIM, cos, -sin, mask, HALF)
    for head in range(tl.program_id(1).to(tl.int64), GROUPS, tl.num_programs(1)):
        _split_rope_2_turn(d_k + head * d_k_head, d_qkv + (HEADS + head) * DIM, cos, -sin, mask, HALF)
        _split_rope_2_copy(d_v + head * d_v_head, d_qkv + (HEADS + GROUPS + head) * DIM, mask, HALF)


@launch.falls_back_to(split_rope_2_reference)
class _SplitRope2(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, heads, groups, head_dim, base):
        qkv = qkv.contiguous()
        batch, length, _ = qkv.shape
        q = qkv.new_empty(batch, length, heads, head_dim)
        k = qkv.new_empty(batch, length, groups, head_dim)
        table = rotary.table(length, head_dim, base, 0, qkv.device)
        if qkv.numel():
            tile = rotary.tile(batch * length, heads, head_dim)
            _split_rope_2_forward[tile.grid](
                qkv,
                table,
                q,
                k,
                batch * length,
                length,
                HEADS=heads,
                GROUPS=groups,
                DIM=head_dim,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.table = table
        parts = qkv.view(batch, length, heads + 2 * groups, head_dim)
        v = parts[:, :, heads + groups :]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_q, d_k, d_v):
        batch, heads, length, head_dim = d_q.shape
        groups = d_k.shape[1]
        d_q, d_k, d_v = (d if d.stride(-1) == 1 else d.contiguous() for d in (d_q, d_k, d_v))
        d_qkv = d_q.new_empty(batch, length, (heads + 2 * groups) * head_dim)
        if d_qkv.numel():
            tile = rotary.tile(batch * length, heads, head_dim)
            _split_rope_2_backward[tile.grid](
                d_q,
                d_k,
                d_v,
                ctx.table,
                d_qkv,
                batch * length,
                length,
                *d_q.stride()[:3],
                *d_k.stride()[:3],
                *d_v.stride()[:3],
                HEADS=heads,
                GROUPS=groups,
                DIM=head_dim,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_qkv, None, None, None, None


def split_rope_2(qkv: Tensor, heads: int, groups: int, head_dim: int, base: float) -> tuple[Tensor, Tensor, Tensor]:
    if launch.use_kernels(qkv):
        return _SplitRope2.apply(qkv, heads, groups, head_dim, base)
    return split_rope_2_reference(qkv, heads, groups, head_dim, base)


# rope_qk: rotary.model:33, rotary.model:34
#     q = rope(rearrange(q(x), "b t (h d) -> b h t d", h=heads))
#     k = rope(rearrange(k(y), "b t (h d) -> b h t d", h=heads))
# Moves 8 bytes (f32) an element forward, 8 backward.


def rope_qk_reference(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    q = nn_functions.rope(q)
    k = nn_functions.rope(k)
    return q, k


@triton.jit
def _rope_qk_kernel(
    q_ptr,
    k_ptr,
    table_ptr,
    q_turned_ptr,
    k_turned_ptr,
    n_rows,
    length,
    q_heads,
    k_heads,
    q_batch,
    q_head,
    q_time,
    q_turned_batch,
    q_turned_head,
    q_turned_time,
    k_batch,
    k_head,
    k_time,
    k_turned_batch,
    k_turned_head,
    k_turned_time,
    DIM: tl.constexpr,
    DIRECTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    HALF: tl.constexpr = DIM // 2
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    batch, time = rows // length, rows % length
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    mask = (rows < n_rows) & (cols < HALF)
    angles = table_ptr + time * DIM + cols
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = DIRECTION * tl.load(angles + HALF, mask=mask, other=0.0)
    q = q_ptr + batch * q_batch + time * q_time + cols
    q_turned = q_turned_ptr + batch * q_turned_batch + time * q_turned_time + cols
    for head in range(tl.program_id(1).to(tl.int64), q_heads, tl.num_programs(1)):
        first = tl.load(q + head * q_head, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(q + head * q_head + HALF, mask=mask, other=0.0).to(tl.float32)
        tl.store(q_turned + head * q_turned_head, first * cos - second * sin, mask=mask)
        tl.store(q_turned + head * q_turned_head + HALF, first * sin + second * cos, mask=mask)
    k = k_ptr + batch * k_batch + time * k_time + cols
    k_turned = k_turned_ptr + batch * k_turned_batch + time * k_turned_time + cols
    for head in range(tl.program_id(1).to(tl.int64), k_heads, tl.num_programs(1)):
        first = tl.load(k + head * k_head, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(k + head * k_head + HALF, mask=mask, other=0.0).to(tl.float32)
        tl.store(k_turned + head * k_turned_head, first * cos - second * sin, mask=mask)
        tl.store(k_turned + head * k_turned_head + HALF, first * sin + second * cos, mask=mask)


def _rope_qk_turned(q, k, table, direction):
    q = rotary.by_heads(q)
    q_turned = rotary.like(q)
    k = rotary.by_heads(k)
    k_turned = rotary.like(k)
    batch, q_heads, length, dim = q.shape
    k_heads = k.shape[1]
    if batch * length:
        tile = rotary.tile(batch * length, q_heads, dim)
        _rope_qk_kernel[tile.grid](
            q,
            k,
            table,
            q_turned,
            k_turned,
            batch * length,
            length,
            q_heads,
            k_heads,
            *q.stride()[:3],
            *q_turned.stride()[:3],
            *k.stride()[:3],
            *k_turned.stride()[:3],
            DIM=dim,
            DIRECTION=direction,
            BLOCK_ROWS=tile.rows,
            BLOCK_COLS=tile.cols,
            num_warps=tile.warps,
        )
    return q_turned, k_turned


@launch.falls_back_to(rope_qk_reference)
class _RopeQk(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k):
        length, dim = q.shape[-2:]
        ctx.table = rotary.table(length, dim, 10000.0, 0, q.device)
        return _rope_qk_turned(q, k, ctx.table, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_q, d_k):
        return _rope_qk_turned(d_q, d_k, ctx.table, -1)


def rope_qk(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    if launch.use_kernels(q, k):
        return _RopeQk.apply(q, k)
    return rope_qk_reference(q, k)


# add: rotary.model:45
#     return rope(joint(x) + grouped(x) + apart(x, x), offset=2)
# Moves 16 bytes (f32) an element forward, 4 backward.


def add_reference(joint: Tensor, grouped: Tensor, apart: Tensor) -> Tensor:
    return joint + grouped + apart


@triton.jit
def _add_forward(joint_ptr, grouped_ptr, apart_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    joint = tl.load(joint_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    grouped = tl.load(grouped_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    apart = tl.load(apart_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = joint + grouped + apart
    tl.store(y_ptr + offsets, y, mask=mask)


@launch.falls_back_to(add_reference)
class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx, joint, grouped, apart):
        shape = joint.shape
        joint, grouped, apart = launch.alike(joint, grouped, apart)
        n = shape.numel()
        tile = launch.flat_tile()
        y = torch.empty_like(joint)
        if n:
            _add_forward[(triton.cdiv(n, tile.cols),)](
                joint,
                grouped,
                apart,
                y,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        return d_y, d_y, d_y


def add(joint: Tensor, grouped: Tensor, apart: Tensor) -> Tensor:
    if launch.use_kernels(joint, grouped, apart):
        return _Add.apply(joint, grouped, apart)
    return add_reference(joint, grouped, apart)


# rope: rotary.model:45
#     return rope(joint(x) + grouped(x) + apart(x, x), offset=2)
# Moves 8 bytes (f32) an element forward, 8 backward.


def rope_reference(x: Tensor) -> Tensor:
    return nn_functions.rope(x, offset=2)


@triton.jit
def _rope_kernel(
    x_ptr,
    table_ptr,
    y_ptr,
    n_rows,
    length,
    heads,
    x_batch,
    x_head,
    x_time,
    y_batch,
    y_head,
    y_time,
    DIM: tl.constexpr,
    DIRECTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    HALF: tl.constexpr = DIM // 2
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    batch, time = rows // length, rows % length
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    mask = (rows < n_rows) & (cols < HALF)
    angles = table_ptr + time * DIM + cols
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = DIRECTION * tl.load(angles + HALF, mask=mask, other=0.0)
    x = x_ptr + batch * x_batch + time * x_time + cols
    y = y_ptr + batch * y_batch + time * y_time + cols
    for head in range(tl.program_id(1).to(tl.int64), heads, tl.num_programs(1)):
        first = tl.load(x + head * x_head, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(x + head * x_head + HALF, mask=mask, other=0.0).to(tl.float32)
        tl.store(y + head * y_head, first * cos - second * sin, mask=mask)
        tl.store(y + head * y_head + HALF, first * sin + second * cos, mask=mask)


def _rope_turned(x, table, direction):
    shape = x.shape
    x = rotary.by_heads(x)
    y = rotary.like(x)
    batch, heads, length, dim = x.shape
    if batch * length:
        tile = rotary.tile(batch * length, heads, dim)
        _rope_kernel[tile.grid](
            x,
            table,
            y,
            batch * length,
            length,
            heads,
            *x.stride()[:3],
            *y.stride()[:3],
            DIM=dim,
            DIRECTION=direction,
            BLOCK_ROWS=tile.rows,
            BLOCK_COLS=tile.cols,
            num_warps=tile.warps,
        )
    return y.view(shape)


@launch.falls_back_to(rope_reference)
class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        length, dim = x.shape[-2:]
        ctx.table = rotary.table(length, dim, 10000.0, 2, x.device)
        return _rope_turned(x, ctx.table, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        return _rope_turned(d_y, ctx.table, -1)


def rope(x: Tensor) -> Tensor:
    if launch.use_kernels(x):
        return _Rope.apply(x)
    return rope_reference(x)
