"""Fused kernels of residual_images.model, written by tdsl 0.1.0.

For each group: what it computes, in plain PyTorch (the reference), the Triton kernels for both directions, and the
function that the modules call. On a GPU it runs the kernels, elsewhere the reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tdsl.runtime import batch_norm, launch

# Batch statistics, for all batch norms below. Kernels take a tensor [N, C, ...] as a matrix whose column j belongs to
# channel j % C. The columns are the C channels where these lie together in memory (channels last), else N * C planes.


@triton.jit
def _joined(count, mean, m2):
    """Statistics of several parts, a row each, as one (Chan et al., 1979): their count, mean and squared distances."""
    total = tl.sum(count, axis=0)
    joint = tl.sum(count * mean, axis=0) / total
    joint += tl.sum(count * (mean - joint), axis=0) / total  # what the first sum lost to rounding
    return total, joint, tl.sum(m2 + count * (mean - joint) * (mean - joint), axis=0)


@triton.jit
def _column_statistics(
    x_ptr,
    mean_ptr,
    m2_ptr,
    n_rows,
    n_cols,
    part,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """The mean of a part of each column, and the squared distances from it, summed as they come (Welford, 1962)."""
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    cols = tl.program_id(0).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    count = tl.zeros([BLOCK_ROWS, 1], tl.float32)
    mean = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    m2 = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    stop = tl.minimum((tl.program_id(1) + 1) * part, n_rows)
    for first in range(tl.program_id(1) * part, stop, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)
        row_mask = rows < stop
        mask = row_mask & col_mask
        x = tl.load(x_ptr + rows * ROW_STRIDE + cols * COL_STRIDE, mask=mask, other=0.0).to(tl.float32)
        count += tl.where(row_mask, 1.0, 0.0)
        distance = tl.where(mask, x - mean, 0.0)
        mean += distance * (1.0 / tl.maximum(count, 1.0))
        m2 += distance * (x - mean)
    count, mean, m2 = _joined(count, mean, m2)
    offsets = tl.program_id(1).to(tl.int64) * n_cols + cols
    tl.store(mean_ptr + offsets, mean, mask=col_mask)
    tl.store(m2_ptr + offsets, m2, mask=col_mask)


@triton.jit
def _channel_statistics(
    part_mean_ptr,
    part_m2_ptr,
    mean_ptr,
    variance_ptr,
    running_mean_ptr,
    running_var_ptr,
    tracked_ptr,
    momentum,
    n_rows,
    n_cols,
    parts,
    part,
    CHANNELS: tl.constexpr,
    TRACKS: tl.constexpr,
    CUMULATIVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """The mean and the variance of each channel from those of its parts; the running ones move towards them."""
    channels = tl.program_id(0) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    channel_mask = channels < CHANNELS
    columns = n_cols // CHANNELS  # of a channel: each has as many parts
    count = tl.zeros([BLOCK_COLS], tl.float32)
    mean = tl.zeros([BLOCK_COLS], tl.float32)
    m2 = tl.zeros([BLOCK_COLS], tl.float32)
    for first in range(0, parts * columns, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)
        mask = (rows < parts * columns) & channel_mask
        part_count = tl.where(mask, tl.minimum(n_rows - rows // columns * part, part), 0).to(tl.float32)
        part_mean = tl.load(part_mean_ptr + rows * CHANNELS + channels, mask=mask, other=0.0)
        part_m2 = tl.load(part_m2_ptr + rows * CHANNELS + channels, mask=mask, other=0.0)
        more, part_mean, part_m2 = _joined(tl.where(channel_mask, part_count, 1.0), part_mean, part_m2)
        distance = part_mean - mean
        m2 += part_m2 + distance * distance * count * (more / (count + more))
        count += more
        mean += distance * (more / count)
    tl.store(mean_ptr + channels, mean, mask=channel_mask)
    tl.store(variance_ptr + channels, m2 / count, mask=channel_mask)
    if TRACKS:
        if CUMULATIVE:
            momentum = 1.0 / tl.load(tracked_ptr).to(tl.float32)
        elif tl.program_id(0) == 0:
            tl.store(tracked_ptr, tl.load(tracked_ptr) + 1)
        running_mean = tl.load(running_mean_ptr + channels, mask=channel_mask, other=0.0)
        running_var = tl.load(running_var_ptr + channels, mask=channel_mask, other=0.0)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (m2 / (count - 1.0) - running_var)
        tl.store(running_mean_ptr + channels, running_mean, mask=channel_mask)
        tl.store(running_var_ptr + channels, running_var, mask=channel_mask)


def _statistics(norm, x, at):
    """The mean and the variance by which a norm works: those of the batch, or the running ones; None where folded."""
    if not batch_norm.of_batch(norm):
        return norm.running_mean, norm.running_var
    channels = x.shape[1]
    part_mean, part_m2 = (x.new_empty(at.parts, at.cols, dtype=torch.float32) for _ in range(2))
    mean, variance = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
    _column_statistics[at.sums](x, part_mean, part_m2, at.rows, at.cols, at.part, **at.constants)
    tracks = norm.training and norm.running_mean is not None
    running = (norm.running_mean, norm.running_var, norm.num_batches_tracked) if tracks else (mean, variance, mean)
    cumulative = tracks and norm.momentum is None
    if cumulative:  # a mean over all batches: the kernel reads how many there are
        norm.num_batches_tracked.add_(1)
    _channel_statistics[(triton.cdiv(channels, 8),)](
        part_mean,
        part_m2,
        mean,
        variance,
        *running,
        0.0 if norm.momentum is None else norm.momentum,
        at.rows,
        at.cols,
        at.parts,
        at.part,
        CHANNELS=channels,
        TRACKS=tracks,
        CUMULATIVE=cumulative,
        BLOCK_ROWS=256,
        BLOCK_COLS=8,
    )
    if tracks:
        torch.autograd.graph.increment_version(running)
    return mean, variance


# batch_norm_relu: residual_images.model:10
#     h = x |> conv1 |> norm1 |> relu |> conv2 |> norm2
# Moves 12 bytes (f32) an element forward in training, 8 in evaluation, 20 backward.


def batch_norm_relu_reference(x: Tensor, norm: nn.Module) -> Tensor:
    return F.relu(norm(x))


@triton.jit
def _batch_norm_relu_forward(
    x_ptr,
    mean_ptr,
    variance_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    eps,
    n_rows,
    n_cols,
    FOLDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    blocks = tl.cdiv(n_cols, BLOCK_COLS)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    mask = (rows < n_rows)[:, None] & col_mask
    offsets = rows[:, None] * ROW_STRIDE + cols * COL_STRIDE
    z = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if not FOLDED:
        channels = cols % CHANNELS
        mean = tl.load(mean_ptr + channels, mask=col_mask, other=0.0)
        variance = tl.load(variance_ptr + channels, mask=col_mask, other=1.0)
        weight = tl.load(weight_ptr + channels, mask=col_mask, other=0.0)
        bias = tl.load(bias_ptr + channels, mask=col_mask, other=0.0)
        z = (z - mean) * (weight / tl.sqrt_rn(variance + eps)) + bias
    y = tl.where(z <= 0.0, 0.0, z)
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _batch_norm_relu_sums(
    x_ptr,
    mean_ptr,
    variance_ptr,
    weight_ptr,
    bias_ptr,
    d_y_ptr,
    sums_ptr,
    eps,
    n_rows,
    n_cols,
    part,
    CHANNELS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Of each part of a column: the sum of what reaches the norm, and that of its product with what is normalised."""
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    cols = tl.program_id(0).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    channels = cols % CHANNELS
    mean = tl.load(mean_ptr + channels, mask=col_mask, other=0.0)
    inverse = 1.0 / tl.sqrt_rn(tl.load(variance_ptr + channels, mask=col_mask, other=1.0) + eps)
    weight = tl.load(weight_ptr + channels, mask=col_mask, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=col_mask, other=0.0)
    total = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    projected = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    stop = tl.minimum((tl.program_id(1) + 1) * part, n_rows)
    for first in range(tl.program_id(1) * part, stop, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS).to(tl.int64)
        mask = (rows < stop)[:, None] & col_mask
        offsets = rows[:, None] * ROW_STRIDE + cols * COL_STRIDE
        normalised = (tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32) - mean) * inverse
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        z = normalised * weight + bias
        d_z = tl.where(z <= 0.0, 0.0, d_y)
        total += tl.where(mask, d_z, 0.0)
        projected += tl.where(mask, d_z * normalised, 0.0)
    sums = sums_ptr + tl.program_id(1).to(tl.int64) * n_cols + cols
    tl.store(sums, tl.sum(total, axis=0), mask=col_mask)
    tl.store(sums + tl.num_programs(1) * n_cols, tl.sum(projected, axis=0), mask=col_mask)


@triton.jit
def _batch_norm_relu_backward(
    x_ptr,
    mean_ptr,
    variance_ptr,
    weight_ptr,
    bias_ptr,
    d_y_ptr,
    sums_ptr,
    d_x_ptr,
    eps,
    share,
    n_rows,
    n_cols,
    OF_BATCH: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    blocks = tl.cdiv(n_cols, BLOCK_COLS)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    mask = (rows < n_rows)[:, None] & col_mask
    offsets = rows[:, None] * ROW_STRIDE + cols * COL_STRIDE
    channels = cols % CHANNELS
    mean = tl.load(mean_ptr + channels, mask=col_mask, other=0.0)
    inverse = 1.0 / tl.sqrt_rn(tl.load(variance_ptr + channels, mask=col_mask, other=1.0) + eps)
    weight = tl.load(weight_ptr + channels, mask=col_mask, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=col_mask, other=0.0)
    normalised = (tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32) - mean) * inverse
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    z = normalised * weight + bias
    d_z = tl.where(z <= 0.0, 0.0, d_y)
    if OF_BATCH:  # mean and variance are made of x, too
        total = tl.load(sums_ptr + channels, mask=col_mask, other=0.0)
        projected = tl.load(sums_ptr + CHANNELS + channels, mask=col_mask, other=0.0)
        d_z -= (total + normalised * projected) * share
    tl.store(d_x_ptr + offsets, d_z * (weight * inverse), mask=mask)


@launch.falls_back_to(lambda x, weight, bias, norm: batch_norm_relu_reference(x, norm))
class _BatchNormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        x = batch_norm.dense(x)
        at = batch_norm.columns(x)
        mean, variance = _statistics(norm, x, at)
        y = torch.empty_like(x)
        _batch_norm_relu_forward[at.grid](
            x,
            mean,
            variance,
            weight,
            bias,
            y,
            norm.eps,
            at.rows,
            at.cols,
            FOLDED=mean is None,
            CHANNELS=x.shape[1],
            **at.constants,
        )
        ctx.save_for_backward(x, mean, variance, weight, bias)
        ctx.eps, ctx.of_batch = norm.eps, batch_norm.of_batch(norm)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, mean, variance, weight, bias = ctx.saved_tensors
        at = batch_norm.columns(x)
        d_y = batch_norm.like(d_y, x)
        d_x = torch.empty_like(x)
        sums = x.new_empty(2, at.parts, at.cols, dtype=torch.float32)
        _batch_norm_relu_sums[at.sums](
            x,
            mean,
            variance,
            weight,
            bias,
            d_y,
            sums,
            ctx.eps,
            at.rows,
            at.cols,
            at.part,
            CHANNELS=x.shape[1],
            **at.constants,
        )
        sums = sums.view(2, -1, x.shape[1]).sum(1)
        _batch_norm_relu_backward[at.grid](
            x,
            mean,
            variance,
            weight,
            bias,
            d_y,
            sums,
            d_x,
            ctx.eps,
            x.shape[1] / x.numel(),
            at.rows,
            at.cols,
            OF_BATCH=ctx.of_batch,
            CHANNELS=x.shape[1],
            **at.constants,
        )
        return d_x, sums[1], sums[0], None


def batch_norm_relu(x: Tensor, norm: nn.Module) -> Tensor:
    if batch_norm.takes(norm, x):
        return _BatchNormRelu.apply(x, norm.weight, norm.bias, norm)
    return batch_norm_relu_reference(x, norm)


# batch_norm_add_relu: residual_images.model:10, residual_images.model:11
#     h = x |> conv1 |> norm1 |> relu |> conv2 |> norm2
#     return relu(x + h)
# Moves 16 bytes (f32) an element forward in training, 12 in evaluation, 28 backward.


def batch_norm_add_relu_reference(x: Tensor, residual: Tensor, norm: nn.Module) -> Tensor:
    h = norm(x)
    return F.relu(residual + h)


@triton.jit
def _batch_norm_add_relu_forward(
    x_ptr,
    residual_ptr,
    mean_ptr,
    variance_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    eps,
    n_rows,
    n_cols,
    FOLDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    blocks = tl.cdiv(n_cols, BLOCK_COLS)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    mask = (rows < n_rows)[:, None] & col_mask
    offsets = rows[:, None] * ROW_STRIDE + cols * COL_STRIDE
    z = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if not FOLDED:
        channels = cols % CHANNELS
        mean = tl.load(mean_ptr + channels, mask=col_mask, other=0.0)
        variance = tl.load(variance_ptr + channels, mask=col_mask, other=1.0)
        weight = tl.load(weight_ptr + channels, mask=col_mask, other=0.0)
        bias = tl.load(bias_ptr + channels, mask=col_mask, other=0.0)
        z = (z - mean) * (weight / tl.sqrt_rn(variance + eps)) + bias
    z += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = tl.where(z <= 0.0, 0.0, z)
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _batch_norm_add_relu_sums(
    x_ptr,
    y_ptr,
    mean_ptr,
    variance_ptr,
    d_y_ptr,
    d_residual_ptr,
    sums_ptr,
    eps,
    n_rows,
    n_cols,
    part,
    CHANNELS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Of each part of a column: the sum of what reaches the norm, and that of its product with what is normalised."""
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    cols = tl.program_id(0).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    channels = cols % CHANNELS
    mean = tl.load(mean_ptr + channels, mask=col_mask, other=0.0)
    inverse = 1.0 / tl.sqrt_rn(tl.load(variance_ptr + channels, mask=col_mask, other=1.0) + eps)
    total = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    projected = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    stop = tl.minimum((tl.program_id(1) + 1) * part, n_rows)
    for first in range(tl.program_id(1) * part, stop, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS).to(tl.int64)
        mask = (rows < stop)[:, None] & col_mask
        offsets = rows[:, None] * ROW_STRIDE + cols * COL_STRIDE
        normalised = (tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32) - mean) * inverse
        d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        d_z = tl.where(y <= 0.0, 0.0, d_y)
        d_z = d_z.to(d_residual_ptr.dtype.element_ty).to(tl.float32)  # what is summed is what is read again
        tl.store(d_residual_ptr + offsets, d_z, mask=mask)
        total += tl.where(mask, d_z, 0.0)
        projected += tl.where(mask, d_z * normalised, 0.0)
    sums = sums_ptr + tl.program_id(1).to(tl.int64) * n_cols + cols
    tl.store(sums, tl.sum(total, axis=0), mask=col_mask)
    tl.store(sums + tl.num_programs(1) * n_cols, tl.sum(projected, axis=0), mask=col_mask)


@triton.jit
def _batch_norm_add_relu_backward(
    x_ptr,
    mean_ptr,
    variance_ptr,
    weight_ptr,
    d_z_ptr,
    sums_ptr,
    d_x_ptr,
    eps,
    share,
    n_rows,
    n_cols,
    OF_BATCH: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COL_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    if COL_STRIDE == 1:  # one of the sizes is a stride, too: known, so that loads can be wide
        n_cols = ROW_STRIDE
    else:
        n_rows = COL_STRIDE
    blocks = tl.cdiv(n_cols, BLOCK_COLS)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < n_cols
    mask = (rows < n_rows)[:, None] & col_mask
    offsets = rows[:, None] * ROW_STRIDE + cols * COL_STRIDE
    channels = cols % CHANNELS
    mean = tl.load(mean_ptr + channels, mask=col_mask, other=0.0)
    inverse = 1.0 / tl.sqrt_rn(tl.load(variance_ptr + channels, mask=col_mask, other=1.0) + eps)
    weight = tl.load(weight_ptr + channels, mask=col_mask, other=0.0)
    normalised = (tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32) - mean) * inverse
    d_z = tl.load(d_z_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if OF_BATCH:  # mean and variance are made of x, too
        total = tl.load(sums_ptr + channels, mask=col_mask, other=0.0)
        projected = tl.load(sums_ptr + CHANNELS + channels, mask=col_mask, other=0.0)
        d_z -= (total + normalised * projected) * share
    tl.store(d_x_ptr + offsets, d_z * (weight * inverse), mask=mask)


@launch.falls_back_to(lambda x, residual, weight, bias, norm: batch_norm_add_relu_reference(x, residual, norm))
class _BatchNormAddRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, weight, bias, norm):
        x = batch_norm.dense(x)
        residual = batch_norm.like(residual, x)
        at = batch_norm.columns(x)
        mean, variance = _statistics(norm, x, at)
        y = torch.empty_like(x)
        _batch_norm_add_relu_forward[at.grid](
            x,
            residual,
            mean,
            variance,
            weight,
            bias,
            y,
            norm.eps,
            at.rows,
            at.cols,
            FOLDED=mean is None,
            CHANNELS=x.shape[1],
            **at.constants,
        )
        ctx.save_for_backward(x, y, mean, variance, weight)
        ctx.eps, ctx.of_batch = norm.eps, batch_norm.of_batch(norm)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, y, mean, variance, weight = ctx.saved_tensors
        at = batch_norm.columns(x)
        d_y = batch_norm.like(d_y, x)
        d_x = torch.empty_like(x)
        d_residual = torch.empty_like(x)
        sums = x.new_empty(2, at.parts, at.cols, dtype=torch.float32)
        _batch_norm_add_relu_sums[at.sums](
            x,
            y,
            mean,
            variance,
            d_y,
            d_residual,
            sums,
            ctx.eps,
            at.rows,
            at.cols,
            at.part,
            CHANNELS=x.shape[1],
            **at.constants,
        )
        sums = sums.view(2, -1, x.shape[1]).sum(1)
        _batch_norm_add_relu_backward[at.grid](
            x,
            mean,
            variance,
            weight,
            d_residual,
            sums,
            d_x,
            ctx.eps,
            x.shape[1] / x.numel(),
            at.rows,
            at.cols,
            OF_BATCH=ctx.of_batch,
            CHANNELS=x.shape[1],
            **at.constants,
        )
        return d_x, d_residual, sums[1], sums[0], None


def batch_norm_add_relu(x: Tensor, residual: Tensor, norm: nn.Module) -> Tensor:
    if batch_norm.takes(norm, x, residual):
        return _BatchNormAddRelu.apply(x, residual, norm.weight, norm.bias, norm)
    return batch_norm_add_relu_reference(x, residual, norm)


# cross_entropy: residual_images.model:37
#     loss(batch) { return cross_entropy(model(batch.pixels.unflatten(1, (1, 8, 8))), batch.label) }
# Moves 4 bytes (f32) a score forward, 8 backward.


def cross_entropy_reference(scores: Tensor, batch_label: Tensor) -> Tensor:
    return F.cross_entropy(scores, batch_label)


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
    loss = tl.where(counted, log_sum - (score - top), 0.0)
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
    wanted = tl.where(at == label, 1.0, 0.0)
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
