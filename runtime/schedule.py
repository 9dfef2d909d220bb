"""Learning-rate schedules: PyTorch's own, joined one after the other, each counting steps or epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from tdsl.runtime.run import Failure, Length

# How long a schedule lasts where another follows: its argument of this name, or PyTorch's default.
LASTS = {
    "LinearLR": ("total_iters", 5),
    "ConstantLR": ("total_iters", 5),
    "PolynomialLR": ("total_iters", 5),
    "CosineAnnealingLR": ("T_max", None),
    "OneCycleLR": ("total_steps", None),
}
# What of a PyTorch scheduler changes as it runs; all else is in its arguments.
MOVING = ("last_epoch", "_step_count", "_last_lr", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i")


class WarmupCosine(LRScheduler):
    """A linear warm-up to the optimizer's rate, then half a cosine down to `min_lr` at the end of the run.

    At step t of `total`: lr (t + 1) / (warmup + 1) where t < warmup, else
    min_lr + (lr - min_lr) (1 + cos(pi (t - warmup) / (total - warmup))) / 2, and `min_lr` after `total`.
    Loshchilov and Hutter, "SGDR", 2017, without restarts.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, min_lr: float = 0.0, *, total: float) -> None:
        self.warmup, self.min_lr, self.total = warmup, min_lr, total
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Any]:
        return [self._rate(float(base)) for base in self.base_lrs]

    def _rate(self, base: float) -> float:
        if self.last_epoch < self.warmup:
            return base * (self.last_epoch + 1) / (self.warmup + 1)
        part = min(1.0, (self.last_epoch - self.warmup) / max(self.total - self.warmup, 1e-9))
        return self.min_lr + (base - self.min_lr) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class Stage:
    """A scheduler class with its arguments; `per` is "step" or "epoch", or None for what the run counts."""

    kind: type[LRScheduler]
    args: Mapping[str, Any]
    per: str | None = None
    monitor: str = ""

    @property
    def lasts(self) -> float:
        """Its length in its own unit, where it has one."""
        argument, default = LASTS.get(self.kind.__name__, ("", None))
        found = self.args.get(argument, default)
        return math.inf if found is None else float(found)


def stage(kind: type[LRScheduler], per: str | None = None, **args: Any) -> Stage:
    """`stage(StepLR, step_size=5)`: a scheduler with the arguments of its class."""
    return Stage(kind, args, per)


def plateau(monitor: str = "val/loss", **args: Any) -> Stage:
    """`ReduceLROnPlateau` of the value called `monitor`, looked at after each validation."""
    return Stage(ReduceLROnPlateau, args, monitor=monitor)


class Schedule:
    """The rates of an optimizer's groups: the stages in order, each beginning at the rates that the groups began with.

    A stage counts from 0, as its class does on its own. The next one begins when it has counted to its length.
    """

    def __init__(self, optimizer: Optimizer, length: Length, *stages: Stage) -> None:
        self.optimizer, self.length, self.stages = optimizer, length, stages
        self.base = [float(group["lr"]) for group in optimizer.param_groups]
        self.index = 0
        self.counted = 0
        self.began = 0
        self.scheduler = self._begin() if stages else None

    @property
    def lr(self) -> float:
        """The rate of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def rates(self) -> dict[str, float]:
        """`lr`, the rate of the first group, and `lr.N` of each further group N (from 2) that began at another."""
        groups = self.optimizer.param_groups
        others = {n: group for n, group in enumerate(groups[1:], 2) if self.base[n - 1] != self.base[0]}
        return {"lr": self.lr} | {f"lr.{number}": float(group["lr"]) for number, group in others.items()}

    def step(self, step: int) -> None:
        """Count the optimizer step number `step` (from 1)."""
        if self.scheduler is None or self.stages[self.index].monitor or step % self._unit():
            return
        if self.counted >= self.stages[self.index].lasts and isinstance(self.scheduler, OneCycleLR):
            return  # A run that goes on after the cycle keeps its last rate.
        self.counted += 1
        if self.counted == self.stages[self.index].lasts and self.index + 1 < len(self.stages):
            self.index, self.counted, self.began = self.index + 1, 0, step
            self.scheduler = self._begin()
        else:
            self.scheduler.step()

    def validated(self, values: Mapping[str, float]) -> None:
        """Take note of the values that a validation gave."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(values[self.stages[self.index].monitor])

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is: numbers only."""
        moving = {key: value for key, value in vars(self.scheduler or self).items() if key in MOVING}
        return {"index": self.index, "counted": self.counted, "began": self.began, "scheduler": moving}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`. The rates themselves are in the optimizer's state, which is to be restored after this."""
        self.index, self.counted, self.began = state["index"], state["counted"], state["began"]
        if self.stages:
            self.scheduler = self._begin()
            vars(self.scheduler).update(state["scheduler"])

    def _unit(self) -> int:
        per = self.stages[self.index].per or self.length.unit
        return 1 if per == "step" else self.length.epoch

    def _begin(self) -> LRScheduler:
        for group, rate in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = rate
            # A scheduler that has rates of its own, as CyclicLR, takes those only where no other has left any.
            group.pop("initial_lr", None)
        chosen = self.stages[self.index]
        try:
            return chosen.kind(self.optimizer, **self._arguments(chosen))
        except ValueError as error:
            raise Failure(f"{chosen.kind.__name__}: {error}") from None

    def _arguments(self, chosen: Stage) -> dict[str, Any]:
        """The arguments of a stage; those that are as long as the run take what is left of it."""
        left = (self.length.steps - self.began) / self._unit()
        if chosen.kind is WarmupCosine:
            return {**chosen.args, "total": left}
        if chosen.kind is OneCycleLR and not {"total_steps", "epochs"} & chosen.args.keys():
            return {**chosen.args, "total_steps": math.ceil(left)}
        return dict(chosen.args)
