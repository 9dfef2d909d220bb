"""The training step that one writes by hand, in plain PyTorch, with the models and the loss of an emitted `train.py`.

- In low precision `torch.autocast` stands around the loss; in float16 there is a `GradScaler`.
- Gradients are clipped by `clip_grad_norm_`, and their norm is not computed where they are not.
- The optimizer is that of `torch.optim` with its defaults, on a GPU `foreach`; losses are not summed up for a log.
- The angles of rotary positions are computed once, not in each layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tdsl.runtime import nn_functions, optim
from tdsl.runtime.counting.counter import BACKWARD, FORWARD, UPDATE, Counter
from tdsl.runtime.loader import Batch
from tdsl.runtime.training import Training

# What casts within: `torch.autocast` for a GPU, or what stands for it.
Autocast = Callable[[torch.dtype], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class _Started(Exception):
    """The script has made all that it trains with."""

    training: Training


@contextlib.contextmanager
def replaced() -> Iterator[None]:
    """Within, what a script makes is plain PyTorch, and it ends with `_Started` where it would begin to train."""

    def start(training: Training) -> None:
        raise _Started(training)

    with (
        mock.patch.object(optim, "make", _optimizer),
        mock.patch.object(optim, "average", _average),
        mock.patch.object(nn_functions, "rope", Rope()),
        mock.patch.object(Training, "start", start),
    ):
        yield


def made(start: Callable[[], None]) -> Training:
    """What a script trains with."""
    try:
        start()
    except _Started as started:
        return started.training
    raise AssertionError("the script made nothing to train with")


def _optimizer(kind: type, groups: list[Any], **args: Any) -> Optimizer:
    of: Any = Lion if kind.__name__ == "Lion" else getattr(torch.optim, kind.__name__)
    found: Optimizer = of(groups, **args)
    return found


def _average(model: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


class PlainStep:
    """A step of what `train.py` trains. `low` is the precision of products where it is not float32."""

    def __init__(self, train: ModuleType, training: Training, low: torch.dtype | None, autocast: Autocast) -> None:
        self.loss = train.loss
        self.training = training
        self.low = low
        self.autocast = autocast
        self.scaler = torch.amp.GradScaler("cuda") if low == torch.float16 else None

    def take(self, batch: Batch, counter: Counter) -> None:
        """One step; what it launches is counted to its phases."""
        parts = batch.chunk(self.training.job.settings.get("accumulate", 1))
        for part in parts:
            with counter.within(FORWARD):
                value = self._loss(part)
                value = value / len(parts) if len(parts) > 1 else value
                value = value if self.scaler is None else self.scaler.scale(value)
            with counter.within(BACKWARD):
                value.backward()  # type: ignore[no-untyped-call]
        with counter.within(UPDATE):
            self._update()

    def _loss(self, part: Batch) -> Tensor:
        with self.autocast(self.low) if self.low is not None else contextlib.nullcontext():
            found = self.loss(*self.training.models.values(), part)
        value: Tensor = found[0] if isinstance(found, tuple) else found
        return value

    def _update(self) -> None:
        optimizer, ema = self.training.optimizer, self.training.ema
        longest = self.training.job.settings["clip_grad_norm"]
        if longest is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], longest)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.zero_grad()
        if ema is not None:
            ema.update_parameters(self.training.models["model"])


class Lion(Optimizer):
    """Lion on lists of tensors, which PyTorch lacks."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            averages = [self._average(p) for p in params]
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
            signs = torch._foreach_lerp(averages, grads, 1 - beta1)
            torch._foreach_sign_(signs)
            torch._foreach_add_(params, signs, alpha=-lr)
            torch._foreach_lerp_(averages, grads, 1 - beta2)

    def _average(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        found: Tensor = state["exp_avg"]
        return found


class Rope:
    """`nn_functions.rope`, its cosines and sines kept."""

    def __init__(self) -> None:
        self.tables: dict[object, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, base: float = 10000.0, offset: int = 0) -> Tensor:
        length, dim = x.shape[-2:]
        key = (length, dim, base, offset, x.dtype)
        if key not in self.tables:
            rates = base ** (-torch.arange(0, dim, 2, device=x.device, dtype=torch.float32) / dim)
            positions = torch.arange(offset, offset + length, device=x.device, dtype=torch.float32)
            angles = torch.outer(positions, rates)
            self.tables[key] = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        cos, sin = self.tables[key]
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
