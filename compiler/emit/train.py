"""`train.py` and `checkpoint.py`: what varies in the scripts of a run, and what of a run can't be trained yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tdsl.compiler.build.unit import EvaluationIR, RunIR, Unit
from tdsl.compiler.emit.evaluate import metric_texts
from tdsl.compiler.emit.model import constructor
from tdsl.compiler.emit.python import block_lines
from tdsl.compiler.emit.render import layout, plain, render
from tdsl.compiler.emit.row_mean import is_row_mean
from tdsl.compiler.emit.text import identifier, literal, mentions
from tdsl.dsl.diagnostics import Diagnostic, ProgramError
from tdsl.dsl.program import Call, Constant, TrainSpec
from tdsl.dsl.resolve_data import splits_of
from tdsl.dsl.signatures import METRIC_KEYS, OPTIMIZERS, Required

# The settings of a run that training heeds; `unsupported` refuses values of others, and some values of these.
SUPPORTED = frozenset({
    "epochs", "steps", "batch_size", "accumulate", "precision", "tf32", "clip_grad_norm", "ema", "seed",
    "deterministic", "freeze", "init_from",
})  # fmt: skip
# The values that ask for nothing of settings that are refused otherwise.
IDLE: Mapping[str, tuple[Constant, ...]] = {
    "precision": ("f32",),
    "activation_checkpointing": ((),),
    "distributed": (None,),
}
# Sections' settings that are refused where they are true.
IDLE_LOGGING = ("tensorboard", "csv")
# What the emitted functions name beside the models and the batch.
IMPORTS = {"math": "import math", "F": "import torch.nn.functional as F", "kernels": "import kernels"}
# Metrics that are better the higher they are; losses and all else that can be monitored, the lower.
HIGHER_IS_BETTER = ("accuracy", "precision", "recall", "f1_score", "auroc", "average_precision", "r2_score")
OWN_OPTIMIZERS = ("Lion",)
# Schedulers without an end of their own: nothing can follow them.
ENDLESS = (
    "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ReduceLROnPlateau",
    "WarmupCosine",
)  # fmt: skip


@dataclass(frozen=True)
class TrainText:
    """All that varies in `train.py`: Python text, but for `program`, `doc`, `name`, `out` and the settings' keys."""

    program: str
    name: str
    doc: str
    batch_size: str
    imports: tuple[str, ...]
    runtime: tuple[str, ...]
    schedulers: tuple[str, ...]
    schedule_imports: tuple[str, ...]
    training_imports: tuple[str, ...]
    settings: Mapping[str, str]
    models: Mapping[str, str]
    classes: tuple[str, ...]
    loss: tuple[str, ...]
    tracks: bool
    compare: tuple[str, ...]
    metrics: Mapping[str, str]
    validates: bool
    init_from: str
    freeze: tuple[str, ...]
    groups: str
    optimizer: str
    schedule: str
    plateau: bool
    ema: bool
    best: str
    early_stopping: str
    out: str


@dataclass(frozen=True)
class LoadText:
    """What makes one model in `checkpoint.py`."""

    class_name: str
    text: str


@dataclass(frozen=True)
class CheckpointText:
    """All that varies in `checkpoint.py`."""

    program: str
    name: str
    classes: tuple[str, ...]
    models: Mapping[str, LoadText]
    out: str


def emit_train(unit: Unit, name: str, *, out: str = "..") -> str:
    """The text of `train.py` for the run `name`. `out` leads from its folder to the run's.

    Raises `ProgramError` for what can't be trained; `unsupported` tells all of it.
    """
    for diagnostic in unsupported(unit.runs[name].spec):
        raise ProgramError(diagnostic)
    return render("scripts/train.py.jinja", train=train_text(unit, name, out))


def emit_checkpoint(unit: Unit, name: str, *, out: str = "..") -> str:
    """The text of `checkpoint.py` for the run `name`. `out` leads from its folder to the run's."""
    run = unit.runs[name]
    models = {
        identifier(key): LoadText(member.class_name, constructor(member, f"{key} = ", 4))
        for key, member in run.models.items()
    }
    text = CheckpointText(_program(unit), name, _classes(run), models, out)
    return render("scripts/checkpoint.py.jinja", checkpoint=text)


def _program(unit: Unit) -> str:
    return plain(PurePath(unit.program.source.name).name)


def _classes(run: RunIR) -> tuple[str, ...]:
    return tuple(sorted({identifier(member.class_name) for member in run.models.values()}))


def train_text(unit: Unit, name: str, out: str) -> TrainText:
    """What the template shows."""
    run = unit.runs[name]
    spec = run.spec
    loss = tuple(block_lines(run.loss))
    metrics = _metrics(unit, spec)
    evaluation = unit.evaluations.get(name)
    compare = tuple(block_lines(evaluation.compare)) if metrics and evaluation and evaluation.compare else ()
    validates = "val" in splits_of(spec.data)
    plateau = any(each.name == "ReduceLROnPlateau" for each in spec.schedulers)
    freeze = spec.settings.get("freeze")
    best, stopping = _best(spec), _early_stopping(spec)
    init_from = spec.settings.get("init_from")
    return TrainText(
        program=_program(unit),
        name=name,
        doc=spec.doc,
        batch_size=literal(spec.settings["batch_size"]),
        imports=tuple(_imports((*loss, *compare))),
        runtime=tuple(_runtime(bool(metrics), validates, init_from is not None)),
        schedulers=tuple(sorted({each.name for each in spec.schedulers if _is_torch(each)})),
        schedule_imports=tuple(_schedule_imports(spec.schedulers)),
        training_imports=tuple(_training_imports(best, stopping)),
        settings=_settings(spec),
        models={identifier(key): constructor(member, f"{key} = ", 4) for key, member in run.models.items()},
        classes=_classes(run),
        loss=loss,
        tracks=bool(run.loss.tracked),
        compare=compare,
        metrics=metrics,
        validates=validates,
        init_from=literal(init_from) if init_from is not None else "",
        freeze=tuple(map(literal, freeze)) if isinstance(freeze, tuple) else (),
        groups=_groups(spec),
        optimizer=_optimizer(spec.optimizer),
        schedule=_schedule(spec.schedulers),
        plateau=plateau,
        ema=spec.settings.get("ema") is not None,
        best=best,
        early_stopping=stopping,
        out=out,
    )


# Imports ------------------------------------------------------------------------------------------------------------


def _imports(lines: Sequence[str]) -> Iterator[str]:
    """The statements that import what the emitted functions name."""
    text = "\n".join(line.partition("  # ")[0] for line in lines)
    yield from (statement for name, statement in IMPORTS.items() if mentions(text, name))


def _runtime(metrics: bool, validates: bool, loads: bool) -> Iterator[str]:
    """The modules of the run time that are called by their names."""
    yield from ("checkpoint",) if loads else ()
    yield from ("metrics",) if metrics else ()
    yield from ("optim", "run")
    yield from ("streams",) if validates else ()


def _schedule_imports(schedulers: Sequence[Call]) -> Iterator[str]:
    names = {each.name for each in schedulers}
    yield "Schedule"
    yield from ("WarmupCosine",) if "WarmupCosine" in names else ()
    yield from ("plateau",) if "ReduceLROnPlateau" in names else ()
    yield from ("stage",) if names - {"ReduceLROnPlateau"} else ()


def _training_imports(best: str, stopping: str) -> Iterator[str]:
    yield from ("Best",) if best or stopping else ()
    yield from ("EarlyStopping",) if stopping else ()
    yield "Training"


# Settings -----------------------------------------------------------------------------------------------------------


def _settings(spec: TrainSpec) -> dict[str, str]:
    """What `--set` can change, as text, with the values that the program gives."""
    plain_ = ("epochs", "steps", "batch_size", "accumulate", "clip_grad_norm", "seed", "tf32", "deterministic")
    found: dict[str, object] = {name: spec.settings.get(name) for name in plain_}
    found |= {f"optimizer.{name}": value for name, value in _optimizer_arguments(spec.optimizer).items()}
    ema = spec.settings.get("ema")
    if isinstance(ema, Call):
        found["ema.decay"] = ema.args.get("decay", 0.999)
    checkpoint = spec.sections["checkpoint"]
    found |= {f"checkpoint.{name}": checkpoint[name] for name in ("every", "keep", "resume")}
    found["checkpoint.resume"] = checkpoint["resume"] or "none"
    found["validate.every"] = spec.sections["validate"]["every"]
    found["logging.every"] = spec.sections["logging"]["every"]
    if "early_stopping" in spec.sections:
        found |= {f"early_stopping.{name}": spec.sections["early_stopping"][name] for name in ("patience", "min_delta")}
    return {name: literal(value) for name, value in found.items()}


def _optimizer_arguments(optimizer: Call) -> dict[str, Constant]:
    """The arguments given, and always the rate and the decay, which a run is most often tried with."""
    signature = OPTIMIZERS[optimizer.name]
    usual = {arg.name: arg.default for arg in signature.args if arg.name in ("lr", "weight_decay")}
    given = {**{name: value for name, value in usual.items() if value is not Required}, **optimizer.args}
    return {arg.name: given[arg.name] for arg in signature.args if arg.name in given}


# What is made -------------------------------------------------------------------------------------------------------


def _optimizer(optimizer: Call) -> str:
    owner = "optim" if optimizer.name in OWN_OPTIMIZERS else "torch.optim"
    return f"{owner}.{identifier(optimizer.name)}"


def _groups(spec: TrainSpec) -> str:
    special = [f"{literal(group.pattern)}: {_dict(group.args)}" for group in spec.groups]
    if not special:
        return "groups = optim.groups(models)"
    line = f"groups = optim.groups(models, {{{', '.join(special)}}})"
    if len(line) + 4 <= 120:
        return line
    return "\n".join(["groups = optim.groups(", "        models,", "        {", *(f"            {each}," for each in special),
                      "        },", "    )"])  # fmt: skip


def _dict(args: Mapping[str, Constant]) -> str:
    return "{" + ", ".join(f"{literal(name)}: {literal(value)}" for name, value in args.items()) + "}"


def _is_torch(scheduler: Call) -> bool:
    return scheduler.name not in ("WarmupCosine", "ReduceLROnPlateau")


def _schedule(schedulers: Sequence[Call]) -> str:
    stages = [_stage(each) for each in schedulers]
    return layout("schedule = Schedule", ["optimizer", "length", *stages], "", 4)


def _stage(scheduler: Call) -> str:
    args = [f"{identifier(name)}={literal(value)}" for name, value in scheduler.args.items() if value is not None]
    if scheduler.name == "ReduceLROnPlateau":
        return f"plateau({', '.join(args)})"
    return f"stage({', '.join([identifier(scheduler.name), *args])})"


def _monitors(spec: TrainSpec) -> Iterator[str]:
    """The names of all values that something is decided by."""
    for value in (spec.sections["checkpoint"]["best"], spec.sections.get("early_stopping", {}).get("monitor")):
        yield from (value,) if isinstance(value, str) else ()
    for each in spec.schedulers:
        if each.name == "ReduceLROnPlateau":
            yield str(each.args.get("monitor", "val/loss"))


def _metrics(unit: Unit, spec: TrainSpec) -> dict[str, str]:
    """The metrics that are monitored, by the name they are logged by, and what makes each."""
    evaluation = unit.evaluations.get(spec.name)
    if evaluation is None or evaluation.compare is None:
        return {}
    wanted = {name.removeprefix("val/") for name in _monitors(spec)} - set(_tracked(unit, spec))
    calls: Mapping[str, int] = {METRIC_KEYS[call.name] or "": i for i, call in enumerate(evaluation.spec.metrics)}
    return {name: _metric(unit, evaluation, calls[name]) for name in sorted(wanted & calls.keys())}


def _tracked(unit: Unit, spec: TrainSpec) -> tuple[str, ...]:
    return ("loss", *unit.runs[spec.name].loss.tracked)


def _metric(unit: Unit, evaluation: EvaluationIR, index: int) -> str:
    return metric_texts(unit, evaluation, indent=4)[index].removesuffix(",")


def _mode(monitor: str, mode: object) -> str:
    if mode in ("min", "max"):
        return str(mode)
    return "max" if monitor.rpartition("/")[2] in HIGHER_IS_BETTER else "min"


def _best(spec: TrainSpec) -> str:
    section = spec.sections["checkpoint"]
    monitor = section["best"]
    if not isinstance(monitor, str):
        return ""
    return f"Best({literal(monitor)}, {literal(_mode(monitor, section['mode']))})"


def _early_stopping(spec: TrainSpec) -> str:
    section = spec.sections.get("early_stopping")
    if section is None:
        return ""
    monitor = str(section["monitor"])
    best = f"Best({literal(monitor)}, {literal(_mode(monitor, section['mode']))})"
    return f'EarlyStopping({best}, **settings.under("early_stopping"))'


# What can't be trained ----------------------------------------------------------------------------------------------


def unsupported(spec: TrainSpec) -> list[Diagnostic]:
    """What a run asks for and training does not have, each with its place and the way out."""
    return [diagnostic for look in _CHECKS for diagnostic in look(spec)]


def _bad_settings(spec: TrainSpec) -> Iterator[Diagnostic]:
    for name, idle in IDLE.items():
        value = spec.settings.get(name)
        if value not in (*idle, None):
            shown = f"{value.name}()" if isinstance(value, Call) else value if isinstance(value, str) else literal(value)
            where = value.span if isinstance(value, Call) else spec.span
            help = f"the emitted script trains in one process and in f32: remove `{name}`"
            yield Diagnostic("E331", f"`{name} = {shown}` can't be trained", where, help=help)
    for name in IDLE_LOGGING:
        if spec.sections["logging"].get(name):
            help = "remove it: every logged step is a line of `log.jsonl`"
            yield Diagnostic("E331", f"`{name}` of `logging` can't be written", spec.span, help=help)


def _bad_accumulation(spec: TrainSpec) -> Iterator[Diagnostic]:
    if spec.settings.get("accumulate") not in (1, None) and not is_row_mean(spec.loss):
        message = "`accumulate` needs a loss that is a mean over rows, so that parts of a batch add up to the whole"
        help = "make the loss one, remove what weights its rows, or take `accumulate` out"
        yield Diagnostic("E332", message, spec.loss.span, help=help)


def _bad_schedule(spec: TrainSpec) -> Iterator[Diagnostic]:
    for each in spec.schedulers[:-1]:
        if each.name in ENDLESS:
            help = "put it last, or choose one with an end, such as `LinearLR` or `CosineAnnealingLR`"
            yield Diagnostic("E333", f"`{each.name}` has no end, so nothing can follow it", each.span, help=help)
        if each.name == "OneCycleLR" and each.args.get("total_steps") is None:
            help = "give it `total_steps`"
            yield Diagnostic("E333", "this `OneCycleLR` lasts to the end of the run", each.span, help=help)


_CHECKS: tuple[Callable[[TrainSpec], Iterator[Diagnostic]], ...] = (_bad_settings, _bad_accumulation, _bad_schedule)
