"""Products with too many columns to store: a chunk of rows at a time, and what the chunks' gradients add up to."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.runtime import low_precision

# Scores take so many bytes at most: those of some thousand rows for a large vocabulary, with which the matrix units are
# as busy as with all. A tile of them has 128 rows, so many are taken however long they are.
MOST_BYTES = 1 << 29
TILE = 128
# From so many rows on there are two chunks at least, so that never all scores are stored.
SEVERAL = 32


def rows_at_once(n_rows: int, n_cols: int, element_size: int) -> int:
    """How many rows of `n_cols` scores are in memory together: chunks of about one size, as few as may be."""
    most = max(MOST_BYTES // max(n_cols * element_size, 1), TILE)
    chunks = max(-(-n_rows // most), 2 if n_rows >= SEVERAL else 1)
    rows = max(-(-n_rows // chunks), 1)
    return rows if rows < TILE else -(-rows // 16) * 16


def buffer(rows: int, cols: int, like: Tensor) -> Tensor:
    """Memory for [rows, cols] numbers, each row beginning at a multiple of 128 bytes, as products are fastest.

    What lies between the rows is 0: on the CPU, products of a low precision read it, and multiply it by 0.
    """
    step = max(128 // like.element_size(), 1)
    width = -(-cols // step) * step
    made = like.new_empty(rows, width)
    if width > cols:
        made[:, cols:].zero_()
    return made[:, :cols]


def narrow(parameter: Tensor, like: Tensor) -> Tensor:
    """A parameter in the precision of what it is multiplied with: its copy, where it has one."""
    return low_precision.cast(parameter, like.dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums of numbers of a dtype are added up in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def total(like: Tensor, dtype: torch.dtype, n_rows: int) -> Tensor:
    """Memory like a tensor's for what is added up over `n_rows` rows of `dtype`; zeros where there are none."""
    made = torch.empty_like if n_rows else torch.zeros_like
    return made(like, dtype=wide(dtype), memory_format=torch.contiguous_format)


def add_product(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """`total += a @ b`, or `total = a @ b` where `first`, added up in the dtype of `total`.

    float32 sums of products of a lower precision are one call of cuBLAS where PyTorch has that for the device;
    elsewhere the matrices are widened.
    """
    beta = 0 if first else 1
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, beta=beta, out=total)
    elif _multiplies_widely(a.device):
        torch.addmm(total, a, b, out_dtype=total.dtype, beta=beta, out=total)
    else:
        torch.addmm(total, a.to(total.dtype), b.to(total.dtype), beta=beta, out=total)


@cache
def _multiplies_widely(device: torch.device) -> bool:
    """Whether sums of low-precision products can be added to float32 on this device."""
    few = torch.zeros(16, 16, dtype=torch.bfloat16, device=device)
    total = torch.zeros(16, 16, device=device)
    try:
        torch.addmm(total, few, few, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return True


# Losses of a chunk ---------------------------------------------------------------------------------------------------


def count(labels: Tensor, n_cols: int, ignore_index: int | None, weight: Tensor | None = None) -> Tensor:
    """What a mean over labels divides by, []: how many count, or the sum of their classes' weights.

    A label that is no class counts NaN where classes have weights.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    if weight is None:
        return counted.sum(dtype=torch.float32)
    known = (labels >= 0) & (labels < n_cols)
    shares = torch.where(known, weight[torch.where(known, labels, 0)].to(wide(weight.dtype)), float("nan"))
    return torch.where(counted, shares, 0.0).sum()


def cross_entropy_(
    scores: Tensor,
    labels: Tensor,
    losses: Tensor,
    by: Tensor | float | None,
    *,
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    infinite: bool = False,
) -> None:
    """The losses [N] of scores [N, C], in plain PyTorch; the scores become `by` times their gradient, where given.

    `infinite`: an infinite score makes a loss infinite, not NaN.
    """
    with torch.enable_grad():
        x = scores.detach().to(wide(scores.dtype)).requires_grad_(by is not None)
        found = _losses(x, labels, ignore_index, weight, label_smoothing, infinite)
    losses.copy_(found.detach())
    if by is not None:
        each = torch.as_tensor(by, dtype=found.dtype, device=found.device).expand_as(found)
        (gradient,) = torch.autograd.grad(found, x, each)
        scores.copy_(gradient)


def _losses(
    x: Tensor, labels: Tensor, ignore_index: int | None, weight: Tensor | None, label_smoothing: float, infinite: bool
) -> Tensor:
    if infinite:
        return torch.logsumexp(x, dim=-1) - x.gather(-1, labels[:, None])[:, 0]
    if ignore_index is None:
        return -F.log_softmax(x, dim=-1).gather(-1, labels[:, None])[:, 0]
    weight = None if weight is None else weight.to(x.dtype)
    return F.cross_entropy(
        x, labels, weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
    )
