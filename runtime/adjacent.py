"""Tensors that lie beside one another in one storage, so that one tensor over the same memory is all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def stacked(tensors: Sequence[Tensor]) -> Tensor | None:
    """Tensors [n_i, ...] as one [n_1 + n_2 + ..., ...] over their memory; None where they do not lie so.

    No gradient goes through it.
    """
    first = tensors[0]
    rest, storage, end = first.shape[1:], first.untyped_storage()._cdata, first.data_ptr()
    for each in tensors:
        beside = each.data_ptr() == end and each.untyped_storage()._cdata == storage
        if not beside or each.shape[1:] != rest or each.dtype != first.dtype or not each.is_contiguous():
            return None
        end += each.nbytes
    strides = [math.prod(rest[i:]) for i in range(len(rest) + 1)]
    return first.detach().as_strided((sum(each.shape[0] for each in tensors), *rest), strides)


def stackable(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors can be laid beside one another: each is alone in its storage, and they are alike."""
    first = tensors[0]
    alike = all(
        x.is_contiguous() and (x.shape[1:], x.dtype, x.device) == (first.shape[1:], first.dtype, first.device)
        for x in tensors
    )
    alone = all(x.untyped_storage().nbytes() == x.nbytes for x in tensors)
    return alike and alone and len({x.data_ptr() for x in tensors}) == len(tensors)


def split(stack: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a stack of tensors [n_i, ...]: views of it."""
    return list(stack.split([each.shape[0] for each in tensors]))  # type: ignore[no-untyped-call]
