"""Learning rates, step by step, against PyTorch's own schedulers and their `SequentialLR`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from tdsl.runtime.run import Failure, Length
from tdsl.runtime.schedule import Schedule, Stage, WarmupCosine, plateau, stage

STEPS = 200
EPOCH = 8
BY_STEP = Length(EPOCH, STEPS, "step")
BY_EPOCH = Length(EPOCH, STEPS, "epoch")

# Every scheduler, with arguments that make it change within 200 counts.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 30, "gamma": 0.5},
    "MultiStepLR": {"milestones": (20, 21, 150), "gamma": 0.3},
    "ExponentialLR": {"gamma": 0.99},
    "CosineAnnealingLR": {"T_max": 60, "eta_min": 1e-3},
    "CosineAnnealingWarmRestarts": {"T_0": 10, "T_mult": 2, "eta_min": 1e-3},
    "LinearLR": {"start_factor": 0.1, "total_iters": 50},
    "PolynomialLR": {"total_iters": 120, "power": 2.0},
    "ConstantLR": {"factor": 0.25, "total_iters": 40},
    "OneCycleLR": {"max_lr": 0.3, "total_steps": 200, "three_phase": True},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 15, "mode": "triangular2"},
}


def optimizer(lr: float = 0.1, make: type[Optimizer] = SGD) -> Optimizer:
    """Two groups of parameters, each with a rate of its own."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))]},
        {"params": [torch.nn.Parameter(torch.ones(3))], "lr": 0.4},
    ]
    extra = {"momentum": 0.9} if make is SGD else {}
    return make(groups, lr=lr, **extra)  # type: ignore[call-arg, arg-type]


def rates(optimizer: Optimizer, count: Callable[[int], None], steps: int = STEPS) -> list[list[float]]:
    """The rates before each of the steps 1 to `steps`; `count` is called behind each."""
    found = []
    for step in range(1, steps + 1):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        count(step)
    return found


def close(mine: list[list[float]], theirs: list[list[float]]) -> None:
    torch.testing.assert_close(torch.tensor(mine).double(), torch.tensor(theirs).double(), rtol=1e-9, atol=1e-12)


def ours(length: Length, *stages: Stage, make: type[Optimizer] = SGD) -> list[list[float]]:
    over = optimizer(make=make)
    return rates(over, Schedule(over, length, *stages).step)


def theirs(make: Callable[[Optimizer], LRScheduler], every: int = 1, kind: type[Optimizer] = SGD) -> list[list[float]]:
    over = optimizer(make=kind)
    scheduler = make(over)
    return rates(over, lambda step: scheduler.step() if step % every == 0 else None)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_scheduler_counts_steps_as_in_pytorch(name: str, kind: type[Optimizer]) -> None:
    made, args = getattr(lr_scheduler, name), SCHEDULERS[name]
    mine = ours(BY_STEP, stage(made, **args), make=kind)
    assert mine == theirs(lambda over: made(over, **args), kind=kind)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_counts_epochs(name: str) -> None:
    made, args = getattr(lr_scheduler, name), SCHEDULERS[name]
    expected = theirs(lambda over: made(over, **args), every=EPOCH)
    assert ours(BY_EPOCH, stage(made, **args)) == expected
    assert ours(BY_STEP, stage(made, per="epoch", **args)) == expected


def test_what_is_said_to_count_steps_does_so_where_the_run_counts_epochs() -> None:
    args = SCHEDULERS["ExponentialLR"]
    made = stage(lr_scheduler.ExponentialLR, per="step", **args)
    assert ours(BY_EPOCH, made) == theirs(lambda over: lr_scheduler.ExponentialLR(over, **args))


@pytest.mark.parametrize("last", ["CosineAnnealingLR", "StepLR", "ExponentialLR", "MultiStepLR"])
@pytest.mark.parametrize("first", ["LinearLR", "ConstantLR", "PolynomialLR"])
def test_a_chain_is_a_sequential_scheduler(first: str, last: str) -> None:
    one, two = getattr(lr_scheduler, first), getattr(lr_scheduler, last)

    def sequential(over: Optimizer) -> LRScheduler:
        parts = [one(over, **SCHEDULERS[first]), two(over, **SCHEDULERS[last])]
        return lr_scheduler.SequentialLR(over, parts, milestones=[SCHEDULERS[first]["total_iters"]])

    close(ours(BY_STEP, stage(one, **SCHEDULERS[first]), stage(two, **SCHEDULERS[last])), theirs(sequential))


def test_three_in_a_chain() -> None:
    warm: dict[str, Any] = {"start_factor": 0.2, "total_iters": 10}
    flat: dict[str, Any] = {"factor": 1.0, "total_iters": 30}

    def sequential(over: Optimizer) -> LRScheduler:
        parts = [
            lr_scheduler.LinearLR(over, **warm),
            lr_scheduler.ConstantLR(over, **flat),
            lr_scheduler.CosineAnnealingLR(over, T_max=160),
        ]
        return lr_scheduler.SequentialLR(over, parts, milestones=[10, 40])

    stages = (stage(lr_scheduler.LinearLR, **warm), stage(lr_scheduler.ConstantLR, **flat))
    close(ours(BY_STEP, *stages, stage(lr_scheduler.CosineAnnealingLR, T_max=160)), theirs(sequential))


def test_a_chain_may_count_steps_and_then_epochs() -> None:
    """A warm-up of 24 steps, which are 3 epochs; then the epochs are counted from there."""
    warm = stage(lr_scheduler.LinearLR, per="step", start_factor=0.25, total_iters=24)
    mine = ours(BY_EPOCH, warm, stage(lr_scheduler.StepLR, step_size=2, gamma=0.5))
    first = theirs(lambda over: lr_scheduler.LinearLR(over, start_factor=0.25, total_iters=24))[:24]
    then = theirs(lambda over: lr_scheduler.StepLR(over, step_size=2, gamma=0.5), every=EPOCH)
    assert mine == [*first, *then[: STEPS - 24]]


def test_warmup_cosine_is_its_formula() -> None:
    mine = ours(BY_STEP, stage(WarmupCosine, warmup=20, min_lr=0.01))
    for t, found in enumerate(mine):
        for rate, peak in zip(found, (0.1, 0.4), strict=True):
            if t < 20:
                expected = peak * (t + 1) / 21
            else:
                expected = 0.01 + (peak - 0.01) * (1 + math.cos(math.pi * (t - 20) / 180)) / 2
            assert rate == pytest.approx(expected, rel=1e-12)


def test_warmup_cosine_without_a_warmup_is_cosine_annealing() -> None:
    mine = ours(BY_STEP, stage(WarmupCosine, warmup=0, min_lr=0.001))
    close(mine, theirs(lambda over: lr_scheduler.CosineAnnealingLR(over, T_max=STEPS, eta_min=0.001)))


def test_one_cycle_is_as_long_as_the_run() -> None:
    expected = theirs(lambda over: lr_scheduler.OneCycleLR(over, max_lr=0.3, total_steps=STEPS))
    assert ours(BY_STEP, stage(lr_scheduler.OneCycleLR, max_lr=0.3)) == expected
    by_epoch = theirs(lambda over: lr_scheduler.OneCycleLR(over, max_lr=0.3, total_steps=STEPS // EPOCH), every=EPOCH)
    assert ours(BY_EPOCH, stage(lr_scheduler.OneCycleLR, max_lr=0.3)) == by_epoch


def test_a_plateau_is_told_of_each_validation() -> None:
    losses = [1.0, 0.9, 0.9, 0.9, 0.95, 0.91, 0.7, 0.8, 0.8, 0.8, 0.8, 0.6, 0.6, 0.6, 0.6, 0.6]
    args = {"factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": 0.02}
    one, two = optimizer(), optimizer()
    mine = Schedule(one, BY_EPOCH, plateau("val/accuracy", mode="min", **args))
    reference = lr_scheduler.ReduceLROnPlateau(two, mode="min", **args)  # type: ignore[arg-type]
    for step, loss in enumerate(losses, 1):
        mine.step(step)
        mine.validated({"val/accuracy": loss, "val/loss": 0.0})
        reference.step(loss)
        assert [group["lr"] for group in one.param_groups] == [group["lr"] for group in two.param_groups]
    assert one.param_groups[0]["lr"] < 0.1


CHAINS: dict[str, tuple[Stage, ...]] = {
    **{name: (stage(getattr(lr_scheduler, name), **args),) for name, args in SCHEDULERS.items()},
    "WarmupCosine": (stage(WarmupCosine, warmup=30, min_lr=1e-3),),
    "chain": (
        stage(lr_scheduler.LinearLR, total_iters=50),
        stage(lr_scheduler.CosineAnnealingLR, T_max=100),
        stage(lr_scheduler.ExponentialLR, gamma=0.98),
    ),
    "none": (),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_schedule_goes_on_where_it_was(name: str) -> None:
    """After 0, 1, ... steps, through JSON, into an optimizer and a schedule made anew: the rates are bit-equal."""
    whole = optimizer()
    expected = rates(whole, Schedule(whole, BY_STEP, *CHAINS[name]).step)
    for stop in (0, 1, 49, 50, 51, 100, 137, 150, 199):
        first = optimizer()
        schedule = Schedule(first, BY_STEP, *CHAINS[name])
        rates(first, schedule.step, stop)
        kept = json.loads(json.dumps(schedule.state_dict()))
        second = optimizer()
        again = Schedule(second, BY_STEP, *CHAINS[name])
        again.load_state_dict(kept)
        second.load_state_dict(first.state_dict())
        rest = rates(second, lambda step, again=again, stop=stop: again.step(stop + step), STEPS - stop)  # type: ignore[misc]
        assert rest == expected[stop:], f"stopped after {stop} steps"


def test_a_plateau_goes_on_where_it_was() -> None:
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.8, 0.85, 0.85, 0.85, 0.85, 0.85]
    stages = (plateau("val/loss", factor=0.5, patience=1, cooldown=1),)

    def run(schedule: Schedule, values: list[float]) -> list[float]:
        found = []
        for value in values:
            schedule.validated({"val/loss": value})
            found.append(schedule.lr)
        return found

    expected = run(Schedule(optimizer(), BY_EPOCH, *stages), losses)
    for stop in range(len(losses)):
        first = optimizer()
        schedule = Schedule(first, BY_EPOCH, *stages)
        run(schedule, losses[:stop])
        second = optimizer()
        again = Schedule(second, BY_EPOCH, *stages)
        again.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        second.load_state_dict(first.state_dict())
        assert run(again, losses[stop:]) == expected[stop:]


def test_a_run_that_goes_on_after_one_cycle_keeps_the_last_rate() -> None:
    over = optimizer()
    schedule = Schedule(over, BY_STEP, stage(lr_scheduler.OneCycleLR, max_lr=0.3, total_steps=50))
    found = rates(over, schedule.step)
    assert found[60] == found[-1]


def test_what_pytorch_refuses_is_a_message() -> None:
    """There is no momentum to cycle."""
    over = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    del over.defaults["momentum"]
    with pytest.raises(Failure, match="momentum"):
        Schedule(over, BY_STEP, stage(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=0.2))
