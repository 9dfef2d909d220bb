"""`train` and `evaluate` declarations: settings, sections, models, monitors, and what no run can mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tdsl.dsl import ast, habits
from tdsl.dsl.constants import Lookup, describe
from tdsl.dsl.diagnostics import Diagnostic, ProgramError, Span, fail
from tdsl.dsl.kinds import Arg, Required, Signature, call
from tdsl.dsl.names import did_you_mean, nearest, why_reserved
from tdsl.dsl.program import Call, Constant, DataSpec, EvaluateSpec, GroupSpec, TrainSpec
from tdsl.dsl.resolve_data import splits_of
from tdsl.dsl.scope import Scope, Silent, declared
from tdsl.dsl.signatures import (
    EVALUATE_BLOCKS,
    EVALUATE_SETTINGS,
    HIGHER_IS_BETTER,
    METRICS,
    OPTIMIZERS,
    OPTIONAL_SECTIONS,
    SCHEDULERS,
    SECTIONS,
    TRAIN_BLOCKS,
    TRAIN_SETTINGS,
    metric_key,
)
from tdsl.dsl.values import bind, evaluate, unknown

SPECIAL = ("model", "data", "optimizer", "scheduler")
SCHEDULER = call("a scheduler", SCHEDULERS)
# How far from the end of the run a schedule may end before it is worth a word.
SHORTEST, LONGEST = 0.5, 2.0


def resolve_train(
    run: ast.Train, data: Mapping[str, DataSpec], evaluation: ast.Evaluate | None, scope: Scope
) -> TrainSpec | None:
    """The run that a declaration describes; None where it lacks what makes it one. Mistakes are reported."""
    known = {arg.name: arg for arg in TRAIN_SETTINGS}
    settings = {arg.name: arg.default for arg in TRAIN_SETTINGS if arg.name not in SPECIAL}
    written = {setting.name: setting for setting in run.settings}
    models: dict[str, ast.Expr] = {"model": written["model"].value} if "model" in written else {}
    for setting in run.settings:
        with scope.guard():
            if setting.name in known:
                if setting.name not in SPECIAL:
                    kind = known[setting.name].kind
                    settings[setting.name] = evaluate(setting.value, kind, f"`{setting.name}`", scope.lookup)
            elif _is_model(setting, known, scope):
                _check_name(setting)
                models[setting.name] = setting.value
            else:
                unknown("setting", setting, known, "a run")
    for name, model in models.items():
        with scope.guard():
            _check_model(name, model, scope)
    spec = _data_of(written.get("data"), data, scope)
    optimizer = _optimizer(written.get("optimizer"), scope)
    loss = _blocks(run, TRAIN_BLOCKS, scope).get("loss")
    _check_required(run, written, scope)
    schedulers = tuple(_schedulers(written.get("scheduler"), scope))
    sections = _sections(run, scope)
    groups = tuple(_groups(run, optimizer, scope))
    _check_monitors(run, spec, schedulers, evaluation, scope)
    _check_length(written.get("scheduler"), schedulers, settings, scope)
    _check_plateaus(schedulers, scope)
    _check_cycles(schedulers, settings, scope)
    if not models or spec is None or optimizer is None or loss is None:
        return None
    return TrainSpec(run.name, models, spec, loss, optimizer, groups, schedulers, settings, sections, run.span, run.doc)


def _check_required(run: ast.Train, written: Mapping[str, ast.Setting], scope: Scope) -> None:
    examples = {"model": "Net()", "data": "Digits", "optimizer": "AdamW(lr=1e-3)"}
    where = run.name_span
    known = [arg.name for arg in TRAIN_SETTINGS]
    misspelt = {nearest(name, known) for name in written if name not in known}
    for name, example in examples.items():
        if name not in written and name not in misspelt:
            message, help = f"`train {run.name}` needs `{name}`", f"such as `{name} = {example}`"
            scope.reporter.add(Diagnostic("E303", message, where, help=help))
    if not any(block.name == "loss" for block in run.blocks) and "loss" not in written:
        help = "write `loss(batch) { return ... }`"
        scope.reporter.add(Diagnostic("E303", f"`train {run.name}` needs a `loss`", where, help=help))
    if not {"epochs", "steps"} & {*written, *misspelt}:
        message, help = f"`train {run.name}` needs `epochs` or `steps`", "such as `epochs = 10`"
        scope.reporter.add(Diagnostic("E303", message, where, help=help))
    if "epochs" in written and "steps" in written:
        help = "keep the one that the run counts"
        scope.reporter.add(
            Diagnostic("E317", "a run has `epochs` or `steps`, not both", written["steps"].span, help=help)
        )
    batch, parts = written.get("batch_size"), written.get("accumulate")
    values = [each.value.value if each and isinstance(each.value, ast.Literal) else None for each in (batch, parts)]
    if batch and parts and all(isinstance(value, int) and value > 0 for value in values) and values[0] % values[1]:  # type: ignore[operator]
        message = f"a batch of {values[0]} rows does not divide into {values[1]} equal parts"
        scope.reporter.add(Diagnostic("E318", message, parts.span, help="choose a divisor of `batch_size`"))


def _is_model(setting: ast.Setting, known: Mapping[str, Arg], scope: Scope) -> bool:
    """Whether a setting of no known name makes a further model: calls a module, or what may be a built-in layer."""
    value = setting.value
    if not isinstance(value, ast.Call) or not isinstance(value.function, ast.Name):
        return False
    name = value.function.id
    if setting.name in habits.SETTINGS:
        return False
    if name in scope.broken or isinstance(scope.declarations.get(name), (ast.Module, ast.ExternModule)):
        return True
    return name[0].isupper() and name not in {**OPTIMIZERS, **SCHEDULERS} and nearest(setting.name, known) is None


def _check_name(setting: ast.Setting) -> None:
    if why := why_reserved(setting.name, variable=True, imported=True):
        help = f"choose another name, such as `{setting.name}_net`"
        fail("E102", f"`{setting.name}` {why}", setting.name_span, help=help)


def _check_model(name: str, model: ast.Expr, scope: Scope) -> None:
    """A model is the call of a module; whether a built-in layer of that name exists the compiler knows."""
    if isinstance(model, ast.Name) and model.id in scope.broken:
        return
    if isinstance(model, ast.Name) and isinstance(scope.declarations.get(model.id), (ast.Module, ast.ExternModule)):
        fail("E313", f"`{name}` is a model, and is made by a call", model.span, help=f"write `{model.id}(...)`")
    if not isinstance(model, ast.Call):
        fail("E313", f"`{name}` is a model: the call of a module", model.span, help="such as `Net(hidden=64)`")
    if isinstance(model.function, ast.Name):
        other = scope.declarations.get(model.function.id)
        if other is not None and not isinstance(other, (ast.Module, ast.ExternModule)):
            fail("E313", f"`{model.function.id}` is not a module", model.function.span)


def _data_of(setting: ast.Setting | None, data: Mapping[str, DataSpec], scope: Scope) -> DataSpec | None:
    if setting is None:
        return None
    with scope.guard():
        value = setting.value
        if not isinstance(value, ast.Name):
            fail("E313", "`data` is the name of a dataset", value.span, help="such as `data = Digits`")
        if value.id in data:
            return data[value.id]
        if value.id not in scope.broken:
            known = declared(scope.declarations, ast.Data)
            help = did_you_mean(value.id, known) or "declare it: `data NAME { ... }`"
            fail("E112", f"`{value.id}` is no dataset", value.span, help=help)
    return None


def _optimizer(setting: ast.Setting | None, scope: Scope) -> Call | None:
    if setting is None:
        return None
    with scope.guard():
        if isinstance(setting.value, (ast.ListExpr, ast.TupleExpr)):
            fail("E313", "a run has one optimizer, and this is a list", setting.value.span, help=habits.ONE_OPTIMIZER)
        made = evaluate(setting.value, call("an optimizer", OPTIMIZERS), "`optimizer`", scope.lookup)
        return made if isinstance(made, Call) else None
    return None


def _schedulers(setting: ast.Setting | None, scope: Scope) -> Iterator[Call]:
    """The schedules joined with `|>`."""
    if setting is None or (isinstance(setting.value, ast.Literal) and setting.value.value is None):
        return
    parts: list[ast.Expr] = [setting.value]
    while isinstance(parts[0], ast.Pipe):
        parts[:1] = [parts[0].value, parts[0].stage]
    made: list[Constant] = []
    for part in parts:
        with scope.guard():
            made.append(evaluate(part, SCHEDULER, "`scheduler`", scope.lookup))
    yield from (each for each in made if isinstance(each, Call))


def _blocks(run: ast.Train | ast.Evaluate, known: tuple[str, ...], scope: Scope) -> dict[str, ast.Block]:
    found: dict[str, ast.Block] = {}
    where = "a run" if isinstance(run, ast.Train) else "an `evaluate`"
    for block in run.blocks:
        with scope.guard():
            if block.name not in known:
                help = did_you_mean(block.name, known) or f"it has {', '.join(known)}"
                fail("E301", f"{where} has no block `{block.name}`", block.name_span, help=help)
            if block.name in found:
                fail("E101", f"a second `{block.name}`", block.name_span)
            found[block.name] = block
    return found


# Sections -----------------------------------------------------------------------------------------------------------


def _sections(run: ast.Train, scope: Scope) -> dict[str, dict[str, Constant]]:
    known = {**SECTIONS, **OPTIONAL_SECTIONS}
    found: dict[str, dict[str, Constant]] = {name: _defaults(signature.args) for name, signature in SECTIONS.items()}
    seen: set[str] = set()
    for section in run.sections:
        with scope.guard():
            if section.pattern is not None:
                continue
            if section.name not in known:
                names = [*known, "group"]
                help = did_you_mean(section.name, names) or f"it has {', '.join(names)}"
                fail("E301", f"a run has no section `{section.name}`", section.name_span, help=help)
            if section.name in seen:
                fail("E101", f"a second `{section.name}`", section.name_span, help="put both into one")
            seen.add(section.name)
            found[section.name] = _section(section, known[section.name], scope)
    return found


def _defaults(args: tuple[Arg, ...]) -> dict[str, Constant]:
    return {arg.name: arg.default for arg in args if arg.default is not Required}


def _section(section: ast.Section, signature: Signature, scope: Scope) -> dict[str, Constant]:
    known = {arg.name: arg for arg in signature.args}
    values = _defaults(signature.args)
    for setting in section.settings:
        with scope.guard():
            if setting.name not in known:
                unknown("setting", setting, known, f"`{section.name}`")
            what = f"`{setting.name}` of `{section.name}`"
            values[setting.name] = evaluate(setting.value, known[setting.name].kind, what, scope.lookup)
    return values


def _groups(run: ast.Train, optimizer: Call | None, scope: Scope) -> Iterator[GroupSpec]:
    for section in run.sections:
        if section.pattern is None:
            continue
        args: dict[str, Constant] = {}
        with scope.guard():
            if section.name != "group":
                fail("E301", f'a run has no `{section.name} "..."`', section.name_span, help="did you mean `group`?")
            if optimizer is not None:
                args = _section(section, OPTIMIZERS[optimizer.name], scope)
        written = {setting.name for setting in section.settings}
        yield GroupSpec(section.pattern, {key: value for key, value in args.items() if key in written}, section.span)


# Checks of the whole ------------------------------------------------------------------------------------------------


def _check_monitors(
    run: ast.Train, data: DataSpec | None, schedulers: tuple[Call, ...], evaluation: ast.Evaluate | None, scope: Scope
) -> None:
    """Whether what is monitored is ever logged, and its split there."""
    if run.name in scope.broken:
        return  # its evaluation is lost to a syntax error, and with it the metrics
    means, metrics = logged(run, evaluation, scope.declarations.values(), scope.lookup)
    names = [*(f"val/{key}" for key in (*means, *metrics)), *(f"train/{key}" for key in means)]
    for setting in _monitors(run, schedulers):
        with scope.guard():
            name = setting.value.value if isinstance(setting.value, ast.Literal) else None
            if not isinstance(name, str):
                continue
            if name not in names:
                what = f"nothing called {describe(name)} is logged"
                fail("E319", what, setting.value.span, help=_loggable(name, names))
            if name.startswith("val/") and data is not None and data.sources and "val" not in splits_of(data):
                help = f'give the split of `{data.name}` a `val=` fraction, or monitor "train/loss"'
                fail("E320", f"`{data.name}` has no `val` split to monitor", setting.value.span, help=help)


def _monitors(run: ast.Train, schedulers: tuple[Call, ...]) -> Iterator[ast.Setting]:
    for section in run.sections:
        wanted = {"checkpoint": "best", "early_stopping": "monitor"}.get(section.name)
        yield from (setting for setting in section.settings if setting.name == wanted)
    for setting in run.settings:
        if setting.name == "scheduler":
            for made in _calls(setting.value):
                for argument in made.args:
                    if argument.name == "monitor":
                        yield ast.Setting(argument.span, "monitor", argument.span, "", argument.value)


def _calls(expr: ast.Expr) -> list[ast.Call]:
    if isinstance(expr, ast.Pipe):
        return [*_calls(expr.value), *_calls(expr.stage)]
    return [expr] if isinstance(expr, ast.Call) else []


NOT_LOGGED = {
    "train": ": metrics are computed on held-out rows",
    "test": ": a run never sees the rows of `test`, by which it is evaluated",
}


def _loggable(name: str, names: list[str]) -> str:
    """What to monitor instead of what is not logged."""
    split, _, key = name.rpartition("/")
    if f"val/{key}" in names:
        return f'monitor "val/{key}"{NOT_LOGGED.get(split, "")}'
    return did_you_mean(name, names) or f"what is logged is {', '.join(names)}"


def _unknown(_: ast.Expr) -> Constant:
    raise Silent


def logged(
    run: ast.Train,
    evaluation: ast.Evaluate | None,
    declarations: Iterable[ast.Declaration],
    lookup: Lookup = _unknown,
) -> tuple[list[str], list[str]]:
    """What is logged of `val` and `train`: the loss, values that it or a module tracks; and of `val` alone: metrics."""
    bodies = [block.body for block in run.blocks]
    bodies += [each.forward.body for each in declarations if isinstance(each, ast.Module) and each.forward]
    tracked = [name for body in bodies for name in _tracked(body)]
    metrics = next((s.value for s in evaluation.settings if s.name == "metrics"), None) if evaluation else None
    items = metrics.items if isinstance(metrics, ast.ListExpr) else ()
    calls = [item for item in items if isinstance(item, ast.Call) and isinstance(item.function, ast.Name)]
    return ["loss", *tracked], [key for call in calls if (key := _key(call, lookup))]


def _key(metric: ast.Call, lookup: Lookup) -> str | None:
    """What a metric is logged by; None of one that is no single number. Its mistakes are told elsewhere."""
    name = metric.function.id if isinstance(metric.function, ast.Name) else ""
    if name not in METRICS:
        return None
    try:
        return metric_key(name, bind(metric, call("a metric", METRICS), "a metric", lookup).args)
    except (ProgramError, Silent):
        return metric_key(name, {})


def _tracked(body: tuple[ast.Statement, ...]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.Track):
            yield statement.target.id
        if isinstance(statement, (ast.For, ast.If, ast.NoGrad)):
            yield from _tracked(statement.body)
        if isinstance(statement, ast.If):
            yield from _tracked(statement.otherwise)


def _check_length(
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


def _check_plateaus(schedulers: tuple[Call, ...], scope: Scope) -> None:
    """Warn of a rate that falls while what is monitored gets better: PyTorch's default `mode` is for losses."""
    for each in schedulers:
        monitor = str(each.args.get("monitor", "val/loss"))
        rises = monitor.rpartition("/")[2] in HIGHER_IS_BETTER
        if each.name == "ReduceLROnPlateau" and rises and each.args.get("mode", "min") == "min":
            message = f"the rate falls while `{monitor}` rises, which is better the higher it is"
            scope.reporter.add(Diagnostic("W302", message, each.span, help='write `mode="max"`'))


def _check_cycles(schedulers: tuple[Call, ...], settings: Mapping[str, Constant], scope: Scope) -> None:
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


# Evaluation ---------------------------------------------------------------------------------------------------------


def resolve_evaluate(
    evaluation: ast.Evaluate, runs: Mapping[str, TrainSpec], declared_runs: list[str], scope: Scope
) -> EvaluateSpec:
    """What an `evaluate` describes; mistakes are reported."""
    with scope.guard():
        if evaluation.name not in declared_runs and evaluation.name not in scope.broken:
            help = did_you_mean(evaluation.name, declared_runs) or "it has the name of the `train` that it evaluates"
            fail("E116", f"there is no run `{evaluation.name}`", evaluation.name_span, help=help)
    values, place = _evaluate_settings(evaluation, scope)
    blocks = _blocks(evaluation, EVALUATE_BLOCKS, scope)
    metrics = values["metrics"]
    with scope.guard():
        if metrics and "compare" not in blocks:
            help = "write `compare(batch) { return model(batch.x), batch.y }`"
            fail("E303", "metrics need a `compare` block", evaluation.name_span, help=help)
    run = runs.get(evaluation.name)
    with scope.guard():
        if run is not None and run.data.sources and values["split"] not in splits_of(run.data):
            help = f'give the data a `{values["split"]}` split, or write `split = "val"`'
            fail("E320", f"`{run.data.name}` has no `{values['split']}` split to evaluate", place, help=help)
    listed = tuple(metric for metric in metrics if isinstance(metric, Call)) if isinstance(metrics, tuple) else ()
    return EvaluateSpec(
        evaluation.name, blocks.get("compare"), blocks.get("predict"), listed, str(values["split"]), evaluation.span
    )


def _evaluate_settings(evaluation: ast.Evaluate, scope: Scope) -> tuple[dict[str, Constant], Span]:
    known = {arg.name: arg for arg in EVALUATE_SETTINGS}
    values = _defaults(EVALUATE_SETTINGS)
    place = evaluation.name_span
    for setting in evaluation.settings:
        with scope.guard():
            if setting.name not in known:
                unknown("setting", setting, known, "an `evaluate`")
            values[setting.name] = evaluate(setting.value, known[setting.name].kind, f"`{setting.name}`", scope.lookup)
            place = setting.span if setting.name == "split" else place
    for section in evaluation.sections:
        message = f"an `evaluate` has no section `{section.name}`"
        scope.reporter.add(Diagnostic("E301", message, section.name_span))
    return values, place
