"""Parameter groups and freezing by glob, optimizers that take a step in one launch, clipping, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from tdsl.runtime.average import Averaged
from tdsl.runtime.fitting import is_named
from tdsl.runtime.multi_tensor import Tables
from tdsl.runtime.run import Failure
from tdsl.runtime.shards import Piece, piece
from tdsl.runtime.slots import Group, Rule

# The norm of gradients that nobody asked for.
UNTOLD = torch.tensor(math.nan)


def named_parameters(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by name: those of `model` as they are, those of another with its name in front."""
    for owner, model in models.items():
        prefix = "" if owner == "model" else f"{owner}."
        yield from ((prefix + name, parameter) for name, parameter in model.named_parameters())


def named_pieces(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor | Piece]]:
    """What this process has of the parameters, by the same names."""
    yield from ((name, piece(parameter)) for name, parameter in named_parameters(models))


def freeze(models: Mapping[str, nn.Module], *patterns: str) -> None:
    """Train no parameter whose name, or a module's that it is in, a glob matches.

    Raises `Failure` for a glob that matches none.
    """
    for pattern in patterns:
        for parameter in _matching(models, pattern):
            parameter.requires_grad_(False)


def _matching(models: Mapping[str, nn.Module], pattern: str) -> list[nn.Parameter]:
    found = [parameter for name, parameter in named_parameters(models) if is_named(name, pattern)]
    if not found:
        names = ", ".join(name for name, _ in named_parameters(models))
        raise Failure(f'"{pattern}" matches no parameter', f"the parameters are {names}")
    return found


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
                args |= given if is_named(name, pattern) else {}
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


def clip_gradients(optimizer: Optimizer, max_norm: float | None, *, told: bool = True) -> Tensor:
    """Scale the gradients down to `max_norm` where they are longer, and return how long they were: a number [].

    Where that is not to be told, and there is no `max_norm`, it is not looked for: NaN.

    An optimizer of this module that updates all its parameters in one launch scales them as its next step reads them:
    `parameter.grad` stays as it was. Nothing waits for the GPU. As with `nn.utils.clip_grad_norm_`, a norm that is not
    a number makes all gradients so, and an infinite one makes those 0 that are finite.
    """
    if max_norm is None and not told:
        return UNTOLD
    if isinstance(optimizer, _OneLaunch):
        norm = optimizer.clip(max_norm)
        if norm is not None:
            return norm
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        members = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grads_with_norm_(members, max_norm, norm)
    return norm


def average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose parameters, and running statistics of norms, follow it as an exponential moving average.

    Its other buffers are the model's.
    """
    return Averaged(model, decay)


# Optimizers -----------------------------------------------------------------------------------------------------------


class _OneLaunch(Optimizer):
    """Makes an optimizer update all its parameters in one launch, where these are plain tensors on one GPU.

    That holds for parameters of one dtype in groups that differ in numbers alone; each dtype and each set of options
    beside takes a launch of its own. Elsewhere (on the CPU, in float64, with `foreach`, `fused` or `differentiable`,
    for sparse gradients and tensors of several devices) PyTorch's own step is taken. Arguments, groups, states and
    `state_dict`s are PyTorch's, which keeps the count of steps on the GPU as with `capturable`.

    A step can be captured in a CUDA graph once it has been taken outside: counts are on the device, learning rates may
    be float32 tensors there. What is a number of Python in the groups is read by `refresh`, and by a step that is not
    replayed.
    """

    _rule: ClassVar[Rule]
    # Whether PyTorch's class knows `fused` on a CPU.
    _fuses: ClassVar[bool] = False
    _tables: Tables | None = None
    _captured: Sequence[Tables] = ()
    _factor: Tensor | None = None

    def refresh(self) -> bool:
        """Upload what has changed of the groups' numbers; whether one launch can update all parameters as they are."""
        if self._tables is None or not self._tables.refresh():
            if self._tables is not None and self._tables.tensors.captured:
                # A graph goes on reading them.
                self._captured = [*self._captured, self._tables]
            self._tables = Tables.of(self, self._rule)
        return self._tables is not None

    @torch.no_grad()
    def clip(self, max_norm: float | None) -> Tensor | None:
        """The norm of the gradients, which the next step scales down to `max_norm`; None where PyTorch is to do it."""
        if not self.refresh():
            return None
        assert self._tables is not None
        norm, self._factor = self._tables.norm(max_norm, self._factor)
        return norm

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step, as PyTorch's optimizer of the same name does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        factor, self._factor = self._factor, None
        with torch.no_grad():
            if self.refresh():
                assert self._tables is not None
                self._tables.step(factor, getattr(self, "grad_scale", None), getattr(self, "found_inf", None))
                return loss
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            if factor is not None and gradients:
                torch._foreach_mul_(gradients, factor)
        # The step of PyTorch's class calls the hooks, as this one does, once an optimizer of that class has been made.
        plain: Any = super().step
        with self._at_once():
            plain.__wrapped__(self) if getattr(plain, "hooked", False) else plain()
        return loss

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Within, PyTorch's step of plain float32 tensors on a CPU is one call for all of a group.

        It has that for some optimizers (`fused`), several times as fast as a call for each operation and parameter.
        What is asked for in the groups holds, and stays as it is there.
        """
        groups = [group for group in self.param_groups if self._fuses and _may_fuse(self, group)]
        for group in groups:
            group["fused"] = True
        try:
            yield
        finally:
            for group in groups:
                group["fused"] = None
                # Autograd is not told of what this call writes; copies in low precision have to know.
                increment_version([each for each in group["params"] if each.grad is not None])

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._factor = None
        super().zero_grad(set_to_none)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether a `GradScaler` may leave it to the step to unscale gradients, and to skip those that overflow."""
        return self._own_scaling or self.refresh()

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, given: bool) -> None:
        self._own_scaling = given

    _own_scaling = False


def _may_fuse(optimizer: Optimizer, group: Group) -> bool:
    """Whether no way is asked for, and a group's tensors are plain float32 ones on a CPU.

    PyTorch's `fused` there goes through memory as it comes: parameters, gradients and states have to lie alike.
    """
    if any(group.get(name) is not None for name in ("foreach", "fused")) or group["differentiable"]:
        return False
    if isinstance(group["lr"], Tensor):
        return False
    members = [each for each in group["params"] if each.grad is not None]
    states: list[Mapping[str, Any]] = [optimizer.state.get(each, {}) for each in members]
    # SGD's takes momentum from all or from none: a parameter may get its first gradient after others.
    begun = {state.get("momentum_buffer") is not None for state in states}
    return len(begun) < 2 and all(
        each.is_cpu and each.dtype is torch.float32 and each.layout is torch.strided and each.is_contiguous()
        for parameter, state in zip(members, states, strict=True)
        for each in (parameter, parameter.grad, *state.values())
        if each is not None
    )


def _sign(group: Group) -> float:
    return -1.0 if group["maximize"] else 1.0


class SGD(_OneLaunch, torch.optim.SGD):
    """`torch.optim.SGD`. A step moves 12 bytes an element of float32, with momentum 20, and 2 for a copy."""

    _fuses = True
    _rule = Rule(
        "sgd",
        states=lambda group: ("momentum_buffer" if group["momentum"] else None, None, None),
        flags=lambda group: (bool(group["momentum"]), group["nesterov"]),
        numbers=lambda group: (_sign(group), group["weight_decay"], group["momentum"], 1 - group["dampening"]),
    )


def _adam_numbers(group: Group) -> tuple[float, ...]:
    beta1, beta2 = map(float, group["betas"])
    logarithms = (math.log(beta) if beta else -math.inf for beta in (beta1, beta2))
    return (_sign(group), group["weight_decay"], 1 - beta1, beta2, 1 - beta2, group["eps"], *logarithms)


_ADAM = Rule(
    "adam",
    states=lambda group: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq" if group["amsgrad"] else None),
    flags=lambda group: (group["amsgrad"], group["decoupled_weight_decay"]),
    numbers=_adam_numbers,
    counts=True,
)


class Adam(_OneLaunch, torch.optim.Adam):
    """`torch.optim.Adam`. A step moves 28 bytes an element of float32, with AMSGrad 36, and 2 for a copy."""

    _fuses = True
    _rule = _ADAM


class AdamW(_OneLaunch, torch.optim.AdamW):
    """`torch.optim.AdamW`. A step moves 28 bytes an element of float32, with AMSGrad 36, and 2 for a copy."""

    _fuses = True
    _rule = _ADAM


class RMSprop(_OneLaunch, torch.optim.RMSprop):
    """`torch.optim.RMSprop`. A step moves 20 bytes an element of float32, 2 for a copy; centered and momentum take 8.

    A variance that rounding makes negative is taken for 0, where PyTorch has no number.
    """

    _rule = Rule(
        "rmsprop",
        states=lambda group: (
            "square_avg",
            "momentum_buffer" if group["momentum"] else None,
            "grad_avg" if group["centered"] else None,
        ),
        flags=lambda group: (bool(group["momentum"]), group["centered"]),
        numbers=lambda group: (
            _sign(group), group["weight_decay"], group["alpha"], 1 - group["alpha"], group["eps"], group["momentum"],
        ),
        counts=True,
    )  # fmt: skip


class _PlainLion(Optimizer):
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

    def _update(self, parameter: Tensor, gradient: Tensor, group: Group) -> None:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        average, (beta1, beta2) = state["exp_avg"], group["betas"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(average.lerp(gradient, 1 - beta1).sign_(), alpha=-group["lr"])
        average.lerp_(gradient, 1 - beta2)


class Lion(_OneLaunch, _PlainLion):
    """Chen et al., "Symbolic discovery of optimization algorithms", 2023: the sign of an interpolated momentum.

    A step moves 20 bytes an element of float32, and 2 for a copy.
    """

    _rule = Rule(
        "lion",
        states=lambda group: ("exp_avg", None, None),
        flags=lambda group: (),
        numbers=lambda group: (group["weight_decay"], 1 - group["betas"][0], 1 - group["betas"][1]),
    )
