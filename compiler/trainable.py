"""What of a run can't be trained: it would mean something else than it says, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from tdsl.compiler import recomputation
from tdsl.compiler.build.unit import RunIR, Unit
from tdsl.compiler.inspect import parameters
from tdsl.compiler.reach import classes
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.program import Call, TrainSpec

# Schedulers without an end of their own: nothing can follow them.
ENDLESS = (
    "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ReduceLROnPlateau",
    "WarmupCosine",
)  # fmt: skip


def unsupported(unit: Unit, run: RunIR) -> list[Diagnostic]:
    """Each such thing with its place and the way out."""
    found = [*_bad_schedule(run.spec), *_bad_accumulation(run), *_bad_strategy(unit, run)]
    return [*found, *_bad_optimizer(unit, run), *recomputation.unmatched(unit, run)]


def _bad_accumulation(run: RunIR) -> Iterator[Diagnostic]:
    if run.spec.settings.get("accumulate") not in (1, None) and not run.accumulation.possible:
        message = "`accumulate` needs a loss that is a mean over rows, so that parts of a batch add up to the whole"
        help = "make the loss a mean of what each row gives by itself, or take `accumulate` out"
        where = run.accumulation.mixed or run.spec.loss.name_span
        yield Diagnostic("E332", message, where, "not known to leave each row by itself", help=help)


def _bad_strategy(unit: Unit, run: RunIR) -> Iterator[Diagnostic]:
    """What would mean another thing in another number of processes."""
    strategy = run.spec.settings.get("distributed")
    if not isinstance(strategy, Call):
        return
    if strategy.name == "fsdp":
        yield from _bad_sharding(unit, run, strategy)
    if not run.accumulation.possible and run.spec.settings.get("accumulate") in (1, None):
        message = "`distributed` needs a loss that is a mean over rows, so that each process can compute its own"
        help = "make the loss a mean of what each row gives by itself, or take `distributed` out"
        where = run.accumulation.mixed or run.spec.loss.name_span
        yield Diagnostic("E332", message, where, "not known to leave each row by itself", help=help)
    for module in unit.modules:
        for node in module.graph.walk():
            if node.op.name == "batch_norm" and node.span is not None:
                message = "`batch_norm` takes the statistics of one process's rows"
                help = "use the layer, `BatchNorm1d` or its like, which takes those of all"
                yield Diagnostic("E332", message, node.span, help=help)


def _bad_sharding(unit: Unit, run: RunIR, strategy: Call) -> Iterator[Diagnostic]:
    """What needs a parameter whole where each process has rows of it."""
    help = "write `ddp()`: every process has all parameters"
    if run.spec.optimizer.name == "Muon":
        message = "`Muon` needs whole matrices, and with `fsdp()` each process has rows of them"
        yield Diagnostic("E331", message, run.spec.optimizer.span, help=f"{help}; or choose another optimizer")
    made = classes(unit, run)
    graphs = [run.loss, *(each.graph for each in unit.modules if each.class_name in made)]
    twice = next((node for graph in graphs for node in graph.walk() if node.op.name == "grad"), None)
    if twice is not None:
        message = "a gradient within a loss can't be had of parameters that `fsdp()` divides among processes"
        yield Diagnostic("E331", message, twice.span or strategy.span, help=help)


def _bad_optimizer(unit: Unit, run: RunIR) -> Iterator[Diagnostic]:
    """`Muon` takes matrices alone."""
    if run.spec.optimizer.name != "Muon":
        return
    found = [f"`{name}`" for name, shape in _trained(unit, run) if len(shape) != 2]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        message = f"`Muon` trains matrices, which {', '.join(found[:3])}{more} {'is' if len(found) == 1 else 'are'} not"
        help = "name what is no matrix in `freeze`, or choose another optimizer, such as `AdamW`"
        yield Diagnostic("E334", message, run.spec.optimizer.span, help=help)


def _trained(unit: Unit, run: RunIR) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters that a run's optimizer has, by the names that `freeze` knows, with their shapes."""
    freeze = run.spec.settings.get("freeze")
    patterns = [str(each) for each in freeze] if isinstance(freeze, tuple) else []
    for name, member in run.models.items():
        lead = "" if name == "model" else f"{name}."
        for each in parameters(unit, member):
            if each.trainable and not any(fnmatchcase(f"{lead}{each.path}", pattern) for pattern in patterns):
                yield f"{lead}{each.path}", each.shape


def _bad_schedule(spec: TrainSpec) -> Iterator[Diagnostic]:
    for each in spec.schedulers[:-1]:
        if each.name in ENDLESS:
            help = "put it last, or choose one with an end, such as `LinearLR` or `CosineAnnealingLR`"
            yield Diagnostic("E333", f"`{each.name}` has no end, so nothing can follow it", each.span, help=help)
        if each.name == "OneCycleLR" and each.args.get("total_steps") is None:
            help = "give it `total_steps`"
            yield Diagnostic("E333", "this `OneCycleLR` lasts to the end of the run", each.span, help=help)
