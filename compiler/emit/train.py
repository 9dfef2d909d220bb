"""`train.py` and `checkpoint.py`: what varies in the scripts of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from tdsl.compiler import recomputation
from tdsl.compiler.build.unit import ModuleMember, RunIR, Unit
from tdsl.compiler.emit.blocks import blocks
from tdsl.compiler.emit.data import loading_setting
from tdsl.compiler.emit.evaluate import metric_texts, parts_text
from tdsl.compiler.emit.python import block_lines
from tdsl.compiler.emit.render import import_from, layout, plain, render
from tdsl.compiler.emit.sources import has_texts
from tdsl.compiler.emit.text import arguments, identifier, literal, mentions
from tdsl.compiler.passes.place_layouts import channels_last
from tdsl.compiler.trainable import unsupported
from tdsl.dsl.diagnostics import ProgramError
from tdsl.dsl.kinds import Required
from tdsl.dsl.program import Call, Constant, TrainSpec
from tdsl.dsl.resolve_data import splits_of
from tdsl.dsl.signatures import HIGHER_IS_BETTER, OPTIMIZERS, metric_key
from tdsl.dsl.starts import starts

# Those of the run time, which take a step in one launch on a GPU; others are PyTorch's.
OWN_OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Lion")
PLATEAU = "ReduceLROnPlateau"


@dataclass(frozen=True)
class TrainText:
    """All that varies in `train.py`: Python text, but for `program`, `doc`, `name` and the keys of the settings.

    `standard`, `others` and `own` are the imports.
    """

    program: str
    name: str
    doc: str
    batch_size: str
    settings: Mapping[str, str]
    models: Mapping[str, str]
    loss: tuple[str, ...]
    tracks: bool
    differentiates: bool
    accumulates: bool
    distributed: bool
    sharded: bool
    shared: str
    parts: str
    held_parts: str
    counted: tuple[str, ...]
    counts: int
    counts_rows: bool
    compare: tuple[str, ...]
    compare_differentiates: bool
    metrics: Mapping[str, str]
    validates: bool
    init_from: tuple[str, ...]
    freeze: tuple[str, ...]
    recomputes: tuple[str, ...]
    groups: str
    optimizer: str
    schedule: str
    plateau: bool
    ema: bool
    best: bool
    early_stopping: bool
    state: str
    scaled: bool
    standard: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadText:
    """How `checkpoint.py` loads one model: the head of the function, and the statement that makes the model."""

    name: str
    head: str
    made: str


@dataclass(frozen=True)
class CheckpointText:
    """All that varies in `checkpoint.py`."""

    program: str
    name: str
    classes: tuple[str, ...]
    models: tuple[LoadText, ...]


def emit_train(unit: Unit, run: RunIR) -> str:
    """The text of `train.py`. Raises `ProgramError` for what can't be trained; `unsupported` tells all of it."""
    for diagnostic in unsupported(unit, run):
        raise ProgramError(diagnostic)
    return render("scripts/train.py.jinja", train=train_text(unit, run))


def emit_checkpoint(unit: Unit, run: RunIR) -> str:
    """The text of `checkpoint.py`."""
    models = tuple(_load(name, member) for name, member in run.models.items())
    text = CheckpointText(_program(unit), run.spec.name, _classes(run), models)
    return render("scripts/checkpoint.py.jinja", checkpoint=text)


def _load(name: str, member: ModuleMember) -> LoadText:
    function = "def load" if name == "model" else f"def load_{identifier(name)}"
    arguments = ['which: str = "best"', "*", "out: Path = OUT", 'device: str = "cpu"']
    head = layout(function, arguments, f" -> {identifier(member.class_name)}:", 0)
    return LoadText(identifier(name), head, _model(name, member, ""))


def _program(unit: Unit) -> str:
    return plain(PurePath(unit.program.source.name).name)


def _classes(run: RunIR) -> tuple[str, ...]:
    return tuple(sorted({identifier(member.class_name) for member in run.models.values()}))


def _model(name: str, member: ModuleMember, tail: str) -> str:
    return layout(f"{identifier(name)} = {identifier(member.class_name)}", arguments(member.args), tail, 4)


def _placed(name: str, unit: Unit, run: RunIR) -> str:
    """A model goes to the device, one that is to be so laid out in memory."""
    return ".to(device, memory_format=torch.channels_last)" if name in channels_last(unit, run) else ".to(device)"


def train_text(unit: Unit, run: RunIR) -> TrainText:
    """What the template shows."""
    spec = run.spec
    evaluation = unit.evaluations.get(spec.name)
    metrics = _metrics(unit, run)
    counted = run.accumulation.counted
    freeze = spec.settings.get("freeze")
    text = TrainText(
        program=_program(unit),
        name=spec.name,
        doc=spec.doc,
        batch_size=literal(spec.settings["batch_size"]),
        settings=_settings(run),
        models={
            identifier(name): _model(name, member, _placed(name, unit, run)) for name, member in run.models.items()
        },
        loss=tuple(block_lines(run.loss)),
        tracks=run.loss.tracks,
        differentiates=run.loss.differentiates,
        accumulates=run.accumulation.possible,
        distributed=spec.settings.get("distributed") is not None,
        sharded=_is_sharded(spec),
        shared=_shared(unit, run),
        parts=parts_text(run, "shared.parts", 'settings["accumulate"]'),
        held_parts=parts_text(run, "sharding.shares" if _is_sharded(spec) else "shares", "1"),
        counted=tuple(block_lines(counted)) if counted is not None else (),
        counts=len(counted.outputs) if counted is not None else 0,
        counts_rows=run.accumulation.rows,
        compare=tuple(block_lines(evaluation.compare)) if metrics and evaluation and evaluation.compare else (),
        compare_differentiates=bool(evaluation and evaluation.compare and evaluation.compare.differentiates),
        metrics=metrics,
        validates="val" in splits_of(spec.data),
        init_from=tuple(_init_from(spec)),
        freeze=tuple(map(literal, freeze)) if isinstance(freeze, tuple) else (),
        recomputes=tuple(map(literal, recomputation.patterns_of(run))),
        groups=_groups(spec),
        optimizer=_optimizer(spec.optimizer),
        schedule=_schedule(spec.schedulers),
        plateau=any(each.name == PLATEAU for each in spec.schedulers),
        ema=spec.settings.get("ema") is not None,
        best=bool(_best(spec)),
        early_stopping=bool(_early_stopping(spec)),
        state=_state(spec),
        scaled=_scaled(spec),
    )
    standard, others, own = _imports(text, run)
    return replace(text, standard=tuple(standard), others=tuple(others), own=tuple(own))


def _init_from(spec: TrainSpec) -> Iterator[str]:
    """The statements that load the weights that a run begins with."""
    for each in starts(spec):
        given = [f"data.ROOT / {literal(each.path)}", identifier(each.model)]
        given += [f"without={literal(each.without)}"] if each.without else []
        yield layout("checkpoint.load_weights", given, "", 4)


def _imports(text: TrainText, run: RunIR) -> tuple[list[str], list[str], list[str]]:
    """The imports of the standard library, of others' packages and of the project, those that are used."""
    body = "\n".join(line.partition("  # ")[0] for line in (*text.loss, *text.compare, *text.counted))
    names = {call.name for call in run.spec.schedulers}
    schedulers = ", ".join(sorted(names - {PLATEAU, "WarmupCosine"}))
    others = ["import torch"] if _uses_torch(text, body) else []
    others += ["import torch.nn.functional as F"] if mentions(body, "F") else []
    others += ["from torch import Tensor, nn"]
    others += [f"from torch.optim.lr_scheduler import {schedulers}"] if schedulers else []
    own = ["import data"] + (["import kernels"] if mentions(body, "kernels") else [])
    own += [import_from("model", _classes(run))]
    modules = {"checkpoint": text.init_from, "metrics": text.metrics, "optim": True, "report": True, "run": True}
    modules |= {name: mentions(body, name) for name in ("nn_functions", "random", "tracking")}
    modules |= {"streams": text.validates, "distributed": text.distributed and not text.sharded}
    modules |= {"sharding": text.sharded, "activations": text.recomputes}
    own += [f"from tdsl.runtime import {', '.join(sorted(name for name, used in modules.items() if used))}"]
    own += [f"from tdsl.runtime.loader import Batch{', Batches' if text.validates else ''}"]
    own += [f"from tdsl.runtime.progress import {'Meter, ' if text.validates else ''}bar"]
    made = {"WarmupCosine": "WarmupCosine" in names, "plateau": PLATEAU in names, "stage": bool(names - {PLATEAU})}
    own += [f"from tdsl.runtime.schedule import {', '.join(['Schedule', *(name for name in made if made[name])])}"]
    kept = {
        "Best": text.best or text.early_stopping,
        "EarlyStopping": text.early_stopping,
        "Training": True,
        "shares": text.validates and not text.sharded if text.distributed else bool(text.counted),
    }
    own += [f"from tdsl.runtime.training import {', '.join(name for name in kept if kept[name])}"]
    return ["import math"] * mentions(body, "math") + ["import sys", "from pathlib import Path"], others, own


def _uses_torch(text: TrainText, body: str) -> bool:
    """Whether `torch` itself is named: by what the program says, or by what the template does for it."""
    decorated = text.validates or text.differentiates or text.compare_differentiates
    scaled = text.scaled and not text.sharded
    return decorated or scaled or mentions("\n".join([text.optimizer, body, *text.models.values()]), "torch")


# Settings -----------------------------------------------------------------------------------------------------------


def _settings(run: RunIR) -> dict[str, str]:
    """What `--set` can change, as text, with the values that the program gives."""
    spec = run.spec
    plain_ = ("epochs", "steps", "batch_size", "accumulate", "clip_grad_norm", "seed", "tf32", "deterministic")
    left_out = () if run.accumulation.possible else ("accumulate",)
    found: dict[str, object] = {name: spec.settings.get(name) for name in plain_ if name not in left_out}
    found |= {f"optimizer.{name}": value for name, value in _optimizer_arguments(spec.optimizer).items()}
    ema = spec.settings.get("ema")
    if isinstance(ema, Call):
        found["ema.decay"] = ema.args.get("decay", 0.999)
    checkpoint = spec.sections["checkpoint"]
    found |= {f"checkpoint.{name}": checkpoint[name] for name in ("every", "keep", "resume")}
    found["checkpoint.resume"] = checkpoint["resume"] or "none"
    found["validate.every"] = spec.sections["validate"]["every"]
    found |= {f"logging.{name}": value for name, value in spec.sections["logging"].items()}
    if "early_stopping" in spec.sections:
        found |= {f"early_stopping.{name}": spec.sections["early_stopping"][name] for name in ("patience", "min_delta")}
    found |= {f"data.{name}": loading_setting(spec.data, name) for name in ("workers", "prefetch")}
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
    inner = [f"            {each}," for each in special]
    return "\n".join(["groups = optim.groups(", "        models,", "        {", *inner, "        },", "    )"])


def _dict(args: Mapping[str, Constant]) -> str:
    return "{" + ", ".join(f"{literal(name)}: {literal(value)}" for name, value in args.items()) + "}"


def _schedule(schedulers: Sequence[Call]) -> str:
    stages = [_stage(each) for each in schedulers]
    return layout("schedule = Schedule", ["optimizer", "length", *stages], "", 4)


def _stage(scheduler: Call) -> str:
    args = [f"{identifier(name)}={literal(value)}" for name, value in scheduler.args.items() if value is not None]
    if scheduler.name == PLATEAU:
        return f"plateau({', '.join(args)})"
    return f"stage({', '.join([identifier(scheduler.name), *args])})"


def _monitors(spec: TrainSpec) -> Iterator[str]:
    """The names of all values that something is decided by."""
    for value in (spec.sections["checkpoint"]["best"], spec.sections.get("early_stopping", {}).get("monitor")):
        yield from (value,) if isinstance(value, str) else ()
    for each in spec.schedulers:
        if each.name == PLATEAU:
            yield str(each.args.get("monitor", "val/loss"))


def _metrics(unit: Unit, run: RunIR) -> dict[str, str]:
    """The metrics that are monitored, by the name they are logged by, and what makes each.

    Of several of a name it is the one without arguments, as in the results of an evaluation, or else the first.
    """
    evaluation = unit.evaluations.get(run.spec.name)
    if evaluation is None or evaluation.compare is None:
        return {}
    wanted = {name.removeprefix("val/") for name in _monitors(run.spec)} - {"loss", *run.loss.tracked}
    made = metric_texts(unit, run, evaluation, indent=4)
    found: dict[str, str] = {}
    for call, text in zip(evaluation.spec.metrics, made, strict=True):
        key = metric_key(call.name, call.args)
        if key is not None and key in wanted and (key not in found or not call.args):
            found[key] = text.removesuffix(",")
    return found


def _shared(unit: Unit, run: RunIR) -> str:
    """The statement that shares the work among processes."""
    if run.spec.settings.get("distributed") is None:
        return ""
    arguments = ["loss", "models", "batches", 'accumulate=settings["accumulate"]']
    if _is_sharded(run.spec):
        found = blocks(unit, run)
        arguments += [f"blocks=[{', '.join(map(literal, found))}]"] if found else []
        return layout("shared = sharding.fsdp", arguments, "", 4)
    arguments += ["unused=True"] if run.idle else []
    return layout("shared = distributed.ddp", arguments, "", 4)


def _is_sharded(spec: TrainSpec) -> bool:
    """Whether parameters are divided among processes."""
    strategy = spec.settings.get("distributed")
    return isinstance(strategy, Call) and strategy.name == "fsdp"


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


def _state(spec: TrainSpec) -> str:
    """The statement that puts all together that changes while a run goes on."""
    made = {"best": _best(spec), "early_stopping": _early_stopping(spec)}
    arguments = ["job", "models", "optimizer", "schedule"]
    arguments += ["scaler=scaler"] if _scaled(spec) else []
    arguments += ["ema=ema"] if spec.settings.get("ema") is not None else []
    arguments += [f"{name}={text}" for name, text in made.items() if text]
    arguments += ["tokenizer=data.make_tokenizer()"] if has_texts(spec.data) else []
    arguments += ["categories=data.CATEGORIES"] if spec.data.categories else []
    arguments += ['statistics=data.load()["train"].statistics'] if spec.data.fitted else []
    return layout("state = Training", arguments, "", 4)


def _scaled(spec: TrainSpec) -> bool:
    """Whether the loss is scaled: float16 has too few exponents for gradients."""
    return spec.settings.get("precision") == "f16"


def _early_stopping(spec: TrainSpec) -> str:
    section = spec.sections.get("early_stopping")
    if section is None:
        return ""
    monitor = str(section["monitor"])
    best = f"Best({literal(monitor)}, {literal(_mode(monitor, section['mode']))})"
    return f'EarlyStopping({best}, **settings.under("early_stopping"))'
