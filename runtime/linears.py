"""Linear layers as products that read their weights as they lie: in low precision, and several layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdsl.runtime import adjacent, low_precision


def linears(x: Tensor, *layers: nn.Linear) -> Tensor:
    """What linear layers make of one input, in one product: `x @ [W_1; W_2; ...].T + [b_1; b_2; ...]`.

    x: [..., in_features] -> [..., out_1 + out_2 + ...], of x's dtype; `y.split([out_1, out_2, ...], dim=-1)` are the
    results of the layers. All of them have a bias, or none has (`ValueError` otherwise). Hooks of the layers are not
    called.

    Nothing is concatenated from call to call. The weights are laid beside one another in one storage the first time:
    where x is of a lower precision than float32 weights, their copies (`low_precision`), else the parameters
    themselves, whose names, shapes and identities stay. What can't be laid so (parameters that are computed, shared by
    other memory, or no plain tensors) is concatenated. The gradients of the weights are one product, too, in the dtype
    of the weights: of low precision they come in float32, as the product has added them up.
    """
    weights = [layer.weight for layer in layers]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    if biases and len(biases) != len(layers):
        raise ValueError("some of the linear layers have a bias, and some have none")
    if len(layers) == 1 and weights[0].dtype == x.dtype:
        return F.linear(x, weights[0], layers[0].bias)
    lay = _stacked if weights[0].dtype == x.dtype else low_precision.stacked
    weight, bias = lay(weights, x.dtype), lay(biases, x.dtype) if biases else None
    if weight is None or (biases and bias is None):
        return F.linear(x, _concatenated(weights, x.dtype), _concatenated(biases, x.dtype) if biases else None)
    if not torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    return _Linears.apply(x, weight, bias, len(layers), *weights, *biases)  # type: ignore[no-any-return, no-untyped-call]


def _concatenated(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    cast = [each.to(dtype) for each in tensors]
    return torch.cat(cast) if len(cast) > 1 else cast[0]


def _stacked(parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor | None:
    """Parameters of `dtype` as one tensor, through which no gradient goes; None where they are not all plain ones."""
    plain = all(type(each) is nn.Parameter and each.dtype is dtype for each in parameters)
    if not plain or not low_precision.kept():
        return None
    if any(each.layout is not torch.strided or each.is_inference() for each in parameters):
        return None
    found = adjacent.stacked(parameters)
    if found is None and adjacent.stackable(parameters):
        with torch.inference_mode(False), torch.no_grad():
            found = torch.cat(list(parameters))
        for parameter, part in zip(parameters, adjacent.split(found, parameters), strict=True):
            parameter.data = part
    return torch.cat([each.detach() for each in parameters]) if found is None else found


class _Linears(torch.autograd.Function):
    """`F.linear` of stacked weights, whose gradients go to the parameters that these are made of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layers: int, *parameters: Tensor) -> Tensor:
        ctx.layers = layers
        # The parameters for a second derivative, and so that a change of them before the backward is noticed.
        ctx.save_for_backward(x, weight, *parameters[:layers])
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            weight = _concatenated(weights, x.dtype)
        wanted, dtype = ctx.needs_input_grad, weights[0].dtype
        dx = grad @ weight if wanted[0] else None
        rows = grad.reshape(-1, grad.shape[-1])
        found: list[Tensor | None] = [None] * (len(wanted) - 4)
        if any(wanted[4 : 4 + ctx.layers]):
            found[: ctx.layers] = _parts(_product(rows.mT, x.reshape(-1, x.shape[-1]), dtype), weights)
        if any(wanted[4 + ctx.layers :]):
            found[ctx.layers :] = _parts(rows.sum(0, dtype=dtype), weights)
        return dx, None, None, None, *(each if needed else None for each, needed in zip(found, wanted[4:], strict=True))


def _parts(stack: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    return adjacent.split(stack, like) if len(like) > 1 else [stack]


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a [M, K] @ b [K, N] in `dtype`, of a lower precision's factors as they are added up."""
    if a.dtype == dtype:
        return a @ b
    # What is returned so has no derivative, and CUDA's libraries refuse what is empty.
    if torch.is_grad_enabled() or not (a.numel() and b.numel()) or not _widens(a.device, a.dtype):
        return (a @ b).to(dtype)
    return torch.mm(a, b, out_dtype=dtype)


@cache
def _widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of a low precision can be had in float32 on this device."""
    few = torch.zeros(16, 16, device=device, dtype=dtype)
    try:
        torch.mm(few, few, out_dtype=torch.float32)
    except (RuntimeError, TypeError):
        return False
    return True
