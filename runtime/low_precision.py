"""Copies of parameters in a low precision: products read them, and nothing is cast from step to step.

A parameter stays in float32. Its copy is made where it is first asked for, and made anew, in the same memory, where the
parameter is no longer what the copy was made from: another version (autograd counts what is written in place), storage,
place in it, shape or strides. The optimizers of `tdsl.runtime.optim` write copies as they update parameters. Only what
goes around autograd's count of versions goes unnoticed here, too: what is written in place through `parameter.data`.

Copies are kept apart from the parameters: neither `deepcopy` nor `pickle` nor a `state_dict` has them. A copy is gone
with its parameter. It is known by a weak reference, which `torch.utils.swap_tensors` refuses.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from tdsl.runtime import adjacent

LOW = (torch.bfloat16, torch.float16)


@dataclass(eq=False)
class Copy:
    """A parameter's copy. `origin` is the storage it was made from: while it is known, none is taken for it."""

    owner: weakref.ref[Tensor]
    tensor: Tensor
    origin: StorageWeakRef
    mark: tuple[object, ...] | None = None

    def fits(self, parameter: Tensor) -> bool:
        """Whether it lies as the parameter does."""
        return (
            self.tensor.device == parameter.device
            and self.tensor.shape == parameter.shape
            and self.tensor.stride() == parameter.stride()
        )

    def fresh(self, parameter: Tensor) -> bool:
        """Whether it is what the parameter would be cast to now."""
        return self.mark == _mark(parameter)

    def note(self, parameter: Tensor) -> None:
        """Take note that it is so."""
        if self.mark is None or self.origin.cdata != parameter.untyped_storage()._cdata:
            self.origin = StorageWeakRef(parameter.untyped_storage())  # type: ignore[no-untyped-call]
        self.mark = _mark(parameter)

    def renew(self, parameter: Tensor) -> None:
        """Cast anew what is no longer so."""
        if not self.fresh(parameter):
            with torch.no_grad():
                self.tensor.copy_(parameter)
            self.note(parameter)


# Whether parameters have copies at all, and may be laid beside one another.
_kept = True


def keep_none() -> None:
    """Have no copies from here on, in this process: FSDP writes parameters without autograd's knowing."""
    global _kept
    _kept = False
    _COPIES.clear()


def kept() -> bool:
    """Whether parameters stay where and what they are, but for what autograd knows of."""
    return _kept


# By the parameter's id. A weak dictionary of PyTorch's would take several times as long to look up, for each layer.
_COPIES: dict[int, Copy] = {}


def _mark(parameter: Tensor) -> tuple[object, ...]:
    storage = parameter.untyped_storage()._cdata
    return parameter._version, storage, parameter.data_ptr(), parameter.shape, parameter.stride()


def _keep(parameter: Tensor, tensor: Tensor) -> Copy:
    key = id(parameter)

    def forget(owner: weakref.ref[Tensor]) -> None:
        if key in _COPIES and _COPIES[key].owner is owner:
            del _COPIES[key]

    origin = StorageWeakRef(parameter.untyped_storage())  # type: ignore[no-untyped-call]
    made = Copy(weakref.ref(parameter, forget), tensor, origin)
    _COPIES[key] = made
    return made


def find(parameter: Tensor) -> Copy | None:
    """The copy of a parameter, fresh or not, where it has one."""
    found = _COPIES.get(id(parameter))
    return found if found is not None and found.owner() is parameter else None


def renew(parameters: Iterable[Tensor]) -> None:
    """Bring those copies up to date that there are: a CUDA graph reads them without looking at the parameters."""
    for parameter in parameters:
        found = find(parameter)
        if found is not None:
            found.renew(parameter)


def of(parameter: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The copy of a parameter in `dtype` as it is now. No gradient goes through it.

    None where there is none: for what is no plain parameter in float32, in what is no lower precision.
    """
    found = find(parameter)
    if found is not None and found.tensor.dtype is dtype and found.fresh(parameter):
        return found.tensor
    if not _copied(parameter, dtype):
        return None
    if found is None or found.tensor.dtype is not dtype or not found.fits(parameter):
        # A buffer that outlives this: one made in inference mode could not be used in training.
        with torch.inference_mode(False):
            found = _keep(parameter, torch.empty_like(parameter, dtype=dtype, requires_grad=False))
    found.renew(parameter)
    return found.tensor


def _copied(parameter: Any, dtype: torch.dtype) -> bool:
    return (
        _kept
        and type(parameter) is nn.Parameter
        and parameter.dtype is torch.float32
        and dtype in LOW
        and parameter.layout is torch.strided
        and parameter.device.type != "meta"
        and not parameter.is_inference()
    )


def stacked(parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor | None:
    """The copies of parameters [n_i, ...] as they are now, as one [n_1 + n_2 + ..., ...]; None where one has none.

    They are laid beside one another where they are first asked for together. A copy that already lies beside others
    stays there, and all are concatenated each time.
    """
    tensors = [low for each in parameters if (low := of(each, dtype)) is not None]
    if len(tensors) < len(parameters):
        return None
    found = tensors[0] if len(tensors) == 1 else adjacent.stacked(tensors)
    if found is None and adjacent.stackable(tensors):
        with torch.inference_mode(False), torch.no_grad():
            found = torch.cat(tensors)
        for parameter, part in zip(parameters, adjacent.split(found, tensors), strict=True):
            _keep(parameter, part).note(parameter)
    return torch.cat(tensors) if found is None else found


def cast(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter in `dtype`, for products: its copy, where it has one. Gradients go through it."""
    copy = of(parameter, dtype)
    if copy is None:
        return parameter.to(dtype)
    needed = parameter.requires_grad and torch.is_grad_enabled()
    return _Cast.apply(parameter, copy) if needed else copy  # type: ignore[no-untyped-call]


class _Cast(torch.autograd.Function):
    """The cast of a parameter, whose result is there already."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = parameter.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None
