"""`train` declarations: settings, models, data, the optimizer, and what no run can mean."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.dsl import ast, habits
from tdsl.dsl.diagnostics import Diagnostic, fail
from tdsl.dsl.kinds import Arg, call
from tdsl.dsl.monitors import check_monitors
from tdsl.dsl.names import did_you_mean, nearest, why_reserved
from tdsl.dsl.program import Call, DataSpec, TrainSpec
from tdsl.dsl.resolve_schedulers import check_cycles, check_length, check_plateaus, resolve_schedulers
from tdsl.dsl.resolve_sections import resolve_blocks, resolve_groups, resolve_sections
from tdsl.dsl.scope import Scope, declared
from tdsl.dsl.signatures import OPTIMIZERS, SCHEDULERS, TRAIN_BLOCKS, TRAIN_SETTINGS
from tdsl.dsl.values import evaluate, unknown

SPECIAL = ("model", "data", "optimizer", "scheduler")


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
    loss = resolve_blocks(run, TRAIN_BLOCKS, scope).get("loss")
    _check_required(run, written, scope)
    schedulers = tuple(resolve_schedulers(written.get("scheduler"), scope))
    sections = resolve_sections(run, scope)
    groups = tuple(resolve_groups(run, optimizer, scope))
    check_monitors(run, spec, evaluation, scope)
    check_length(written.get("scheduler"), schedulers, settings, scope)
    check_plateaus(schedulers, scope)
    check_cycles(schedulers, settings, scope)
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
            help = habits.ONE_OPTIMIZER
            fail("E313", "a run has one optimizer, and this is a list", setting.value.span, help=help)
        made = evaluate(setting.value, call("an optimizer", OPTIMIZERS), "`optimizer`", scope.lookup)
        return made if isinstance(made, Call) else None
    return None
