"""The blocks and sections within a run: `loss`, `checkpoint`, `group "..."` and their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

from tdsl.dsl import ast, habits
from tdsl.dsl.diagnostics import fail
from tdsl.dsl.kinds import Arg, Required, Signature
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.program import Call, Constant, GroupSpec
from tdsl.dsl.scope import Scope
from tdsl.dsl.signatures import OPTIMIZERS, OPTIONAL_SECTIONS, SECTIONS
from tdsl.dsl.values import evaluate, unknown


def resolve_blocks(run: ast.Train | ast.Evaluate, known: tuple[str, ...], scope: Scope) -> dict[str, ast.Block]:
    """The blocks by their names; those that are not `known`, or come twice, are reported."""
    found: dict[str, ast.Block] = {}
    where = "a run" if isinstance(run, ast.Train) else "an `evaluate`"
    for block in run.blocks:
        with scope.guard():
            if block.name not in known:
                help = did_you_mean(block.name, known) or f"it has {', '.join(known)}"
                fail("E301", f"{where} has no block `{block.name}`", block.name_span, help=help)
            if block.name in found:
                help = habits.ONE_LOSS if block.name == "loss" else "put both into one"
                fail("E101", f"a second `{block.name}`", block.name_span, help=help)
            found[block.name] = block
    return found


def resolve_sections(run: ast.Train, scope: Scope) -> dict[str, dict[str, Constant]]:
    """The settings of each section by its name: of those that every run has, and of those that are written."""
    known = {**SECTIONS, **OPTIONAL_SECTIONS}
    found: dict[str, dict[str, Constant]] = {name: defaults(signature.args) for name, signature in SECTIONS.items()}
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


def defaults(args: tuple[Arg, ...]) -> dict[str, Constant]:
    """What settings are that nobody writes."""
    return {arg.name: arg.default for arg in args if arg.default is not Required}


def _section(section: ast.Section, signature: Signature, scope: Scope) -> dict[str, Constant]:
    known = {arg.name: arg for arg in signature.args}
    values = defaults(signature.args)
    for setting in section.settings:
        with scope.guard():
            if setting.name not in known:
                unknown("setting", setting, known, f"`{section.name}`")
            what = f"`{setting.name}` of `{section.name}`"
            values[setting.name] = evaluate(setting.value, known[setting.name].kind, what, scope.lookup)
    return values


def resolve_groups(run: ast.Train, optimizer: Call | None, scope: Scope) -> Iterator[GroupSpec]:
    """Each `group "..."` with what it sets otherwise than the optimizer."""
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
