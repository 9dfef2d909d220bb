"""Batch norms folded into the convolutions before them, in models that only evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdsl.runtime.batch_norm import Folded


@torch.no_grad()
def fold(pairs: Mapping[type[nn.Module], Sequence[tuple[str, str]]], *models: nn.Module) -> None:
    """Let convolutions compute what the norms that read them would, which then change nothing.

    `pairs` has by class the paths, within it, of a convolution and of the batch norm that alone reads its result, `*`
    standing for each module of a list. A norm that trains, or keeps no statistics, stays. What is folded is to be
    evaluated only: its `state_dict` is no checkpoint's any more.

    weight' = weight * s and bias' = (bias - mean) * s + shift, s being scale / sqrt(variance + eps), all in float64.
    """
    for model in models:
        for module in list(model.modules()):
            for layer, norm in pairs.get(type(module), ()):
                for each in _matching(module, layer):
                    _fold(module, each, _as_in(norm, each))


def _matching(module: nn.Module, path: str) -> Iterator[str]:
    """The paths that one with `*` stands for."""
    before, star, after = path.partition("*")
    if not star:
        yield path
        return
    for name, _ in module.get_submodule(before.rstrip(".")).named_children():
        yield from _matching(module, f"{before}{name}{after}")


def _as_in(path: str, other: str) -> str:
    """A path with the names that another one has where `*` stands."""
    if "*" not in path:
        return path
    return ".".join(b if a == "*" else a for a, b in zip(path.split("."), other.split("."), strict=True))


def _fold(module: nn.Module, layer: str, norm: str) -> None:
    conv: Any = module.get_submodule(layer)
    read = module.get_submodule(norm)
    if not isinstance(read, _BatchNorm) or read.training or read.running_mean is None:
        return
    conv.weight, conv.bias = map(nn.Parameter, _folded(conv.weight, conv.bias, read))
    parent, _, name = norm.rpartition(".")
    setattr(module.get_submodule(parent), name, Folded().eval())


def _folded(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = torch.zeros_like(scale)
    if norm.affine:
        scale, shift = scale * norm.weight, norm.bias.double()
    offset = shift - norm.running_mean * scale
    folded = weight * scale.view(-1, *(1 for _ in weight.shape[1:]))
    return folded.to(weight.dtype), (offset if bias is None else offset + bias * scale).to(weight.dtype)
