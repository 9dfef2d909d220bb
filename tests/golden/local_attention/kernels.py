"""Fused kernels of local_attention.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsl.runtime import attention_tiles, launch, nn_functions
from tdsl.runtime import triton_math as tm

# attention: local_attention.model:12
#     y = attention(q, k, v, causal=true, window=window, softcap=50.0)
# Stores no scores: moves q, k and v, the result and a number a query forward, their gradients backward.


def attention_reference(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    return nn_functions.attention(q, k, v, causal=True, window=window, softcap=50.0)


@triton.jit
def _attention_forward(
    q_ptr,
    k_ptr,
    v_ptr,
    y_ptr,
    lse_ptr,
    q_strides,
    k_strides,
    v_strides,
    n_heads,
    n_groups,
    n_queries,
    n_keys,
    scale,
    window,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    # Blocks that see the most begin first.
    first = (n_blocks - 1 - tl.program_id(0) % n_blocks) * BLOCK_T
    last = first + BLOCK_T - 1
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    group = head // (n_heads // n_groups)
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    k_base = tm.matrix(k_ptr, k_strides, batch, group)
    v_base = tm.matrix(v_ptr, v_strides, batch, group)
    queries = first + tl.arange(0, BLOCK_T)[:, None]
    q = tm.load_rows(q_base, first, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
    top = tl.full([BLOCK_T, 1], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T, 1], tl.float32)
    y = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    for start in range(max(first - (window - 1), 0) // BLOCK_S * BLOCK_S, min(first + BLOCK_T, n_keys), BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)[None, :]
        k = tm.load_rows(k_base, start, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        bent = tm.tanh_for(product * (scale / 50.0), q.dtype)
        scores = bent * (50.0 * tm.LOG2E)
        if (start + BLOCK_S > n_keys) | (start + BLOCK_S > first + 1) | (start <= last - window):
            seen = (keys < n_keys) & (keys <= queries) & (keys > queries - window)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1, keep_dims=True))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - shift)
        rescale = tl.exp2(top - shift)
        total = total * rescale + tl.sum(weights, axis=1, keep_dims=True)
        top = higher
        v = tm.load_rows(v_base, start, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
        y = tl.dot(weights.to(v.dtype), v, y * rescale, input_precision=PRECISION)
    # A query that sees nothing yields zeros, and has no weights in the backward.
    lse = tl.where(total == 0.0, float("inf"), top + tl.log2(total))
    y = y / tl.where(total == 0.0, 1.0, total)
    tm.store_rows(y_ptr + (batch * n_queries * n_heads + head) * E, y, first, n_queries, n_heads * E, E)
    tl.store(lse_ptr + row * n_queries + queries, lse, mask=queries < n_queries)


@triton.jit
def _attention_backward_delta(
    y_ptr,
    d_y_ptr,
    delta_ptr,
    d_y_strides,
    n_heads,
    n_queries,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    first = tl.program_id(0) % n_blocks * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    y_base = y_ptr + (batch * n_queries * n_heads + head) * E
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    y = tm.load_rows(y_base, first, n_queries, n_heads * E, E, BLOCK_T, BLOCK_E).to(tl.float32)
    d_y = tm.load_rows(d_y_base, first, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E).to(tl.float32)
    queries = first + tl.arange(0, BLOCK_T)
    tl.store(delta_ptr + row * n_queries + queries, tl.sum(y * d_y, axis=1), mask=queries < n_queries)


@triton.jit
def _attention_backward_q(
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_q_ptr,
    q_strides,
    k_strides,
    v_strides,
    d_y_strides,
    n_heads,
    n_groups,
    n_queries,
    n_keys,
    scale,
    window,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    # Blocks that see the most begin first.
    first = (n_blocks - 1 - tl.program_id(0) % n_blocks) * BLOCK_T
    last = first + BLOCK_T - 1
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    group = head // (n_heads // n_groups)
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    k_base = tm.matrix(k_ptr, k_strides, batch, group)
    v_base = tm.matrix(v_ptr, v_strides, batch, group)
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    queries = first + tl.arange(0, BLOCK_T)[:, None]
    q = tm.load_rows(q_base, first, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
    d_y = tm.load_rows(d_y_base, first, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
    lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
    delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
    d_q = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(max(first - (window - 1), 0) // BLOCK_S * BLOCK_S, min(first + BLOCK_T, n_keys), BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)[None, :]
        k = tm.load_rows(k_base, start, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
        v = tm.load_rows(v_base, start, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        bent = tm.tanh_for(product * (scale / 50.0), q.dtype)
        scores = bent * (50.0 * tm.LOG2E)
        weights = tl.exp2(scores - lse)
        d_weights = tl.dot(d_y, tl.trans(v), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta)
        d_scores *= 1.0 - bent * bent
        if (start + BLOCK_S > n_keys) | (start + BLOCK_S > first + 1) | (start <= last - window):
            seen = (keys < n_keys) & (keys <= queries) & (keys > queries - window)
            d_scores = tl.where(seen, d_scores, 0.0)
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)
    d_q *= scale
    tm.store_rows(d_q_ptr + (batch * n_queries * n_heads + head) * D, d_q, first, n_queries, n_heads * D, D)


@triton.jit
def _attention_backward_kv(
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_k_ptr,
    d_v_ptr,
    q_strides,
    k_strides,
    v_strides,
    d_y_strides,
    n_heads,
    n_groups,
    n_queries,
    n_keys,
    scale,
    window,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    n_blocks = tl.cdiv(n_keys, BLOCK_S)
    first = tl.program_id(0) % n_blocks * BLOCK_S
    last = first + BLOCK_S - 1
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, group = row // n_groups, row % n_groups
    k_base = tm.matrix(k_ptr, k_strides, batch, group)
    v_base = tm.matrix(v_ptr, v_strides, batch, group)
    keys = first + tl.arange(0, BLOCK_S)[:, None]
    k = tm.load_rows(k_base, first, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
    v = tm.load_rows(v_base, first, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
    d_k = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    d_v = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    n_sharing = n_heads // n_groups
    for head in range(group * n_sharing, (group + 1) * n_sharing):
        row = batch * n_heads + head
        q_base = tm.matrix(q_ptr, q_strides, batch, head)
        d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
        for start in range(first // BLOCK_T * BLOCK_T, min(last + window, n_queries), BLOCK_T):
            queries = start + tl.arange(0, BLOCK_T)[None, :]
            q = tm.load_rows(q_base, start, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
            d_y = tm.load_rows(d_y_base, start, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
            lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
            delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
            product = tl.dot(k, tl.trans(q), input_precision=PRECISION)
            bent = tm.tanh_for(product * (scale / 50.0), q.dtype)
            scores = bent * (50.0 * tm.LOG2E)
            weights = tl.exp2(scores - lse)
            d_weights = tl.dot(v, tl.trans(d_y), input_precision=PRECISION)
            d_scores = weights * (d_weights - delta)
            d_scores *= 1.0 - bent * bent
            if (start + BLOCK_T > n_queries) | (start < last) | (start + BLOCK_T > first + window):
                seen = (queries < n_queries) & (keys <= queries) & (keys > queries - window)
                weights = tl.where(seen, weights, 0.0)
                d_scores = tl.where(seen, d_scores, 0.0)
            d_v = tl.dot(weights.to(d_y.dtype), d_y, d_v, input_precision=PRECISION)
            d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    d_k *= scale
    tm.store_rows(d_k_ptr + (batch * n_keys * n_groups + group) * D, d_k, first, n_keys, n_groups * D, D)
    tm.store_rows(d_v_ptr + (batch * n_keys * n_groups + group) * E, d_v, first, n_keys, n_groups * E, E)


@launch.falls_back_to(attention_reference)
class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, window):
        q, k, v = (launch.rows_together(each) for each in (q, k, v))
        n_batch, n_heads, n_queries, width = q.shape
        _, n_groups, n_keys, v_width = v.shape
        scale = width**-0.5
        window = min(window, 1 << 30)
        y = q.new_empty(n_batch, n_queries, n_heads, v_width).transpose(1, 2)
        lse = q.new_empty(n_batch, n_heads, n_queries, dtype=torch.float32)
        if y.numel():
            tile = attention_tiles.tile("forward", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_queries, tile.queries)
            strides = [each.stride() for each in (q, k, v)]
            _attention_forward[(programs,)](
                q,
                k,
                v,
                y,
                lse,
                *strides,
                n_heads,
                n_groups,
                n_queries,
                n_keys,
                scale,
                window,
                **tile.options,
            )
        ctx.save_for_backward(q, k, v, y, lse)
        ctx.scale = scale
        ctx.window = window
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        q, k, v, y, lse = ctx.saved_tensors
        scale = ctx.scale
        window = ctx.window
        d_y = launch.rows_together(d_y)
        n_batch, n_heads, n_queries, width = q.shape
        _, n_groups, n_keys, v_width = v.shape
        strides = [each.stride() for each in (q, k, v, d_y)]
        delta = torch.empty_like(lse)
        d_q = q.new_empty(n_batch, n_queries, n_heads, width).transpose(1, 2)
        if d_q.numel():
            programs = n_batch * n_heads * triton.cdiv(n_queries, attention_tiles.DELTA_ROWS)
            _attention_backward_delta[(programs,)](
                y,
                d_y,
                delta,
                d_y.stride(),
                n_heads,
                n_queries,
                E=v_width,
                BLOCK_T=attention_tiles.DELTA_ROWS,
                BLOCK_E=launch.power_of_two(v_width),
            )
            tile = attention_tiles.tile("backward_q", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_queries, tile.queries)
            _attention_backward_q[(programs,)](
                q,
                k,
                v,
                lse,
                d_y,
                delta,
                d_q,
                *strides,
                n_heads,
                n_groups,
                n_queries,
                n_keys,
                scale,
                window,
                **tile.options,
            )
        d_k = k.new_empty(n_batch, n_keys, n_groups, width).transpose(1, 2)
        d_v = v.new_empty(n_batch, n_keys, n_groups, v_width).transpose(1, 2)
        if d_k.numel():
            tile = attention_tiles.tile("backward_kv grouped", width, v_width, q.dtype)
            programs = n_batch * n_groups * triton.cdiv(n_keys, tile.keys)
            _attention_backward_kv[(programs,)](
                q,
                k,
                v,
                lse,
                d_y,
                delta,
                d_k,
                d_v,
                *strides,
                n_heads,
                n_groups,
                n_queries,
                n_keys,
                scale,
                window,
                **tile.options,
            )
        return d_q, d_k, d_v, None


def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    if launch.use_kernels(q, k, v):
        return _Attention.apply(q, k, v, window)
    return attention_reference(q, k, v, window)


# attention_2: local_attention.model:20
#     near = attention(x, x, x, causal=true, bias=alibi(heads, T))
# Stores no scores: moves q, k and v, the result and a number a query forward, their gradients backward.


def attention_2_reference(x: Tensor) -> Tensor:
    return nn_functions.attention(
        x,
        x,
        x,
        bias=nn_functions.alibi(x.shape[1], x.shape[2], S=x.shape[2], device=x.device),
        causal=True,
    )


@triton.jit
def _attention_2_forward(
    q_ptr,
    k_ptr,
    v_ptr,
    y_ptr,
    lse_ptr,
    q_strides,
    k_strides,
    v_strides,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
    WHOLE: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    # Blocks that see the most begin first.
    first = (n_blocks - 1 - tl.program_id(0) % n_blocks) * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    k_base = tm.matrix(k_ptr, k_strides, batch, head)
    v_base = tm.matrix(v_ptr, v_strides, batch, head)
    slope = tm.alibi_slope(head, WHOLE) * tm.LOG2E
    queries = first + tl.arange(0, BLOCK_T)[:, None]
    q = tm.load_rows(q_base, first, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
    top = tl.full([BLOCK_T, 1], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T, 1], tl.float32)
    y = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    for start in range(0, min(first + BLOCK_T, n_keys), BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)[None, :]
        k = tm.load_rows(k_base, start, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * tm.LOG2E)
        scores -= tl.abs(keys - queries) * slope
        if (start + BLOCK_S > n_keys) | (start + BLOCK_S > first + 1):
            seen = (keys < n_keys) & (keys <= queries)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1, keep_dims=True))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - shift)
        rescale = tl.exp2(top - shift)
        total = total * rescale + tl.sum(weights, axis=1, keep_dims=True)
        top = higher
        v = tm.load_rows(v_base, start, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
        y = tl.dot(weights.to(v.dtype), v, y * rescale, input_precision=PRECISION)
    # A query that sees nothing yields zeros, and has no weights in the backward.
    lse = tl.where(total == 0.0, float("inf"), top + tl.log2(total))
    y = y / tl.where(total == 0.0, 1.0, total)
    tm.store_rows(y_ptr + (batch * n_queries * n_heads + head) * E, y, first, n_queries, n_heads * E, E)
    tl.store(lse_ptr + row * n_queries + queries, lse, mask=queries < n_queries)


@triton.jit
def _attention_2_backward_delta(
    y_ptr,
    d_y_ptr,
    delta_ptr,
    d_y_strides,
    n_heads,
    n_queries,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    first = tl.program_id(0) % n_blocks * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    y_base = y_ptr + (batch * n_queries * n_heads + head) * E
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    y = tm.load_rows(y_base, first, n_queries, n_heads * E, E, BLOCK_T, BLOCK_E).to(tl.float32)
    d_y = tm.load_rows(d_y_base, first, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E).to(tl.float32)
    queries = first + tl.arange(0, BLOCK_T)
    tl.store(delta_ptr + row * n_queries + queries, tl.sum(y * d_y, axis=1), mask=queries < n_queries)


@triton.jit
def _attention_2_backward_q(
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_q_ptr,
    q_strides,
    k_strides,
    v_strides,
    d_y_strides,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
    WHOLE: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    # Blocks that see the most begin first.
    first = (n_blocks - 1 - tl.program_id(0) % n_blocks) * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    k_base = tm.matrix(k_ptr, k_strides, batch, head)
    v_base = tm.matrix(v_ptr, v_strides, batch, head)
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    slope = tm.alibi_slope(head, WHOLE) * tm.LOG2E
    queries = first + tl.arange(0, BLOCK_T)[:, None]
    q = tm.load_rows(q_base, first, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
    d_y = tm.load_rows(d_y_base, first, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
    lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
    delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
    d_q = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(0, min(first + BLOCK_T, n_keys), BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)[None, :]
        k = tm.load_rows(k_base, start, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
        v = tm.load_rows(v_base, start, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * tm.LOG2E)
        scores -= tl.abs(keys - queries) * slope
        weights = tl.exp2(scores - lse)
        d_weights = tl.dot(d_y, tl.trans(v), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta)
        if (start + BLOCK_S > n_keys) | (start + BLOCK_S > first + 1):
            seen = (keys < n_keys) & (keys <= queries)
            d_scores = tl.where(seen, d_scores, 0.0)
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)
    d_q *= scale
    tm.store_rows(d_q_ptr + (batch * n_queries * n_heads + head) * D, d_q, first, n_queries, n_heads * D, D)


@triton.jit
def _attention_2_backward_kv(
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_k_ptr,
    d_v_ptr,
    q_strides,
    k_strides,
    v_strides,
    d_y_strides,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
    WHOLE: tl.constexpr,
):
    n_blocks = tl.cdiv(n_keys, BLOCK_S)
    first = tl.program_id(0) % n_blocks * BLOCK_S
    last = first + BLOCK_S - 1
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    k_base = tm.matrix(k_ptr, k_strides, batch, head)
    v_base = tm.matrix(v_ptr, v_strides, batch, head)
    keys = first + tl.arange(0, BLOCK_S)[:, None]
    k = tm.load_rows(k_base, first, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
    v = tm.load_rows(v_base, first, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
    d_k = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    d_v = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    slope = tm.alibi_slope(head, WHOLE) * tm.LOG2E
    for start in range(first // BLOCK_T * BLOCK_T, n_queries, BLOCK_T):
        queries = start + tl.arange(0, BLOCK_T)[None, :]
        q = tm.load_rows(q_base, start, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
        d_y = tm.load_rows(d_y_base, start, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
        lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
        delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * tm.LOG2E)
        scores -= tl.abs(keys - queries) * slope
        weights = tl.exp2(scores - lse)
        d_weights = tl.dot(v, tl.trans(d_y), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta)
        if (start + BLOCK_T > n_queries) | (start < last):
            seen = (queries < n_queries) & (keys <= queries)
            weights = tl.where(seen, weights, 0.0)
            d_scores = tl.where(seen, d_scores, 0.0)
        d_v = tl.dot(weights.to(d_y.dtype), d_y, d_v, input_precision=PRECISION)
        d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    d_k *= scale
    tm.store_rows(d_k_ptr + (batch * n_keys * n_heads + head) * D, d_k, first, n_keys, n_heads * D, D)
    tm.store_rows(d_v_ptr + (batch * n_keys * n_heads + head) * E, d_v, first, n_keys, n_heads * E, E)


@launch.falls_back_to(attention_2_reference)
class _Attention2(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv):
        q, k, v = (launch.rows_together(each) for each in (qkv, qkv, qkv))
        n_batch, n_heads, n_queries, width = q.shape
        *_, n_keys, v_width = v.shape
        scale = width**-0.5
        y = q.new_empty(n_batch, n_queries, n_heads, v_width).transpose(1, 2)
        lse = q.new_empty(n_batch, n_heads, n_queries, dtype=torch.float32)
        if y.numel():
            tile = attention_tiles.tile("forward", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_queries, tile.queries)
            strides = [each.stride() for each in (q, k, v)]
            _attention_2_forward[(programs,)](
                q,
                k,
                v,
                y,
                lse,
                *strides,
                n_heads,
                n_queries,
                n_keys,
                scale,
                WHOLE=1 << (n_heads.bit_length() - 1),
                **tile.options,
            )
        ctx.save_for_backward(q, k, v, y, lse)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        q, k, v, y, lse = ctx.saved_tensors
        scale = ctx.scale
        d_y = launch.rows_together(d_y)
        n_batch, n_heads, n_queries, width = q.shape
        *_, n_keys, v_width = v.shape
        strides = [each.stride() for each in (q, k, v, d_y)]
        delta = torch.empty_like(lse)
        d_q = q.new_empty(n_batch, n_queries, n_heads, width).transpose(1, 2)
        if d_q.numel():
            programs = n_batch * n_heads * triton.cdiv(n_queries, attention_tiles.DELTA_ROWS)
            _attention_2_backward_delta[(programs,)](
                y,
                d_y,
                delta,
                d_y.stride(),
                n_heads,
                n_queries,
                E=v_width,
                BLOCK_T=attention_tiles.DELTA_ROWS,
                BLOCK_E=launch.power_of_two(v_width),
            )
            tile = attention_tiles.tile("backward_q", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_queries, tile.queries)
            _attention_2_backward_q[(programs,)](
                q,
                k,
                v,
                lse,
                d_y,
                delta,
                d_q,
                *strides,
                n_heads,
                n_queries,
                n_keys,
                scale,
                WHOLE=1 << (n_heads.bit_length() - 1),
                **tile.options,
            )
        d_k = k.new_empty(n_batch, n_keys, n_heads, width).transpose(1, 2)
        d_v = v.new_empty(n_batch, n_keys, n_heads, v_width).transpose(1, 2)
        if d_k.numel():
            tile = attention_tiles.tile("backward_kv", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_keys, tile.keys)
            _attention_2_backward_kv[(programs,)](
                q,
                k,
                v,
                lse,
                d_y,
                delta,
                d_k,
                d_v,
                *strides,
                n_heads,
                n_queries,
                n_keys,
                scale,
                WHOLE=1 << (n_heads.bit_length() - 1),
                **tile.options,
            )
        return d_q + d_k + d_v


def attention_2(x: Tensor) -> Tensor:
    if launch.use_kernels(x):
        return _Attention2.apply(x)
    return attention_2_reference(x)


# attention_3: local_attention.model:21
#     return near + attention(x, near, x, causal=true, bias=table)
# Stores no scores: moves q, k, v and the bias, the result and a number a query forward, their gradients backward.


def attention_3_reference(x: Tensor, near: Tensor, table: Tensor) -> Tensor:
    return nn_functions.attention(x, near, x, bias=table, causal=True)


@triton.jit
def _attention_3_forward(
    q_ptr,
    k_ptr,
    v_ptr,
    bias_ptr,
    y_ptr,
    lse_ptr,
    q_strides,
    k_strides,
    v_strides,
    bias_strides,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    # Blocks that see the most begin first.
    first = (n_blocks - 1 - tl.program_id(0) % n_blocks) * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    k_base = tm.matrix(k_ptr, k_strides, batch, head)
    v_base = tm.matrix(v_ptr, v_strides, batch, head)
    bias_base = bias_ptr + tl.cast(head, tl.int64) * bias_strides[0]
    queries = first + tl.arange(0, BLOCK_T)[:, None]
    q = tm.load_rows(q_base, first, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
    top = tl.full([BLOCK_T, 1], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T, 1], tl.float32)
    y = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    for start in range(0, min(first + BLOCK_T, n_keys), BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)[None, :]
        k = tm.load_rows(k_base, start, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * tm.LOG2E)
        places = keys.to(tl.int64) * bias_strides[2]
        inside = keys < n_keys
        bias = tl.load(bias_base + places, mask=inside, other=0.0).to(tl.float32)
        scores += bias * tm.LOG2E
        if (start + BLOCK_S > n_keys) | (start + BLOCK_S > first + 1):
            seen = (keys < n_keys) & (keys <= queries)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1, keep_dims=True))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - shift)
        rescale = tl.exp2(top - shift)
        total = total * rescale + tl.sum(weights, axis=1, keep_dims=True)
        top = higher
        v = tm.load_rows(v_base, start, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
        y = tl.dot(weights.to(v.dtype), v, y * rescale, input_precision=PRECISION)
    # A query that sees nothing yields zeros, and has no weights in the backward.
    lse = tl.where(total == 0.0, float("inf"), top + tl.log2(total))
    y = y / tl.where(total == 0.0, 1.0, total)
    tm.store_rows(y_ptr + (batch * n_queries * n_heads + head) * E, y, first, n_queries, n_heads * E, E)
    tl.store(lse_ptr + row * n_queries + queries, lse, mask=queries < n_queries)


@triton.jit
def _attention_3_backward_delta(
    y_ptr,
    d_y_ptr,
    delta_ptr,
    d_y_strides,
    n_heads,
    n_queries,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    first = tl.program_id(0) % n_blocks * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    y_base = y_ptr + (batch * n_queries * n_heads + head) * E
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    y = tm.load_rows(y_base, first, n_queries, n_heads * E, E, BLOCK_T, BLOCK_E).to(tl.float32)
    d_y = tm.load_rows(d_y_base, first, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E).to(tl.float32)
    queries = first + tl.arange(0, BLOCK_T)
    tl.store(delta_ptr + row * n_queries + queries, tl.sum(y * d_y, axis=1), mask=queries < n_queries)


@triton.jit
def _attention_3_backward_q(
    q_ptr,
    k_ptr,
    v_ptr,
    bias_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_q_ptr,
    q_strides,
    k_strides,
    v_strides,
    bias_strides,
    d_y_strides,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    n_blocks = tl.cdiv(n_queries, BLOCK_T)
    # Blocks that see the most begin first.
    first = (n_blocks - 1 - tl.program_id(0) % n_blocks) * BLOCK_T
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    k_base = tm.matrix(k_ptr, k_strides, batch, head)
    v_base = tm.matrix(v_ptr, v_strides, batch, head)
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    bias_base = bias_ptr + tl.cast(head, tl.int64) * bias_strides[0]
    queries = first + tl.arange(0, BLOCK_T)[:, None]
    q = tm.load_rows(q_base, first, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
    d_y = tm.load_rows(d_y_base, first, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
    lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
    delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
    d_q = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(0, min(first + BLOCK_T, n_keys), BLOCK_S):
        keys = start + tl.arange(0, BLOCK_S)[None, :]
        k = tm.load_rows(k_base, start, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
        v = tm.load_rows(v_base, start, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * tm.LOG2E)
        places = keys.to(tl.int64) * bias_strides[2]
        inside = keys < n_keys
        bias = tl.load(bias_base + places, mask=inside, other=0.0).to(tl.float32)
        scores += bias * tm.LOG2E
        weights = tl.exp2(scores - lse)
        d_weights = tl.dot(d_y, tl.trans(v), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta)
        if (start + BLOCK_S > n_keys) | (start + BLOCK_S > first + 1):
            seen = (keys < n_keys) & (keys <= queries)
            d_scores = tl.where(seen, d_scores, 0.0)
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)
    d_q *= scale
    tm.store_rows(d_q_ptr + (batch * n_queries * n_heads + head) * D, d_q, first, n_queries, n_heads * D, D)


@triton.jit
def _attention_3_backward_kv(
    q_ptr,
    k_ptr,
    v_ptr,
    bias_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_k_ptr,
    d_v_ptr,
    q_strides,
    k_strides,
    v_strides,
    bias_strides,
    d_y_strides,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    n_blocks = tl.cdiv(n_keys, BLOCK_S)
    first = tl.program_id(0) % n_blocks * BLOCK_S
    last = first + BLOCK_S - 1
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    batch, head = row // n_heads, row % n_heads
    k_base = tm.matrix(k_ptr, k_strides, batch, head)
    v_base = tm.matrix(v_ptr, v_strides, batch, head)
    keys = first + tl.arange(0, BLOCK_S)[:, None]
    k = tm.load_rows(k_base, first, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
    v = tm.load_rows(v_base, first, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
    d_k = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    d_v = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    q_base = tm.matrix(q_ptr, q_strides, batch, head)
    d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
    bias_base = bias_ptr + tl.cast(head, tl.int64) * bias_strides[0]
    for start in range(first // BLOCK_T * BLOCK_T, n_queries, BLOCK_T):
        queries = start + tl.arange(0, BLOCK_T)[None, :]
        q = tm.load_rows(q_base, start, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
        d_y = tm.load_rows(d_y_base, start, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
        lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
        delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * tm.LOG2E)
        places = keys.to(tl.int64) * bias_strides[2]
        inside = keys < n_keys
        bias = tl.load(bias_base + places, mask=inside, other=0.0).to(tl.float32)
        scores += bias * tm.LOG2E
        weights = tl.exp2(scores - lse)
        d_weights = tl.dot(v, tl.trans(d_y), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta)
        if (start + BLOCK_T > n_queries) | (start < last):
            seen = (queries < n_queries) & (keys <= queries)
            weights = tl.where(seen, weights, 0.0)
            d_scores = tl.where(seen, d_scores, 0.0)
        d_v = tl.dot(weights.to(d_y.dtype), d_y, d_v, input_precision=PRECISION)
        d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    d_k *= scale
    tm.store_rows(d_k_ptr + (batch * n_keys * n_heads + head) * D, d_k, first, n_keys, n_heads * D, D)
    tm.store_rows(d_v_ptr + (batch * n_keys * n_heads + head) * E, d_v, first, n_keys, n_heads * E, E)


@triton.jit
def _attention_3_backward_bias(
    q_ptr,
    k_ptr,
    v_ptr,
    bias_ptr,
    lse_ptr,
    d_y_ptr,
    delta_ptr,
    d_bias_ptr,
    q_strides,
    k_strides,
    v_strides,
    bias_strides,
    d_y_strides,
    d_bias_strides,
    n_batch,
    n_heads,
    n_queries,
    n_keys,
    scale,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    program = tl.program_id(0)
    first_key = program % tl.cdiv(n_keys, BLOCK_S) * BLOCK_S
    head = program // tl.cdiv(n_keys, BLOCK_S)
    keys = first_key + tl.arange(0, BLOCK_S)[None, :]
    d_bias = tl.zeros([1, BLOCK_S], tl.float32)
    for batch in range(n_batch):
        for first_query in range(first_key // BLOCK_T * BLOCK_T, n_queries, BLOCK_T):
            row = tl.cast(batch, tl.int64) * n_heads + head
            q_base = tm.matrix(q_ptr, q_strides, batch, head)
            k_base = tm.matrix(k_ptr, k_strides, batch, head)
            v_base = tm.matrix(v_ptr, v_strides, batch, head)
            d_y_base = tm.matrix(d_y_ptr, d_y_strides, batch, head)
            bias_base = bias_ptr + tl.cast(head, tl.int64) * bias_strides[0]
            queries = first_query + tl.arange(0, BLOCK_T)[:, None]
            q = tm.load_rows(q_base, first_query, n_queries, q_strides[2], D, BLOCK_T, BLOCK_D)
            k = tm.load_rows(k_base, first_key, n_keys, k_strides[2], D, BLOCK_S, BLOCK_D)
            v = tm.load_rows(v_base, first_key, n_keys, v_strides[2], E, BLOCK_S, BLOCK_E)
            d_y = tm.load_rows(d_y_base, first_query, n_queries, d_y_strides[2], E, BLOCK_T, BLOCK_E)
            lse = tl.load(lse_ptr + row * n_queries + queries, mask=queries < n_queries, other=float("inf"))
            delta = tl.load(delta_ptr + row * n_queries + queries, mask=queries < n_queries, other=0.0)
            scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * tm.LOG2E)
            places = keys.to(tl.int64) * bias_strides[2]
            inside = keys < n_keys
            bias = tl.load(bias_base + places, mask=inside, other=0.0).to(tl.float32)
            scores += bias * tm.LOG2E
            weights = tl.exp2(scores - lse)
            d_weights = tl.dot(d_y, tl.trans(v), input_precision=PRECISION)
            seen = (queries < n_queries) & (keys < n_keys) & (keys <= queries)
            d_scores = tl.where(seen, weights * (d_weights - delta), 0.0)
            d_bias += tl.sum(d_scores, axis=0, keep_dims=True)
    d_bias_base = d_bias_ptr + tl.cast(head, tl.int64) * d_bias_strides[0]
    places = keys.to(tl.int64) * d_bias_strides[2]
    tl.store(d_bias_base + places, d_bias, mask=keys < n_keys)


@launch.falls_back_to(attention_3_reference)
class _Attention3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qv, k, bias):
        q, k, v = (launch.rows_together(each) for each in (qv, k, qv))
        n_batch, n_heads, n_queries, width = q.shape
        *_, n_keys, v_width = v.shape
        scale = width**-0.5
        y = q.new_empty(n_batch, n_queries, n_heads, v_width).transpose(1, 2)
        lse = q.new_empty(n_batch, n_heads, n_queries, dtype=torch.float32)
        if y.numel():
            tile = attention_tiles.tile("forward rich", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_queries, tile.queries)
            strides = [each.stride() for each in (q, k, v, bias)]
            _attention_3_forward[(programs,)](
                q,
                k,
                v,
                bias,
                y,
                lse,
                *strides,
                n_heads,
                n_queries,
                n_keys,
                scale,
                **tile.options,
            )
        ctx.save_for_backward(q, k, v, bias, y, lse)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        q, k, v, bias, y, lse = ctx.saved_tensors
        scale = ctx.scale
        d_y = launch.rows_together(d_y)
        n_batch, n_heads, n_queries, width = q.shape
        *_, n_keys, v_width = v.shape
        strides = [each.stride() for each in (q, k, v, bias, d_y)]
        delta = torch.empty_like(lse)
        d_q = q.new_empty(n_batch, n_queries, n_heads, width).transpose(1, 2)
        if d_q.numel():
            programs = n_batch * n_heads * triton.cdiv(n_queries, attention_tiles.DELTA_ROWS)
            _attention_3_backward_delta[(programs,)](
                y,
                d_y,
                delta,
                d_y.stride(),
                n_heads,
                n_queries,
                E=v_width,
                BLOCK_T=attention_tiles.DELTA_ROWS,
                BLOCK_E=launch.power_of_two(v_width),
            )
            tile = attention_tiles.tile("backward_q rich", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_queries, tile.queries)
            _attention_3_backward_q[(programs,)](
                q,
                k,
                v,
                bias,
                lse,
                d_y,
                delta,
                d_q,
                *strides,
                n_heads,
                n_queries,
                n_keys,
                scale,
                **tile.options,
            )
        d_k = k.new_empty(n_batch, n_keys, n_heads, width).transpose(1, 2)
        d_v = v.new_empty(n_batch, n_keys, n_heads, v_width).transpose(1, 2)
        if d_k.numel():
            tile = attention_tiles.tile("backward_kv rich", width, v_width, q.dtype)
            programs = n_batch * n_heads * triton.cdiv(n_keys, tile.keys)
            _attention_3_backward_kv[(programs,)](
                q,
                k,
                v,
                bias,
                lse,
                d_y,
                delta,
                d_k,
                d_v,
                *strides,
                n_heads,
                n_queries,
                n_keys,
                scale,
                **tile.options,
            )
        d_bias = bias.new_empty(bias.shape) if ctx.needs_input_grad[2] else None
        if d_bias is not None and d_bias.numel():
            tile = attention_tiles.tile("backward_bias rich", width, v_width, q.dtype)
            programs = n_heads * triton.cdiv(n_keys, tile.keys)
            _attention_3_backward_bias[(programs,)](
                q,
                k,
                v,
                bias,
                lse,
                d_y,
                delta,
                d_bias,
                *strides,
                d_bias.stride(),
                n_batch,
                n_heads,
                n_queries,
                n_keys,
                scale,
                **tile.options,
            )
        return d_q + d_v, d_k, d_bias


def attention_3(x: Tensor, near: Tensor, table: Tensor) -> Tensor:
    if launch.use_kernels(x, near, table):
        return _Attention3.apply(x, near, table)
    return attention_3_reference(x, near, table)
