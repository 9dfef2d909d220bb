"""What of a run can't be trained: it would mean something else than it says, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tdsl.compiler import patterns, recomputation
from tdsl.compiler.build.unit import RunIR, Unit
from tdsl.compiler.inspect import ParameterInfo
from tdsl.compiler.reach import classes, has_foreign
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.program import Call, TrainSpec
from tdsl.dsl.starts import strangers

# Schedulers without an end of their own: nothing can follow them.
ENDLESS = (
    "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ReduceLROnPlateau",
    "WarmupCosine",
)  # fmt: skip


def unsupported(unit: Unit, run: RunIR) -> list[Diagnostic]:
    """Each such thing with its place and the way out."""
    found = [*_bad_schedule(run.spec), *_bad_accumulation(run), *_bad_strategy(unit, run)]
    return [*found, *_bad_parameters(unit, run), *recomputation.unmatched(unit, run)]


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


def _bad_parameters(unit: Unit, run: RunIR) -> Iterator[Diagnostic]:
    """Names that no parameter has, none that trains, and those that the optimizer can't train."""
    trained = list(patterns.trained(unit, run))
    yield from strangers(run.spec)
    if not has_foreign(unit, run):  # what a class of Python's has is seen when the run begins
        yield from patterns.unmatched(unit, run)
        if not trained:
            yield _idle(unit, run)
    if run.spec.optimizer.name == "Muon":
        yield from _bad_matrices(trained, run)


def _idle(unit: Unit, run: RunIR) -> Diagnostic:
    if next(patterns.named_parameters(unit, run), None) is None:
        message, help = "no model of the run has a parameter", "give the model a layer, or a `param`"
        return Diagnostic("E337", f"there is nothing to train: {message}", run.spec.optimizer.span, help=help)
    message, help = "every parameter is frozen", "take a pattern out of `freeze`"
    return Diagnostic("E337", f"there is nothing to train: {message}", run.spec.span.word("freeze"), help=help)


def _bad_matrices(trained: Sequence[tuple[str, ParameterInfo]], run: RunIR) -> Iterator[Diagnostic]:
    found = [f"`{name}`" for name, each in trained if len(each.shape) != 2]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        message = f"`Muon` trains matrices, which {', '.join(found[:3])}{more} {'is' if len(found) == 1 else 'are'} not"
        help = "name what is no matrix in `freeze`, or choose another optimizer, such as `AdamW`"
        yield Diagnostic("E334", message, run.spec.optimizer.span, help=help)


def _bad_schedule(spec: TrainSpec) -> Iterator[Diagnostic]:
    for each in spec.schedulers[:-1]:
        if each.name in ENDLESS:
            help = "put it last, or choose one with an end, such as `LinearLR` or `CosineAnnealingLR`"
            yield Diagnostic("E333", f"`{each.name}` has no end, so nothing can follow it", each.span, help=help)
        if each.name == "OneCycleLR" and each.args.get("total_steps") is None:
            help = "give it `total_steps`"
            yield Diagnostic("E333", "this `OneCycleLR` lasts to the end of the run", each.span, help=help)
