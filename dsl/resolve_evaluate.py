"""`evaluate` declarations: settings, blocks, metrics, and the run that they belong to."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, Span, fail
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, Constant, EvaluateSpec, TrainSpec
from tdsl.dsl.resolve_data import splits_of
from tdsl.dsl.resolve_sections import defaults, resolve_blocks
from tdsl.dsl.scope import Scope
from tdsl.dsl.signatures import EVALUATE_BLOCKS, EVALUATE_SETTINGS
from tdsl.dsl.values import evaluate, unknown


def resolve_evaluate(
    evaluation: ast.Evaluate, runs: Mapping[str, TrainSpec], declared_runs: list[str], scope: Scope
) -> EvaluateSpec:
    """What an `evaluate` describes; mistakes are reported."""
    with scope.guard():
        if evaluation.name not in declared_runs and evaluation.name not in scope.broken:
            help = did_you_mean(evaluation.name, declared_runs) or "it has the name of the `train` that it evaluates"
            fail("E116", f"there is no run `{evaluation.name}`", evaluation.name_span, help=help)
    values, place = _evaluate_settings(evaluation, scope)
    blocks = resolve_blocks(evaluation, EVALUATE_BLOCKS, scope)
    metrics = values["metrics"]
    with scope.guard():
        if metrics and "compare" not in blocks:
            help = "write `compare(batch) { return model(batch.x), batch.y }`"
            fail("E303", "metrics need a `compare` block", evaluation.name_span, help=help)
    run = runs.get(evaluation.name)
    with scope.guard():
        if run is not None and run.data.sources and values["split"] not in splits_of(run.data):
            help = f'give the data a `{values["split"]}` split, or write `split = "{splits_of(run.data)[-1]}"`'
            fail("E320", f"`{run.data.name}` has no `{values['split']}` split to evaluate", place, help=help)
    listed = tuple(metric for metric in metrics if isinstance(metric, Call)) if isinstance(metrics, tuple) else ()
    return EvaluateSpec(
        evaluation.name, blocks.get("compare"), blocks.get("predict"), listed, str(values["split"]), evaluation.span
    )


def _evaluate_settings(evaluation: ast.Evaluate, scope: Scope) -> tuple[dict[str, Constant], Span]:
    known = {arg.name: arg for arg in EVALUATE_SETTINGS}
    values = defaults(EVALUATE_SETTINGS)
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
