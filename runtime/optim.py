"""Parameter groups and freezing by glob, the optimizers that PyTorch lacks, and averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tdsl.runtime.run import Failure


def named_parameters(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by name: those of `model` as they are, those of another with its name in front."""
    for owner, model in models.items():
        prefix = "" if owner == "model" else f"{owner}."
        yield from ((prefix + name, parameter) for name, parameter in model.named_parameters())


def freeze(models: Mapping[str, nn.Module], *patterns: str) -> None:
    """Train no parameter whose name, or a module's that it is in, a glob matches.

    Raises `Failure` for a glob that matches none.
    """
    for pattern in patterns:
        for parameter in _matching(models, pattern):
            parameter.requires_grad_(False)


def _matching(models: Mapping[str, nn.Module], pattern: str) -> list[nn.Parameter]:
    found = [parameter for name, parameter in named_parameters(models) if _is_named(name, pattern)]
    if not found:
        names = ", ".join(name for name, _ in named_parameters(models))
        raise Failure(f'"{pattern}" matches no parameter', f"the parameters are {names}")
    return found


def _is_named(name: str, pattern: str) -> bool:
    """Whether a glob matches a parameter's name or that of a module that it is in: `blocks.0` of `blocks.0.weight`."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


def groups(models: Mapping[str, nn.Module], special: Mapping[str, Mapping[str, Any]] | None = None) -> list[Any]:
    """What an optimizer takes: the parameters that train, with names, those alike in a group.

    `special` has arguments for the parameters that a glob matches, or modules that they are in. Where several match,
    each adds its own, and of the same argument the last one's value holds.
    """
    special = special or {}
    for pattern in special:
        _matching(models, pattern)
    found: dict[tuple[tuple[str, Any], ...], list[tuple[str, nn.Parameter]]] = {(): []}
    for name, parameter in named_parameters(models):
        if parameter.requires_grad:
            args: dict[str, Any] = {}
            for pattern, given in special.items():
                args |= given if _is_named(name, pattern) else {}
            found.setdefault(tuple(args.items()), []).append((name, parameter))
    if not any(found.values()):
        raise Failure("there is nothing to train: every parameter is frozen", "take a pattern out of `freeze`")
    return [{"params": members, **dict(args)} for args, members in found.items() if members]


def make(kind: Callable[..., Optimizer], members: list[Any], **args: Any) -> Optimizer:
    """An optimizer of PyTorch; raises `Failure` for arguments that it refuses."""
    try:
        return kind(members, **args)
    except ValueError as error:
        raise Failure(f"{getattr(kind, '__name__', kind)}: {error}") from None


def clip_gradients(optimizer: Optimizer, max_norm: float | None) -> Tensor:
    """Scale the gradients down to `max_norm` where they are longer, and return how long they were."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        members = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grads_with_norm_(members, max_norm, norm)
    return norm


def average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose parameters follow it as an exponential moving average; its buffers are the model's."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


class Lion(Optimizer):
    """Chen et al., "Symbolic discovery of optimization algorithms", 2023: the sign of an interpolated momentum."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        average, (beta1, beta2) = state["exp_avg"], group["betas"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(average.lerp(gradient, 1 - beta1).sign_(), alpha=-group["lr"])
        average.lerp_(gradient, 1 - beta2)
