"""What a run logs, and whether what it monitors is among that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tdsl.dsl import ast
from tdsl.dsl.constants import Lookup, describe
from tdsl.dsl.diagnostics import ProgramError, fail
from tdsl.dsl.kinds import call
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, Constant, DataSpec
from tdsl.dsl.resolve_data import splits_of
from tdsl.dsl.scope import Scope, Silent
from tdsl.dsl.signatures import METRICS, metric_key
from tdsl.dsl.values import bind


def check_monitors(
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
