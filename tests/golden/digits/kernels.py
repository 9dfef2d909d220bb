"""Fused kernels of digits.model, written by tdsl 0.1.0.

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

from tdsl.runtime import launch, random
from tdsl.runtime import triton_math as tm

# rms_norm: digits.model:8
#     return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + eps) * weight
# Moves 8 bytes (f32) an element forward, 12 backward.


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt((x**2).mean(dim=-1, keepdim=True) + eps) * weight


@triton.jit
def _rms_norm_forward(
    x_ptr,
    weight_ptr,
    y_ptr,
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
    total = tl.sum(tl.where(mask, x * x, 0.0), axis=1, keep_dims=True)
    inverse = tl.rsqrt(total / N_COLS + eps)
    y = x * inverse * weight
    tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(inverse_ptr + rows, inverse, mask=row_mask)


@triton.jit
def _rms_norm_backward(
    x_ptr,
    weight_ptr,
    inverse_ptr,
    d_y_ptr,
    d_x_ptr,
    d_weight_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    col_mask = cols < N_COLS
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    d_weight_sum = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    for first in range(tl.program_id(0) * BLOCK_ROWS, n_rows, tl.num_programs(0) * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)
        row_mask = rows < n_rows
        mask = row_mask & col_mask
        offsets = rows * N_COLS + cols
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        inverse = tl.load(inverse_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_product = d_y * weight
        d_inverse = tl.sum(tl.where(mask, d_product * x, 0.0), axis=1, keep_dims=True)
        product = d_inverse * (-0.5) * inverse * inverse * inverse / N_COLS * x
        d_x = d_product * inverse + product + product
        tl.store(d_x_ptr + offsets, d_x, mask=mask)
        d_weight_sum += tl.where(mask, d_y * (x * inverse), 0.0)
    d_weight_sum = tl.sum(d_weight_sum, axis=0, keep_dims=True)
    tl.store(d_weight_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_weight_sum, mask=col_mask)


@launch.falls_back_to(rms_norm_reference)
class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        shape = x.shape
        ctx.weight_shape = weight.shape
        x, weight = x.contiguous(), weight.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=2)
        y = torch.empty_like(x)
        inverse = x.new_empty(n_rows, dtype=torch.float32)
        if shape.numel():
            _rms_norm_forward[(triton.cdiv(n_rows, tile.rows),)](
                x,
                weight,
                y,
                inverse,
                n_rows,
                eps,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x, weight, inverse)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, weight, inverse = ctx.saved_tensors
        shape = ctx.shape
        d_y = d_y.contiguous()
        n_cols = shape[-1]
        n_rows = shape.numel() // max(n_cols, 1)
        tile = launch.row_tile(n_cols, live=6)
        programs = launch.programs(n_rows, tile.rows)
        d_x = torch.empty_like(x)
        d_weight = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        if shape.numel():
            _rms_norm_backward[(programs,)](
                x,
                weight,
                inverse,
                d_y,
                d_x,
                d_weight,
                n_rows,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_x, d_weight.sum(0).view(ctx.weight_shape).to(d_y.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if launch.use_kernels(x, weight):
        return _RmsNorm.apply(x, weight, eps)
    return rms_norm_reference(x, weight, eps)


# gelu_dropout: digits.model:18
#     h = dropout(gelu(up(norm(x))), dropout_p)
# Moves 8 bytes (f32) an element forward, 12 backward.


def gelu_dropout_reference(up: Tensor, p: float, seed: int) -> Tensor:
    return random.dropout(F.gelu(up), p, seed)


@triton.jit
def _gelu_dropout_forward(up_ptr, h_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    up = tl.load(up_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    draw = tm.uniform(seed, tl.program_id(0).to(tl.int64) * BLOCK, BLOCK)
    h = 0.5 * up * (1.0 + tl.erf(up * 0.7071067811865476)) / tl.where(draw >= p, 1.0 - p, float("inf"))
    tl.store(h_ptr + offsets, h, mask=mask)


@triton.jit
def _gelu_dropout_backward(up_ptr, d_h_ptr, d_up_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    up = tl.load(up_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_h = tl.load(d_h_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    product = up * 0.7071067811865476
    draw = tm.uniform(seed, tl.program_id(0).to(tl.int64) * BLOCK, BLOCK)
    d_product = d_h / tl.where(draw >= p, 1.0 - p, float("inf"))
    d_product_2 = d_product * (0.5 * up) * 1.1283791670955126 * tl.exp(-product * product)
    d_up = d_product_2 * 0.7071067811865476 + d_product * (1.0 + tl.erf(product)) * 0.5
    tl.store(d_up_ptr + offsets, d_up, mask=mask)


@launch.falls_back_to(gelu_dropout_reference)
class _GeluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, up, p, seed):
        shape = up.shape
        up = up.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        h = torch.empty_like(up)
        if n:
            _gelu_dropout_forward[(triton.cdiv(n, tile.cols),)](
                up,
                h,
                n,
                p,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(up)
        ctx.shape = shape
        ctx.p = p
        ctx.seed = seed
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, d_h):
        (up,) = ctx.saved_tensors
        p = ctx.p
        seed = ctx.seed
        shape = ctx.shape
        d_h = d_h.contiguous()
        n = shape.numel()
        tile = launch.flat_tile()
        d_up = torch.empty_like(up)
        if n:
            _gelu_dropout_backward[(triton.cdiv(n, tile.cols),)](
                up,
                d_h,
                d_up,
                n,
                p,
                seed,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_up, None, None


def gelu_dropout(up: Tensor, p: float) -> Tensor:
    seed = random.next_seed()
    if launch.use_kernels(up):
        return _GeluDropout.apply(up, p, seed)
    return gelu_dropout_reference(up, p, seed)


# cross_entropy: digits.model:51
#     return cross_entropy(model(batch.pixels), batch.label, label_smoothing=0.05)
# Moves 4 bytes (f32) a score forward, 8 backward.


def cross_entropy_reference(scores: Tensor, batch_label: Tensor) -> Tensor:
    return F.cross_entropy(scores, batch_label, label_smoothing=0.05)


@triton.jit
def _cross_entropy_count(
    target_ptr,
    counts_ptr,
    n_rows,
    BLOCK: tl.constexpr,
):
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(tl.program_id(0) * BLOCK, n_rows, tl.num_programs(0) * BLOCK):
        rows = first + tl.arange(0, BLOCK)
        row_mask = rows < n_rows
        label = tl.load(target_ptr + rows, mask=row_mask, other=0).to(tl.int64)
        counted = row_mask & (label != -100)
        total += tl.where(counted, 1.0, 0.0)
    tl.store(counts_ptr + tl.program_id(0), tl.sum(total))


@triton.jit
def _cross_entropy_forward(
    scores_ptr,
    target_ptr,
    counts_ptr,
    losses_ptr,
    tops_ptr,
    logs_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    N_COUNTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    ALONE: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    start = scores_ptr + rows * ROW_STRIDE
    label = tl.load(target_ptr + rows, mask=row_mask, other=0).to(tl.int64)
    counted = row_mask & (label != -100)
    known = (label >= 0) & (label < N_COLS)
    # A label that is no class has the score NaN, and so has the loss.
    score = tl.load(start + label, mask=row_mask & known, other=float("nan")).to(tl.float32)
    # Every eight scores have a maximum and a sum of their own: these meet where the row ends.
    tops = tl.full([BLOCK_ROWS, BLOCK_COLS // 8], -3.4028234663852886e38, tl.float32)
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLS // 8], tl.float32)
    for first in range(0, N_COLS, BLOCK_COLS):
        at = first + cols
        mask = row_mask & (at < N_COLS)
        x = tl.load(start + at, mask=mask, other=float("-inf")).to(tl.float32)
        eights = tl.reshape(x, [BLOCK_ROWS, BLOCK_COLS // 8, 8])
        higher = tl.maximum(tops, tl.max(eights, axis=2))
        sums = sums * tl.exp(tops - higher) + tl.sum(tl.exp(eights - higher[:, :, None]), axis=2)
        tops = higher
    top = tl.max(tops, axis=1, keep_dims=True)
    sums *= tl.exp(tops - top)
    log_sum = tl.log(tl.sum(sums, axis=1, keep_dims=True))
    if ALONE:
        # One program has all the rows: it counts them itself.
        count = tl.sum(tl.where(counted, 1.0, 0.0))
        parts = tl.arange(0, N_COUNTS)
        tl.store(counts_ptr + parts, tl.where(parts == 0, count, 0.0))
    else:
        count = tl.sum(tl.load(counts_ptr + tl.arange(0, N_COUNTS)))
    spread = tl.zeros([BLOCK_ROWS, 1], tl.float32)
    # Back from the end of the row, which the cache surely holds.
    for passed in range(0, N_COLS, BLOCK_COLS):
        at = (N_COLS - 1) // BLOCK_COLS * BLOCK_COLS - passed + cols
        mask = row_mask & (at < N_COLS)
        x = tl.load(start + at, mask=mask, other=float("-inf")).to(tl.float32)
        spread += tl.sum(tl.where(mask, log_sum - (x - top), 0.0), axis=1, keep_dims=True)
    loss = tl.where(counted, 0.95 * (log_sum - (score - top)) + 0.05 / N_COLS * spread, 0.0)
    if ALONE:
        tl.store(losses_ptr, tl.sum(loss) / count)
    else:
        tl.store(losses_ptr + rows, loss / count, mask=row_mask)
    tl.store(tops_ptr + rows, top, mask=row_mask)
    tl.store(logs_ptr + rows, log_sum, mask=row_mask)


@triton.jit
def _cross_entropy_backward(
    scores_ptr,
    target_ptr,
    counts_ptr,
    tops_ptr,
    logs_ptr,
    d_loss_ptr,
    d_scores_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    N_COUNTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    at = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
    mask = row_mask & (at < N_COLS)
    label = tl.load(target_ptr + rows, mask=row_mask, other=0).to(tl.int64)
    counted = row_mask & (label != -100)
    known = (label >= 0) & (label < N_COLS)
    count = tl.sum(tl.load(counts_ptr + tl.arange(0, N_COUNTS)))
    d_loss = tl.load(d_loss_ptr).to(tl.float32)
    scale = tl.where(counted, tl.where(known, d_loss / count, float("nan")), 0.0)
    top = tl.load(tops_ptr + rows, mask=row_mask, other=0.0)
    log_sum = tl.load(logs_ptr + rows, mask=row_mask, other=0.0)
    x = tl.load(scores_ptr + rows * ROW_STRIDE + at, mask=mask, other=float("-inf")).to(tl.float32)
    found = tl.exp(x - top - log_sum)
    wanted = tl.where(at == label, 0.95, 0.0) + 0.05 / N_COLS
    tl.store(d_scores_ptr + rows * N_COLS + at, (found - wanted) * scale, mask=mask)


@launch.falls_back_to(cross_entropy_reference)
class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, target):
        n_rows, n_cols = target.numel(), scores.shape[-1]
        rows, labels = launch.matrix(scores, n_rows, n_cols), target.reshape(-1).contiguous()
        tile = launch.class_tile(rows)
        alone = n_rows <= tile.rows
        losses = scores.new_empty(1 if alone else n_rows, dtype=torch.float32)
        tops, logs = scores.new_empty(2, n_rows, dtype=torch.float32)
        counts = scores.new_empty(launch.COUNTS, dtype=torch.float32)
        if not alone:
            _cross_entropy_count[(launch.COUNTS,)](
                labels,
                counts,
                n_rows,
                BLOCK=1024,
            )
        _cross_entropy_forward[(max(triton.cdiv(n_rows, tile.rows), 1),)](
            rows,
            labels,
            counts,
            losses,
            tops,
            logs,
            n_rows,
            N_COLS=n_cols,
            ROW_STRIDE=rows.stride(0),
            N_COUNTS=launch.COUNTS,
            BLOCK_ROWS=tile.rows,
            BLOCK_COLS=tile.cols,
            ALONE=alone,
            num_warps=tile.warps,
        )
        ctx.save_for_backward(rows, labels, tops, logs, counts)
        ctx.shape = scores.shape
        loss = losses.view(()) if alone else losses.sum()
        return loss.to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss):
        rows, labels, tops, logs, counts = ctx.saved_tensors
        n_rows, n_cols = rows.shape
        tile = launch.class_tile(rows)
        d_scores = rows.new_empty(n_rows, n_cols)
        if d_scores.numel():
            _cross_entropy_backward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                rows,
                labels,
                counts,
                tops,
                logs,
                d_loss,
                d_scores,
                n_rows,
                N_COLS=n_cols,
                ROW_STRIDE=rows.stride(0),
                N_COUNTS=launch.COUNTS,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        return d_scores.view(ctx.shape), None


def cross_entropy(scores: Tensor, batch_label: Tensor) -> Tensor:
    if launch.use_kernels(scores, batch_label):
        return _CrossEntropy.apply(scores, batch_label)
    return cross_entropy_reference(scores, batch_label)
