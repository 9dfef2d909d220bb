"""Fused kernels of embeddings.model, written by tdsl 0.1.0.

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

# embedding: embeddings.model:11
#     return head(embed(tokens) + kind(kinds) + known(tokens) * embedding(kinds, position))
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


# embedding_2: embeddings.model:11
#     return head(embed(tokens) + kind(kinds) + known(tokens) * embedding(kinds, position))
# Moves 8 bytes (f32) an element forward, 4 and the table's gradient backward.


def embedding_2_reference(kinds: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(kinds, weight, padding_idx=-1)


@triton.jit
def _embedding_2_forward(
    kinds_ptr,
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
    entry = tl.load(kinds_ptr + rows, mask=row_mask, other=0).to(tl.int64)
    known = (entry >= 0) & (entry < n_entries)
    y = tl.load(weight_ptr + entry * N_COLS + cols, mask=mask & known, other=float("nan"))
    tl.store(y_ptr + rows * N_COLS + cols, y, mask=mask)


@triton.jit
def _embedding_2_runs(
    entries_ptr,
    places_ptr,
    d_y_ptr,
    d_weight_ptr,
    leading_ptr,
    trailing_ptr,
    n_rows,
    n_entries,
    padding_idx,
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
        known = (entry >= 0) & (entry < n_entries) & (entry != padding_idx)
        tl.store(d_weight_ptr + entry * N_COLS + cols, total, mask=mask & known & done & (leads == 0))
        tl.store(leading_ptr + program * N_COLS + cols, total, mask=mask & done & leads)
        total = tl.where(done, 0.0, total)
        leads = leads & (done == 0)
        entry = following
    tl.store(leading_ptr + program * N_COLS + cols, total, mask=mask & leads)
    tl.store(trailing_ptr + program * N_COLS + cols, total, mask=mask & (leads == 0) & (done == 0))


@triton.jit
def _embedding_2_joined(
    entries_ptr,
    leading_ptr,
    trailing_ptr,
    d_weight_ptr,
    n_rows,
    n_entries,
    padding_idx,
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
    known = (entry >= 0) & (entry < n_entries) & (entry != padding_idx)
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


@launch.falls_back_to(embedding_2_reference)
class _Embedding2(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kinds, weight):
        kinds, weight = kinds.contiguous(), weight.contiguous()
        n_rows = kinds.numel()
        n_entries, n_cols = weight.shape
        y = weight.new_empty(*kinds.shape, n_cols)
        if y.numel():
            tile = launch.column_tile(n_cols)
            _embedding_2_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
                kinds,
                weight,
                y,
                n_rows,
                n_entries,
                N_COLS=n_cols,
                BLOCK_ROWS=tile.rows,
                BLOCK_COLS=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(kinds)
        ctx.shape = weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (kinds,) = ctx.saved_tensors
        n_entries, n_cols = ctx.shape
        d_y = d_y.contiguous()
        d_weight = d_y.new_zeros(n_entries, n_cols, dtype=torch.float32)
        if d_y.numel() and n_entries:
            entries, places = kinds.flatten().sort(stable=True)
            n_rows = entries.numel()
            runs = launch.runs(n_rows, n_cols)
            leading = d_weight.new_empty(runs.programs, n_cols)
            trailing = d_weight.new_empty(runs.programs, n_cols)
            _embedding_2_runs[(runs.programs, triton.cdiv(n_cols, runs.cols))](
                entries,
                places,
                d_y,
                d_weight,
                leading,
                trailing,
                n_rows,
                n_entries,
                n_entries - 1,
                N_COLS=n_cols,
                LENGTH=runs.length,
                BLOCK_COLS=runs.cols,
                num_warps=runs.warps,
            )
            if runs.programs > 1:
                _embedding_2_joined[(runs.programs - 1, triton.cdiv(n_cols, 128))](
                    entries,
                    leading,
                    trailing,
                    d_weight,
                    n_rows,
                    n_entries,
                    n_entries - 1,
                    N_COLS=n_cols,
                    LENGTH=runs.length,
                    BLOCK_ROWS=32,
                    BLOCK_COLS=128,
                )
        return None, d_weight.to(d_y.dtype)


def embedding_2(kinds: Tensor, weight: Tensor) -> Tensor:
    if launch.use_kernels(kinds, weight):
        return _Embedding2.apply(kinds, weight)
    return embedding_2_reference(kinds, weight)


# embedding_3: embeddings.model:11
#     return head(embed(tokens) + kind(kinds) + known(tokens) * embedding(kinds, position))
# Moves 8 bytes (f32) an element forward, 4 and the table's gradient backward.


def embedding_3_reference(tokens: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
    return F.embedding(tokens, weight, padding_idx=padding_idx)


@triton.jit
def _embedding_3_forward(
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
def _embedding_3_runs(
    entries_ptr,
    places_ptr,
    d_y_ptr,
    d_weight_ptr,
    leading_ptr,
    trailing_ptr,
    n_rows,
    n_entries,
    padding_idx,
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
        known = (entry >= 0) & (entry < n_entries) & (entry != padding_idx)
        tl.store(d_weight_ptr + entry * N_COLS + cols, total, mask=mask & known & done & (leads == 0))
        tl.store(leading_ptr + program * N_COLS + cols, total, mask=mask & done & leads)
        total = tl.where(done, 0.0, total)
        leads = leads & (done == 0)
        entry = following
    tl.store(leading_ptr + program * N_COLS + cols, total, mask=mask & leads)
    tl.store(trailing_ptr + program * N_COLS + cols, total, mask=mask & (leads == 0) & (done == 0))


@triton.jit
def _embedding_3_joined(
    entries_ptr,
    leading_ptr,
    trailing_ptr,
    d_weight_ptr,
    n_rows,
    n_entries,
    padding_idx,
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
    known = (entry >= 0) & (entry < n_entries) & (entry != padding_idx)
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


@launch.falls_back_to(embedding_3_reference)
class _Embedding3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, weight, padding_idx):
        tokens, weight = tokens.contiguous(), weight.contiguous()
        n_rows = tokens.numel()
        n_entries, n_cols = weight.shape
        y = weight.new_empty(*tokens.shape, n_cols)
        if y.numel():
            tile = launch.column_tile(n_cols)
            _embedding_3_forward[(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))](
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
        ctx.padding_idx = padding_idx
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
            _embedding_3_runs[(runs.programs, triton.cdiv(n_cols, runs.cols))](
                entries,
                places,
                d_y,
                d_weight,
                leading,
                trailing,
                n_rows,
                n_entries,
                ctx.padding_idx % n_entries,
                N_COLS=n_cols,
                LENGTH=runs.length,
                BLOCK_COLS=runs.cols,
                num_warps=runs.warps,
            )
            if runs.programs > 1:
                _embedding_3_joined[(runs.programs - 1, triton.cdiv(n_cols, 128))](
                    entries,
                    leading,
                    trailing,
                    d_weight,
                    n_rows,
                    n_entries,
                    ctx.padding_idx % n_entries,
                    N_COLS=n_cols,
                    LENGTH=runs.length,
                    BLOCK_ROWS=32,
                    BLOCK_COLS=128,
                )
        return None, d_weight.to(d_y.dtype), None


def embedding_3(tokens: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
    if launch.use_kernels(tokens, weight):
        return _Embedding3.apply(tokens, weight, padding_idx)
    return embedding_3_reference(tokens, weight, padding_idx)


# add_mul: embeddings.model:11
#     return head(embed(tokens) + kind(kinds) + known(tokens) * embedding(kinds, position))
# Moves 20 bytes (f32) an element forward, 20 backward.


def add_mul_reference(x: Tensor, x_2: Tensor, x_3: Tensor, x_4: Tensor) -> Tensor:
    return x + x_2 + x_3 * x_4


@triton.jit
def _add_mul_forward(x_ptr, x_2_ptr, x_3_ptr, x_4_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_2 = tl.load(x_2_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_3 = tl.load(x_3_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_4 = tl.load(x_4_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = x + x_2 + x_3 * x_4
    tl.store(y_ptr + offsets, y, mask=mask)


@triton.jit
def _add_mul_backward(x_3_ptr, x_4_ptr, d_y_ptr, d_x_3_ptr, d_x_4_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x_3 = tl.load(x_3_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x_4 = tl.load(x_4_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    d_x_3 = d_y * x_4
    d_x_4 = d_y * x_3
    tl.store(d_x_3_ptr + offsets, d_x_3, mask=mask)
    tl.store(d_x_4_ptr + offsets, d_x_4, mask=mask)


@launch.falls_back_to(add_mul_reference)
class _AddMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, x_2, x_3, x_4):
        shape = x.shape
        x, x_2, x_3, x_4 = launch.alike(x, x_2, x_3, x_4)
        n = shape.numel()
        tile = launch.flat_tile()
        y = torch.empty_like(x)
        if n:
            _add_mul_forward[(triton.cdiv(n, tile.cols),)](
                x,
                x_2,
                x_3,
                x_4,
                y,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        ctx.save_for_backward(x_3, x_4)
        ctx.shape = shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x_3, x_4 = ctx.saved_tensors
        shape = ctx.shape
        x_3, x_4, d_y = launch.alike(x_3, x_4, d_y)
        n = shape.numel()
        tile = launch.flat_tile()
        d_x_3 = torch.empty_like(x_3)
        d_x_4 = torch.empty_like(x_3)
        if n:
            _add_mul_backward[(triton.cdiv(n, tile.cols),)](
                x_3,
                x_4,
                d_y,
                d_x_3,
                d_x_4,
                n,
                BLOCK=tile.cols,
                num_warps=tile.warps,
            )
        return d_y, d_y, d_x_3, d_x_4


def add_mul(x: Tensor, x_2: Tensor, x_3: Tensor, x_4: Tensor) -> Tensor:
    if launch.use_kernels(x, x_2, x_3, x_4):
        return _AddMul.apply(x, x_2, x_3, x_4)
    return add_mul_reference(x, x_2, x_3, x_4)
