"""Every scheduler, alone and joined, as a program's run makes it, against PyTorch's: 200 steps, rate by rate."""

from __future__ import annotations

import importlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.dsl.signatures import SCHEDULERS
from tdsl.runtime import run
from tdsl.runtime.schedule import Schedule
from tests.helpers import built
from tests.running import importable
from tests.test_optimizers import said

STEPS, EPOCH, EPOCHS = 200, 8, 25
ROWS = 16
PROGRAM = """
module Net() {{
    up   = Linear(2, 3)
    down = Linear(3, 2)
    forward(x: float[B, 2]) -> float[B, 2] {{ return x |> up |> down }}
}}
data Points {{
    source = csv("points.csv")
    field x: float[2] = columns("x*")
    field y: int[]    = column("y")
}}
train points {{
    model = Net()
    data  = Points
    loss(batch) {{ return cross_entropy(model(batch.x), batch.y) }}
    optimizer  = SGD(lr=0.1, momentum=0.9)
    group "down" {{ lr = 0.4 }}
    scheduler  = {scheduler}
    {length}
    batch_size = {rows}
}}
"""
# What a program says of one scheduler: its name and arguments; `per` is ours.
Said = tuple[str, Mapping[str, Any]]
# A rate for each group, and its momentum, which cycles change.
Rates = list[tuple[float, ...]]

# Each with its defaults, where it has them, and with other arguments.
SETTINGS: Mapping[str, Sequence[dict[str, Any]]] = {
    "StepLR": [{"step_size": 3}, {"step_size": 30, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": (3, 5)}, {"milestones": (20, 21, 150), "gamma": 0.3}],
    "ExponentialLR": [{"gamma": 0.97}],
    "CosineAnnealingLR": [{"T_max": 25}, {"T_max": 60, "eta_min": 1e-3}],
    "CosineAnnealingWarmRestarts": [{"T_0": 7}, {"T_0": 10, "T_mult": 2, "eta_min": 1e-3}],
    "LinearLR": [{}, {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 50}],
    "PolynomialLR": [{}, {"total_iters": 120, "power": 2.0}],
    "ConstantLR": [{}, {"factor": 0.25, "total_iters": 40}],
    "OneCycleLR": [
        {"max_lr": 0.3, "total_steps": 200},
        {
            "max_lr": 0.2, "total_steps": 200, "pct_start": 0.2, "anneal_strategy": "linear", "cycle_momentum": False,
            "div_factor": 10.0, "final_div_factor": 100.0, "three_phase": True,
        },
        {"max_lr": 0.3, "epochs": 40, "steps_per_epoch": 5, "base_momentum": 0.7, "max_momentum": 0.99},
    ],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 15},
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5, "step_size_down": 9, "mode": "triangular2"},
        {
            "base_lr": 0.01, "max_lr": 0.2, "step_size_up": 15, "mode": "exp_range", "gamma": 0.99,
            "cycle_momentum": True, "base_momentum": 0.7, "max_momentum": 0.95,
        },
    ],
    "ReduceLROnPlateau": [
        {},
        {"mode": "max", "factor": 0.5, "patience": 2, "cooldown": 3, "min_lr": 0.01},
        {"factor": 0.7, "patience": 0, "threshold": 0.05, "threshold_mode": "abs", "eps": 1e-2},
    ],
    "WarmupCosine": [{"warmup": 4}, {"warmup": 7, "min_lr": 0.01}],
}  # fmt: skip
PLAIN = [(name, args) for name in SETTINGS for args in SETTINGS[name] if hasattr(lr_scheduler, name)]
ALONE: list[Said] = [each for each in PLAIN if each[0] != "ReduceLROnPlateau"]
# What can have another behind it, with where that begins.
FIRST: list[tuple[Said, int]] = [
    (("LinearLR", {}), 5),
    (("LinearLR", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 50}), 50),
    (("ConstantLR", {"factor": 0.25, "total_iters": 40}), 40),
    (("PolynomialLR", {"total_iters": 60, "power": 2.0}), 60),
    (("CosineAnnealingLR", {"T_max": 30, "eta_min": 1e-3}), 30),
    (("OneCycleLR", {"max_lr": 0.3, "total_steps": 70, "cycle_momentum": False}), 70),
]


class _Made(Exception):
    """What a script has made by the time that it would begin to train."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        super().__init__()
        self.optimizer, self.schedule = optimizer, schedule


def _interrupt(job: object, models: object, optimizer: Optimizer, schedule: Schedule, **rest: object) -> None:
    raise _Made(optimizer, schedule)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Optimizer, Schedule]]:
    """The optimizer and the schedule of the emitted script of a program with these schedulers."""
    folder = tmp_path_factory.mktemp("schedulers")
    lines = [f"{i},{-i},{i % 2}" for i in range(ROWS * EPOCH)]
    (folder / "points.csv").write_text("\n".join(["x0,x1,y", *lines, ""]))
    known: dict[str, Path] = {}

    def made(*stages: Said, unit: str = "steps") -> tuple[Optimizer, Schedule]:
        chain = " |> ".join(f"{name}({said(args)})" for name, args in stages)
        length = f"steps = {STEPS}" if unit == "steps" else f"epochs = {EPOCHS}"
        text = PROGRAM.format(scheduler=chain, length=length, rows=ROWS)
        if text not in known:
            known[text] = folder / str(len(known))
            write(emit(pipeline.run(built(text, folder / "p.model")), Options("points", root=str(folder))), known[text])
        out = known[text]
        with importable(out):
            train = importlib.import_module("train")
            train.Training = _interrupt
            with pytest.raises(_Made) as found:
                run.main("points", train.SETTINGS, train.train, out=out, program=out / "program.model", argv=[])
        return found.value.optimizer, found.value.schedule

    return made


def plain() -> Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in (0.1, 0.4)]
    return SGD(groups, momentum=0.9)


def rates(over: Optimizer, count: Callable[[int], object], first: int = 1, last: int = STEPS) -> Rates:
    """Those at the steps `first` to `last`; `count` is called behind each."""
    found = []
    for step in range(first, last + 1):
        groups = over.param_groups
        found.append((*(float(group["lr"]) for group in groups), *(group["momentum"] for group in groups)))
        over.step()
        count(step)
    return found


def mine(made: tuple[Optimizer, Schedule], first: int = 1, last: int = STEPS) -> Rates:
    over, schedule = made
    return rates(over, schedule.step, first, last)


def theirs(stage: Said, every: int = 1, steps: int = STEPS) -> Rates:
    """A scheduler of PyTorch's alone."""
    over, (name, args) = plain(), stage
    scheduler = getattr(lr_scheduler, name)(over, **args)
    return rates(over, lambda step: scheduler.step() if step % every == 0 else None, last=steps)


def close(found: Rates, expected: Rates) -> None:
    torch.testing.assert_close(torch.tensor(found).double(), torch.tensor(expected).double(), rtol=1e-12, atol=0)


def exactly(found: Rates, expected: Rates) -> None:
    different = [i for i, (a, b) in enumerate(zip(found, expected, strict=True), 1) if a != b]
    assert not different, f"at the steps {different}: {found[different[0] - 1]}, not {expected[different[0] - 1]}"


def per(stage: Said, unit: str) -> Said:
    return stage[0], {**stage[1], "per": unit}


@pytest.mark.parametrize("stage", ALONE, ids=str)
def test_a_scheduler_is_pytorchs(stage: Said, make: Callable[..., tuple[Optimizer, Schedule]]) -> None:
    by_step, by_epoch = theirs(stage), theirs(stage, EPOCH)
    exactly(mine(make(stage)), by_step)
    exactly(mine(make(stage, unit="epochs")), by_epoch)
    if stage[1] is SETTINGS[stage[0]][0]:
        exactly(mine(make(per(stage, "epoch"))), by_epoch)
        exactly(mine(make(per(stage, "step"), unit="epochs")), by_step)


def warmup_cosine(args: Mapping[str, Any], total: float, steps: int = STEPS, every: int = 1) -> Rates:
    """The formula of the reference, which PyTorch has no class for."""

    def rate(base: float, t: int) -> float:
        warmup, low = args["warmup"], args.get("min_lr", 0.0)
        if t < warmup:
            return base * (t + 1) / (warmup + 1)
        return low + (base - low) * (1 + math.cos(math.pi * (t - warmup) / (total - warmup))) / 2

    return [(*(rate(base, step // every) for base in (0.1, 0.4)), 0.9, 0.9) for step in range(steps)]


@pytest.mark.parametrize("args", SETTINGS["WarmupCosine"], ids=str)
def test_warmup_cosine_is_its_formula(args: dict[str, Any], make: Callable[..., tuple[Optimizer, Schedule]]) -> None:
    """Behind its warmup it is PyTorch's cosine."""
    stage = "WarmupCosine", args
    close(mine(make(stage)), warmup_cosine(args, STEPS))
    close(mine(make(stage, unit="epochs")), warmup_cosine(args, EPOCHS, every=EPOCH))
    close(mine(make(per(stage, "step"), unit="epochs")), warmup_cosine(args, STEPS))
    cosine = "CosineAnnealingLR", {"T_max": STEPS - args["warmup"], "eta_min": args.get("min_lr", 0.0)}
    behind = [each[:2] for each in theirs(cosine, steps=STEPS - args["warmup"])]
    found = [each[:2] for each in mine(make(stage))[args["warmup"] :]]
    torch.testing.assert_close(torch.tensor(found).double(), torch.tensor(behind).double(), rtol=1e-9, atol=1e-12)


# Joined --------------------------------------------------------------------------------------------------------------


def expected_of(stage: Said, steps: int, every: int = 1) -> Rates:
    """A scheduler alone, over the last `steps` of a run."""
    if stage[0] == "WarmupCosine":
        return warmup_cosine(stage[1], steps / every, steps, every)
    if stage[0] == "ReduceLROnPlateau":
        return [(0.1, 0.4, 0.9, 0.9)] * steps
    return theirs(stage, every, steps)


def sequential(first: Said, second: Said, end: int) -> Rates:
    over = plain()
    parts = [getattr(lr_scheduler, name)(over, **args) for name, args in (first, second)]
    scheduler = lr_scheduler.SequentialLR(over, parts, milestones=[end])
    return rates(over, lambda step: scheduler.step())


@pytest.mark.parametrize("second", SETTINGS)
@pytest.mark.parametrize(("first", "end"), FIRST, ids=lambda each: str(each) if isinstance(each, int) else each[0])
def test_the_next_begins_where_one_ends(
    first: Said, end: int, second: str, make: Callable[..., tuple[Optimizer, Schedule]]
) -> None:
    """It counts from 0 there, from the rates that the groups began with."""
    then = second, SETTINGS[second][-1]
    found = mine(make(first, then))
    close(found, [*expected_of(first, end), *expected_of(then, STEPS - end)])
    # Where PyTorch has the same: its schedulers with rates of their own spoil those of the others.
    if {first[0], second}.isdisjoint({"OneCycleLR", "CyclicLR", "WarmupCosine", "ReduceLROnPlateau"}):
        close(found, sequential(first, then, end))


def test_three_units_in_a_row(make: Callable[..., tuple[Optimizer, Schedule]]) -> None:
    """Steps, then epochs, then steps again: 24 steps, 2 epochs, and what is left."""
    warm, flat = ("LinearLR", {"total_iters": 24}), ("ConstantLR", {"factor": 0.5, "total_iters": 2})
    down = "WarmupCosine", {"warmup": 10, "min_lr": 1e-3}
    found = mine(make(per(warm, "step"), flat, per(down, "step"), unit="epochs"))
    close(found, [*theirs(warm, steps=24), *theirs(flat, EPOCH, 16), *warmup_cosine(down[1], 160, 160)])


def test_epochs_that_follow_steps_end_where_epochs_end(make: Callable[..., tuple[Optimizer, Schedule]]) -> None:
    """20 steps are two epochs and a half: the next scheduler's first epoch is the other half."""
    warm, steps = ("LinearLR", {"total_iters": 20}), ("StepLR", {"step_size": 1, "gamma": 0.5})
    found = mine(make(per(warm, "step"), steps, unit="epochs"))
    down = theirs(steps, EPOCH)
    close(found, [*theirs(warm, steps=20), *down[:4], *down[8 : 8 + STEPS - 24]])


# The plateau ---------------------------------------------------------------------------------------------------------


def losses(seed: int) -> list[float]:
    """200 values that fall, stay and rise, with ties."""
    drawn = random.Random(seed)
    return [
        round(2.0 - 0.005 * i * (i < 60) + drawn.choice([0, 0, 0.1, -0.05, drawn.random()]), 4) for i in range(STEPS)
    ]


def plateau(made: tuple[Optimizer, Schedule], values: Sequence[float]) -> Rates:
    over, schedule = made
    return rates(over, lambda step: schedule.validated({"val/loss": values[step - 1]}))


@pytest.mark.parametrize("args", SETTINGS["ReduceLROnPlateau"], ids=str)
def test_a_plateau_is_pytorchs(args: dict[str, Any], make: Callable[..., tuple[Optimizer, Schedule]]) -> None:
    for seed in range(3):
        over, values = plain(), losses(seed)
        reference = lr_scheduler.ReduceLROnPlateau(over, **args)  # type: ignore[arg-type]
        expected = rates(over, lambda step: reference.step(values[step - 1]))  # noqa: B023
        assert len(set(expected)) > 2
        exactly(plateau(make(("ReduceLROnPlateau", args)), values), expected)


def test_a_plateau_waits_for_its_turn(make: Callable[..., tuple[Optimizer, Schedule]]) -> None:
    args, values = {"patience": 2, "factor": 0.5}, losses(0)
    over, schedule = make(("LinearLR", {"total_iters": 20}), ("ReduceLROnPlateau", args))

    def count(step: int) -> None:
        schedule.step(step)
        schedule.validated({"val/loss": values[step - 1]})

    found = rates(over, count)
    other = plain()
    reference = lr_scheduler.ReduceLROnPlateau(other, **args)  # type: ignore[arg-type]
    # The validation behind step 20 is the first that it sees.
    reference.step(values[19])
    expected = rates(other, lambda step: reference.step(values[step + 19]), last=STEPS - 20)
    close(found, [*theirs(("LinearLR", {"total_iters": 20}), steps=20), *expected])


# Saved and resumed ---------------------------------------------------------------------------------------------------


def resumed(make: Callable[[], tuple[Optimizer, Schedule]], stop: int, values: Sequence[float]) -> Rates:
    """A run that is stopped behind step `stop`, and goes on from what is kept of it, as JSON."""

    def count(schedule: Schedule) -> Callable[[int], None]:
        def counted(step: int) -> None:
            schedule.step(step)
            schedule.validated({"val/loss": values[step - 1]})

        return counted

    over, schedule = make()
    found = rates(over, count(schedule), last=stop)
    kept, state = json.loads(json.dumps(schedule.state_dict())), over.state_dict()
    again, second = make()
    second.load_state_dict(kept)
    again.load_state_dict(state)
    return found + rates(again, count(second), stop + 1)


def chains() -> Iterator[tuple[Said, ...]]:
    yield from ((each,) for each in (*PLAIN, *(("WarmupCosine", args) for args in SETTINGS["WarmupCosine"])))
    yield ("LinearLR", {"total_iters": 20}), ("ReduceLROnPlateau", {"patience": 1, "factor": 0.5})
    yield ("LinearLR", {}), ("OneCycleLR", {"max_lr": 0.3, "total_steps": 15}), ("StepLR", {"step_size": 3})
    yield ("OneCycleLR", {"max_lr": 0.3, "total_steps": 10}), ("CyclicLR", SETTINGS["CyclicLR"][0])
    yield ("ConstantLR", {"total_iters": 8}), ("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2})
    yield ("LinearLR", {"total_iters": 20, "per": "step"}), ("WarmupCosine", {"warmup": 3})


@pytest.mark.parametrize("chain", list(chains()), ids=lambda chain: " ".join(name for name, _ in chain))
def test_a_run_goes_on_with_the_same_rates(
    chain: tuple[Said, ...], make: Callable[..., tuple[Optimizer, Schedule]]
) -> None:
    unit = "epochs" if len(chain) > 1 else "steps"
    values = losses(7)
    expected = resumed(lambda: make(*chain, unit=unit), STEPS, values)
    assert len(set(expected)) > 1
    for stop in random.Random(str(chain)).sample(range(1, STEPS), 2):
        exactly(resumed(lambda: make(*chain, unit=unit), stop, values), expected)


def test_every_scheduler_has_its_settings() -> None:
    """Each argument of the language is in one of the settings, but for `per` and `monitor`."""
    for name, each in SCHEDULERS.items():
        given = {key for args in SETTINGS[name] for key in args}
        assert given == {arg.name for arg in each.args} - {"per", "monitor"}, name
