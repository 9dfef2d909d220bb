"""Averaged weights of a model, also of one whose parameters are divided among processes: each averages its rows.

The running statistics of its norms are averaged alike: those of other weights would not fit the averaged ones. Other
buffers are the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tdsl.runtime.shards import Piece, piece


class Averaged(AveragedModel):
    """A copy of a model, whose parameters and running statistics follow it as an exponential moving average."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow the model by a step; the first time be what it is."""
        own, begun = list(statistics(self.module).values()), bool(self.n_averaged)
        kept = [value.clone() for value in own]
        super().update_parameters(model)
        if own and begun:
            torch._foreach_lerp_(kept, own, 1 - self.decay)
            torch._foreach_copy_(own, kept)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running means and variances of a model's norms, by name."""
    norms = (module for module in model.modules() if isinstance(module, _NormBase))
    kept = {id(value) for norm in norms for value in (norm.running_mean, norm.running_var)}
    return {name: value for name, value in model.named_buffers() if id(value) in kept}


class Average:
    """What `Averaged` is to other models. `module` is the model itself: within `instead` its parameters and running
    statistics are the averages.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay = model, decay
        self.n_averaged = torch.zeros((), dtype=torch.long)
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in _followed(model).items()}

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow the model by a step; the first time be what it is."""
        own, others = _own(self.values.values()), _own(_followed(model).values())
        if self.n_averaged == 0:
            torch._foreach_copy_(own, others)
        else:
            torch._foreach_lerp_(own, others, 1 - self.decay)
        self.n_averaged += 1

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Within, the parameters and statistics of the model are the averages."""
        own, others = _own(self.values.values()), _own(_followed(self.module).values())
        _swap(own, others)
        try:
            yield
        finally:
            _swap(own, others)

    def state_dict(self, *, keep_vars: bool = False) -> Mapping[str, Any]:
        """The model's, with the averages in their places."""
        names = {id(value): name for name, value in _followed(self.module).items()}
        state = self.module.state_dict(keep_vars=True)
        return {key: self.values[names[id(value)]] if id(value) in names else value for key, value in state.items()}


def _followed(model: nn.Module) -> dict[str, Tensor]:
    """What is averaged of a model, by name."""
    return {**dict(model.named_parameters()), **statistics(model)}


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
