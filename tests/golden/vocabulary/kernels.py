"""Fused kernels of vocabulary.model, written by tdsl 0.1.0.

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

from tdsl.runtime import chunks, launch

# embedding: vocabulary.model:9
#     x = embed(tokens)
# Moves 8 bytes (f32) an element forward, 4 and the table's gradient backward.


def embedding_reference(tokens: Tensor, weight: Tensor) -> Tensor:
    x = F.embedding(tokens, weight)
    return x.to(torch.bfloat16)


@triton.jit
def _embedding_forward(
    tokens_ptr,
    weight_ptr,
    x_ptr,
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
    x = tl.load(weight_ptr + entry * N_COLS + cols, mask=mask & known, other=float("nan"))
    tl.store(x_ptr + rows * N_COLS + cols, x, mask=mask)


@triton.jit
def _embedding_runs(
    entries_ptr,
    places_ptr,
    d_x_ptr,
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
        d_x = tl.load(d_x_ptr + place * N_COLS + cols, mask=mask, other=0.0)
        following = tl.load(entries_ptr + i + 1, mask=i + 1 < n_rows, other=-1).to(tl.int64)
        place = tl.load(places_ptr + i + 1, mask=i + 1 < n_rows, other=0)
        total += d_x.to(tl.float32)
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
        x = weight.new_empty(*tokens.shape, n_cols, dtype=torch.bfloat16)
        if x.numel():
            tile = launch.column_tile(n_cols)
            _embedding_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                tokens,
                weight,
                x,
                n_rows,
                n_entries,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(tokens)
        ctx.shape = weight.shape
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, d_x):
        (tokens,) = ctx.saved_tensors
        n_entries, n_cols = ctx.shape
        d_x = d_x.contiguous()
        d_weight = d_x.new_zeros(n_entries, n_cols, dtype=torch.float32)
        if d_x.numel() and n_entries:
            entries, places = tokens.flatten().sort(stable=True)
            n_rows = entries.numel()
            runs = launch.runs(n_rows, n_cols)
            leading = d_weight.new_empty(runs.programs, n_cols)
            trailing = d_weight.new_empty(runs.programs, n_cols)
            _embedding_runs[(runs.programs, triton.cdiv(n_cols, runs.cols))](
                entries,
                places,
                d_x,
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
        return None, d_weight


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    if launch.use_kernels(tokens, float32=(weight,), writes=torch.bfloat16):
        return _Embedding.apply(tokens, weight)
    return embedding_reference(tokens, weight)


# silu_add_layer_norm: vocabulary.model:10
#     return head(norm(x + silu(x)))
# Moves 8 bytes (f32) an element forward, 12 backward.


def silu_add_layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x_f32 = x.float()
    return F.layer_norm(x_f32 + F.silu(x_f32), (x.shape[-1],), weight, bias).to(x.dtype)


@triton.jit
def _silu_add_layer_norm_forward(
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
    sum = x + x * tl.sigmoid(x)
    total = tl.sum(tl.where(mask, sum, 0.0), axis=1, keep_dims=True)
    quotient = total / N_COLS
    difference = sum - quotient
    total_2 = tl.sum(tl.where(mask, difference * difference, 0.0), axis=1, keep_dims=True)
    inverse = tl.rsqrt(total_2 / N_COLS + 1e-05)
    y = difference * inverse * weight + bias
    tl.store(y_ptr + offsets, y, mask=mask)
    tl.store(quotient_ptr + rows, quotient, mask=row_mask)
    tl.store(inverse_ptr + rows, inverse, mask=row_mask)


@triton.jit
def _silu_add_layer_norm_backward(
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
        sigmoid = tl.sigmoid(x)
        difference = x + x * sigmoid - quotient
        d_product = d_y * weight
        d_inverse = tl.sum(tl.where(mask, d_product * difference, 0.0), axis=1, keep_dims=True)
        product = d_inverse * (-0.5) * inverse * inverse * inverse / N_COLS * difference
        d_difference = d_product * inverse + product + product
        d_quotient = tl.sum(tl.where(mask, -d_difference, 0.0), axis=1, keep_dims=True)
        d_sum = d_difference + d_quotient / N_COLS
        d_x = d_sum + d_sum * sigmoid + d_sum * x * sigmoid * (1.0 - sigmoid)
        tl.store(d_x_ptr + offsets, d_x, mask=mask)
        d_weight_sum += tl.where(mask, d_y * (difference * inverse), 0.0)
        d_bias_sum += tl.where(mask, d_y, 0.0)
    d_weight_sum = tl.sum(d_weight_sum, axis=0, keep_dims=True)
    d_bias_sum = tl.sum(d_bias_sum, axis=0, keep_dims=True)
    tl.store(d_weight_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_weight_sum, mask=col_mask)
    tl.store(d_bias_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols, d_bias_sum, mask=col_mask)


@launch.falls_back_to(silu_add_layer_norm_reference)
class _SiluAddLayerNorm(torch.autograd.Function):
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
            _silu_add_layer_norm_forward[(triton.cdiv(n_rows, tile.rows),)](
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
        tile = launch.row_tile(n_cols, live=10)
        programs = launch.programs(n_rows, tile.rows)
        d_x = torch.empty_like(x)
        d_weight = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        d_bias = d_y.new_empty(programs, n_cols, dtype=torch.float32)
        if shape.numel():
            _silu_add_layer_norm_backward[(programs,)](
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
        return d_x, d_weight.sum(0).view(ctx.weight_shape), d_bias.sum(0).view(ctx.bias_shape)


def silu_add_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if launch.use_kernels(x, float32=(weight, bias)):
        return _SiluAddLayerNorm.apply(x, weight, bias)
    return silu_add_layer_norm_reference(x, weight, bias)


# linear_cross_entropy: vocabulary.model:10, vocabulary.model:28
#     return head(norm(x + silu(x)))
#     return cross_entropy(scores.flatten(0, 1), batch.targets.flatten(0, 1))
# Scores are in memory a chunk at a time (tdsl.runtime.chunks): the forward makes all gradients, the backward scales them.


def linear_cross_entropy_reference(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, weight.to(x.dtype)).float(), target)


@triton.jit
def _linear_cross_entropy_forward(
    scores_ptr,
    target_ptr,
    count_ptr,
    losses_ptr,
    n_rows,
    N_COLS: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
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
        mask = row_mask & (at < ROW_STRIDE)
        x = tl.load(start + at, mask=mask, other=float("-inf"), eviction_policy="evict_last").to(tl.float32)
        x = tl.where(at < N_COLS, x, float("-inf"))
        eights = tl.reshape(x, [BLOCK_ROWS, BLOCK_COLS // 8, 8])
        higher = tl.maximum(tops, tl.max(eights, axis=2))
        sums = sums * tl.exp(tops - higher) + tl.sum(tl.exp(eights - higher[:, :, None]), axis=2)
        tops = higher
    top = tl.max(tops, axis=1, keep_dims=True)
    sums *= tl.exp(tops - top)
    log_sum = tl.log(tl.sum(sums, axis=1, keep_dims=True))
    if WITH_GRADIENT:
        scale = tl.where(counted, tl.where(known, 1.0 / tl.load(count_ptr), float("nan")), 0.0)
        # Back from the end of the row, which the cache surely holds.
        for passed in range(0, N_COLS, BLOCK_COLS):
            at = (N_COLS - 1) // BLOCK_COLS * BLOCK_COLS - passed + cols
            mask = row_mask & (at < ROW_STRIDE)
            x = tl.load(start + at, mask=mask, other=float("-inf"), eviction_policy="evict_first").to(tl.float32)
            x = tl.where(at < N_COLS, x, float("-inf"))
            found = tl.exp(x - top - log_sum)
            wanted = tl.where(at == label, 1.0, 0.0)
            tl.store(start + at, (found - wanted) * scale, mask=mask, eviction_policy="evict_first")
    loss = tl.where(counted, log_sum - (score - top), 0.0)
    tl.store(losses_ptr + rows, loss, mask=row_mask)


@triton.jit
def _linear_cross_entropy_scale(gradient_ptr, by_ptr, n, BLOCK: tl.constexpr):
    by = tl.load(by_ptr).to(tl.float32)
    # Most often the loss is where the backward begins, and its own gradient 1.
    if by != 1.0:
        for first in range(tl.program_id(0).to(tl.int64) * BLOCK, n, tl.num_programs(0) * BLOCK):
            at = first + tl.arange(0, BLOCK)
            gradient = tl.load(gradient_ptr + at, mask=at < n, other=0.0).to(tl.float32)
            tl.store(gradient_ptr + at, gradient * by, mask=at < n)


def _linear_cross_entropy_losses(scores, labels, count, losses, trains, fused):
    """The losses of a chunk of rows; where it trains, their scores become their gradient."""
    if not fused:
        chunks.cross_entropy_(scores, labels, losses, 1 / count if trains else None)
        return
    n_rows, n_cols = scores.shape
    tile = launch.class_tile(scores)
    _linear_cross_entropy_forward[(triton.cdiv(n_rows, tile.rows),)](
        scores,
        labels,
        count,
        losses,
        n_rows,
        N_COLS=n_cols,
        ROW_STRIDE=scores.stride(0),
        BLOCK_ROWS=tile.rows,
        BLOCK_COLS=tile.cols,
        WITH_GRADIENT=trains,
        num_warps=tile.warps,
    )


def _linear_cross_entropy_scaled(gradient, by, fused):
    """A gradient that the forward has made, times that of the loss, in place."""
    if gradient is None or not gradient.numel():
        return gradient
    if not fused:
        return gradient.mul_(by)
    n = gradient.numel()
    _linear_cross_entropy_scale[(launch.programs(n, 8192),)](gradient, by, n, BLOCK=8192, num_warps=8)
    torch.autograd.graph.increment_version(gradient)
    return gradient


@launch.falls_back_to(None)
class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, target, trains):
        n_rows, (n_cols, width) = target.numel(), weight.shape
        fused = ctx.fused = launch.use_kernels(x)
        learns = [trains and needed for needed in ctx.needs_input_grad]
        rows, labels, low = x.reshape(n_rows, width), target.reshape(-1).contiguous(), chunks.narrow(weight, x)
        count = chunks.count(labels, n_cols, -100)
        losses = x.new_empty(n_rows, dtype=chunks.wide(x.dtype))
        d_x = torch.empty_like(rows) if learns[0] else None
        d_weight = chunks.total(weight, x.dtype, n_rows) if learns[1] else None
        step = chunks.rows_at_once(n_rows, n_cols, x.element_size())
        buffer = chunks.buffer(step, n_cols, x)
        for first in range(0, n_rows, step):
            part = slice(first, min(first + step, n_rows))
            scores = buffer[: part.stop - first]
            torch.mm(rows[part], low.T, out=scores)
            _linear_cross_entropy_losses(scores, labels[part], count, losses[part], any(learns), fused)
            if d_x is not None:
                torch.mm(scores, low, out=d_x[part])
            if d_weight is not None:
                chunks.add_product(d_weight, scores.T, rows[part], first=first == 0)
        ctx.save_for_backward(d_x, d_weight)
        return losses.sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss):
        d_x, d_weight = ctx.saved_tensors
        d_x = _linear_cross_entropy_scaled(d_x, d_loss, ctx.fused)
        d_weight = _linear_cross_entropy_scaled(d_weight, d_loss, ctx.fused)
        return d_x, d_weight, None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return _LinearCrossEntropy.apply(x, weight, target, torch.is_grad_enabled())
