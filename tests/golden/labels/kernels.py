"""Fused kernels of labels.model, written by tdsl 0.1.0.

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

# cross_entropy: labels.model:6
#     return cross_entropy(head(x), label, ignore_index=3, label_smoothing=0.1)
# Moves 4 bytes (f32) a score forward, 8 backward.


def cross_entropy_reference(scores: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(scores, label, ignore_index=3, label_smoothing=0.1)


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
        counted = row_mask & (label != 3)
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
    counted = row_mask & (label != 3)
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
    loss = tl.where(counted, 0.9 * (log_sum - (score - top)) + 0.1 / N_COLS * spread, 0.0)
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
    counted = row_mask & (label != 3)
    known = (label >= 0) & (label < N_COLS)
    count = tl.sum(tl.load(counts_ptr + tl.arange(0, N_COUNTS)))
    d_loss = tl.load(d_loss_ptr).to(tl.float32)
    scale = tl.where(counted, tl.where(known, d_loss / count, float("nan")), 0.0)
    top = tl.load(tops_ptr + rows, mask=row_mask, other=0.0)
    log_sum = tl.load(logs_ptr + rows, mask=row_mask, other=0.0)
    x = tl.load(scores_ptr + rows * ROW_STRIDE + at, mask=mask, other=float("-inf")).to(tl.float32)
    found = tl.exp(x - top - log_sum)
    wanted = tl.where(at == label, 0.9, 0.0) + 0.1 / N_COLS
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


def cross_entropy(scores: Tensor, label: Tensor) -> Tensor:
    if launch.use_kernels(scores, label):
        return _CrossEntropy.apply(scores, label)
    return cross_entropy_reference(scores, label)


# cross_entropy_2: labels.model:13
#     return -log_softmax(head(x), dim=-1).gather(-1, label[..., none]).mean()
# Moves 8 bytes (f32) a score: the forward writes the gradient, the backward scales it where it must.


def cross_entropy_2_reference(scores: Tensor, label: Tensor) -> Tensor:
    return -F.log_softmax(scores, dim=-1).gather(-1, label[..., None]).mean()


@triton.jit
def _cross_entropy_2_forward(
    scores_ptr,
    target_ptr,
    losses_ptr,
    d_scores_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    D_ROW_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    ALONE: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    row_mask = rows < n_rows
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    start = scores_ptr + rows * ROW_STRIDE
    label = tl.load(target_ptr + rows, mask=row_mask, other=0).to(tl.int64)
    known = (label >= 0) & (label < N_COLS)
    # A label that is no class has the score NaN, and so has the loss.
    score = tl.load(start + label, mask=row_mask & known, other=float("nan")).to(tl.float32)
    # Every eight scores have a maximum and a sum of their own: these meet where the row ends.
    tops = tl.full([BLOCK_ROWS, BLOCK_COLS // 8], -3.4028234663852886e38, tl.float32)
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLS // 8], tl.float32)
    for first in range(0, N_COLS, BLOCK_COLS):
        at = first + cols
        mask = row_mask & (at < N_COLS)
        x = tl.load(start + at, mask=mask, other=float("-inf"), eviction_policy="evict_last").to(tl.float32)
        eights = tl.reshape(x, [BLOCK_ROWS, BLOCK_COLS // 8, 8])
        higher = tl.maximum(tops, tl.max(eights, axis=2))
        sums = sums * tl.exp(tops - higher) + tl.sum(tl.exp(eights - higher[:, :, None]), axis=2)
        tops = higher
    top = tl.max(tops, axis=1, keep_dims=True)
    sums *= tl.exp(tops - top)
    log_sum = tl.log(tl.sum(sums, axis=1, keep_dims=True))
    if WITH_GRADIENT:
        scale = tl.where(known, 1.0 / n_rows, float("nan"))
        d_start = d_scores_ptr + rows * D_ROW_STRIDE
        # Back from the end of the row, which the cache surely holds.
        for passed in range(0, N_COLS, BLOCK_COLS):
            at = (N_COLS - 1) // BLOCK_COLS * BLOCK_COLS - passed + cols
            mask = row_mask & (at < N_COLS)
            x = tl.load(start + at, mask=mask, other=float("-inf"), eviction_policy="evict_first").to(tl.float32)
            found = tl.exp(x - top - log_sum)
            wanted = tl.where(at == label, 1.0, 0.0)
            tl.store(d_start + at, (found - wanted) * scale, mask=mask, eviction_policy="evict_first")
    loss = tl.where(row_mask, log_sum - (score - top), 0.0)
    if ALONE:
        tl.store(losses_ptr, tl.sum(loss) / n_rows)
    else:
        tl.store(losses_ptr + rows, loss / n_rows, mask=row_mask)


@triton.jit
def _cross_entropy_2_scale(gradient_ptr, by_ptr, n, BLOCK: tl.constexpr):
    by = tl.load(by_ptr).to(tl.float32)
    # Most often the loss is where the backward begins, and its own gradient 1.
    if by != 1.0:
        for first in range(tl.program_id(0).to(tl.int64) * BLOCK, n, tl.num_programs(0) * BLOCK):
            at = first + tl.arange(0, BLOCK)
            gradient = tl.load(gradient_ptr + at, mask=at < n, other=0.0).to(tl.float32)
            tl.store(gradient_ptr + at, gradient * by, mask=at < n)


@launch.falls_back_to(cross_entropy_2_reference)
class _CrossEntropy2(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, target):
        n_rows, n_cols = target.numel(), scores.shape[-1]
        rows, labels = launch.matrix(scores, n_rows, n_cols), target.reshape(-1).contiguous()
        tile = launch.class_tile(rows)
        alone = n_rows <= tile.rows
        losses = scores.new_empty(1 if alone else n_rows, dtype=torch.float32)
        trains = ctx.needs_input_grad[0]
        d_scores = scores.new_empty(n_rows, n_cols) if trains else rows
        _cross_entropy_2_forward[(max(triton.cdiv(n_rows, tile.rows), 1),)](
            rows,
            labels,
            losses,
            d_scores,
            n_rows,
            N_COLS=n_cols,
            ROW_STRIDE=rows.stride(0),
            D_ROW_STRIDE=d_scores.stride(0),
            BLOCK_ROWS=tile.rows,
            BLOCK_COLS=tile.cols,
            ALONE=alone,
            WITH_GRADIENT=trains,
            num_warps=tile.warps,
        )
        if trains:
            ctx.save_for_backward(d_scores)
        ctx.shape = scores.shape
        loss = losses.view(()) if alone else losses.sum()
        return loss.to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss):
        (d_scores,) = ctx.saved_tensors
        n = d_scores.numel()
        if n:
            _cross_entropy_2_scale[(launch.programs(n, 8192),)](d_scores, d_loss, n, BLOCK=8192, num_warps=8)
            torch.autograd.graph.increment_version(d_scores)
        return d_scores.view(ctx.shape), None


def cross_entropy_2(scores: Tensor, label: Tensor) -> Tensor:
    if launch.use_kernels(scores, label):
        return _CrossEntropy2.apply(scores, label)
    return cross_entropy_2_reference(scores, label)
