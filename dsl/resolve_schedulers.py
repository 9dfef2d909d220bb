"""Schedules of the learning rate: those joined with `|>`, and what they hardly mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.kinds import call
from tdsl.dsl.program import Call, Constant
from tdsl.dsl.scope import Scope
from tdsl.dsl.signatures import HIGHER_IS_BETTER, SCHEDULERS
from tdsl.dsl.values import evaluate

SCHEDULER = call("a scheduler", SCHEDULERS)
# How far from the end of the run a schedule may end before it is worth a word.
SHORTEST, LONGEST = 0.5, 2.0


def resolve_schedulers(setting: ast.Setting | None, scope: Scope) -> Iterator[Call]:
    """The schedules joined with `|>`."""
    if setting is None or (isinstance(setting.value, ast.Literal) and setting.value.value is None):
        return
    made: list[Constant] = []
    for part in stages(setting.value):
        with scope.guard():
            made.append(evaluate(part, SCHEDULER, "`scheduler`", scope.lookup))
    yield from (each for each in made if isinstance(each, Call))


def stages(expr: ast.Expr) -> list[ast.Expr]:
    """What is joined with `|>`, in order."""
    found = [expr]
    while isinstance(found[0], ast.Pipe):
        found[:1] = [found[0].value, found[0].stage]
    return found


def check_length(
    setting: ast.Setting | None, schedulers: tuple[Call, ...], settings: Mapping[str, Constant], scope: Scope
) -> None:
    """Warn of a schedule that ends long before or after the run, where both count the same."""
    unit = "step" if settings["steps"] is not None else "epoch"
    length = settings["steps"] or settings["epochs"]
    if setting is None or not isinstance(length, int) or any(each.args.get("per", unit) != unit for each in schedulers):
        return
    ends = [_end(each) for each in schedulers]
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        return
    end = sum(known)
    if end > LONGEST * length or (end < SHORTEST * length and not _may_end_early(schedulers[-1])):
        message = f"the schedule ends after {end} {unit}s, the run after {length}"
        help = "a schedule as long as the run is usual; `per` says what it counts"
        scope.reporter.add(Diagnostic("W301", message, setting.value.span, help=help))


def check_plateaus(schedulers: tuple[Call, ...], scope: Scope) -> None:
    """Warn of a rate that falls while what is monitored gets better: PyTorch's default `mode` is for losses."""
    for each in schedulers:
        monitor = str(each.args.get("monitor", "val/loss"))
        rises = monitor.rpartition("/")[2] in HIGHER_IS_BETTER
        if each.name == "ReduceLROnPlateau" and rises and each.args.get("mode", "min") == "min":
            message = f"the rate falls while `{monitor}` rises, which is better the higher it is"
            scope.reporter.add(Diagnostic("W302", message, each.span, help='write `mode="max"`'))


def check_cycles(schedulers: tuple[Call, ...], settings: Mapping[str, Constant], scope: Scope) -> None:
    """Warn of a cycle that is stepped with each batch in PyTorch, and would be with each epoch here."""
    for each in schedulers:
        steps = each.args.get("per") is None and each.args.get("total_steps") is None
        if each.name in ("OneCycleLR", "CyclicLR") and steps and settings["steps"] is None:
            message = f"`{each.name}` changes the rate once an epoch: the run counts epochs"
            help = (
                'PyTorch\'s is stepped after every batch: write `per="step"`, or `per="epoch"` where epochs are meant'
            )
            scope.reporter.add(Diagnostic("W303", message, each.span, help=help))


def _end(scheduler: Call) -> int | None:
    """How long a schedule goes on changing the rate; None where it has no end."""
    args = scheduler.args
    milestones = args.get("milestones")
    found = {
        "CosineAnnealingLR": args.get("T_max"),
        "LinearLR": args.get("total_iters", 5),
        "PolynomialLR": args.get("total_iters", 5),
        "ConstantLR": args.get("total_iters", 5),
        "StepLR": args.get("step_size"),
        "OneCycleLR": args.get("total_steps"),
        "MultiStepLR": max((m for m in milestones if isinstance(m, int)), default=None)
        if isinstance(milestones, tuple)
        else None,
    }.get(scheduler.name)
    return found if isinstance(found, int) else None


def _may_end_early(scheduler: Call) -> bool:
    """A schedule that leaves a rate to train on with: steps and warm-ups."""
    return scheduler.name in ("StepLR", "MultiStepLR", "LinearLR", "ConstantLR")
