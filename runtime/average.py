"""Averaged weights of a model whose parameters are divided among processes: each process averages its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tdsl.runtime.shards import Piece, piece


class Average:
    """What `torch.optim.swa_utils.AveragedModel` is to other models. `module` is the model itself: within `instead` its
    parameters are the averages. Buffers are the model's.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay = model, decay
        self.n_averaged = torch.zeros((), dtype=torch.long)
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow the model by a step; the first time be what it is."""
        own, others = _own(self.values.values()), _own(model.parameters())
        if self.n_averaged == 0:
            torch._foreach_copy_(own, others)
        else:
            torch._foreach_lerp_(own, others, 1 - self.decay)
        self.n_averaged += 1

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Within, the parameters of the model are the averages."""
        own, others = _own(self.values.values()), _own(self.module.parameters())
        _swap(own, others)
        try:
            yield
        finally:
            _swap(own, others)

    def state_dict(self, *, keep_vars: bool = False) -> Mapping[str, Any]:
        """The model's, with the averages as parameters."""
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        state = self.module.state_dict(keep_vars=True)
        return {key: self.values[names[id(value)]] if id(value) in names else value for key, value in state.items()}


def _own(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process has of each."""
    found = map(piece, tensors)
    return [each.tensor if isinstance(each, Piece) else each.detach() for each in found]


@torch.no_grad()
def _swap(some: list[Tensor], others: list[Tensor]) -> None:
    for a, b in zip(some, others, strict=True):
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)
