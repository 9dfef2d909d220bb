"""`--set KEY=VALUE`: edits of the syntax tree, so that an option is checked exactly as the program itself is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Reporter, Source, Span, fail
from tdsl.dsl.names import nearest
from tdsl.dsl.parser import parse_value
from tdsl.dsl.signatures import OPTIONAL_SECTIONS, SECTIONS

OPTION = "--set"
# Settings whose value is a call, and the arguments within reach of `optimizer.lr`.
CALLS = ("model", "optimizer", "scheduler", "ema")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def override(file: ast.File, overrides: Mapping[str, str], reporter: Reporter) -> ast.File:
    """The file with the settings of its runs replaced; mistakes in the options are reported.

    Keys are `batch_size` (a setting), `checkpoint.every` (a section's), `optimizer.lr` (an argument), `data.workers` (a
    setting of the data) and `evaluate.metrics` (of an evaluation).
    """
    for key, text in overrides.items():
        with reporter.guard():
            setting = _parse(key, text)
            _check_owner(key, setting)
            if key.startswith("evaluate.") and not any(isinstance(each, ast.Evaluate) for each in file.declarations):
                help = "write an `evaluate NAME { ... }`, with what it compares, into the program"
                fail("E321", f"`{key}` sets nothing: there is no `evaluate`", setting.name_span, help=help)
            file = replace(file, declarations=tuple(_edited(each, key, setting) for each in file.declarations))
    return file


def _parse(key: str, text: str) -> ast.Setting:
    source = Source(OPTION, f"{key}={text}")
    where = Span(source, 0, len(key))
    if not KEY.fullmatch(key):
        fail("E321", f"`{key}` is not the name of a setting", where, help="such as `batch_size` or `optimizer.lr`")
    value = parse_value(source, len(key) + 1)
    name = key.rpartition(".")[2]
    place = Span(source, len(key) - len(name), len(key))
    return ast.Setting(Span(source, 0, len(source.text)), name, place, "", value)


def _check_owner(key: str, setting: ast.Setting) -> None:
    """Refuse what stands before the point where nothing is called so that has settings or arguments."""
    owner, point, name = key.rpartition(".")
    known = (*CALLS, *SECTIONS, *OPTIONAL_SECTIONS, "data", "evaluate")
    if point and owner not in known:
        meant = nearest(owner, known)
        help = f"did you mean `{meant}.{name}`?" if meant else f"such as `optimizer.lr`; there are {', '.join(known)}"
        place = Span(setting.span.source, 0, len(owner))
        fail("E321", f"there is no `{owner}` whose `{name}` could be set", place, help=help)


def _edited(declaration: ast.Declaration, key: str, setting: ast.Setting) -> ast.Declaration:
    owner = key.rpartition(".")[0]
    if (isinstance(declaration, ast.Data) and owner == "data") or (
        isinstance(declaration, ast.Evaluate) and owner == "evaluate"
    ):
        return replace(declaration, settings=_put(declaration.settings, setting))
    if not isinstance(declaration, ast.Train) or owner in ("data", "evaluate"):
        return declaration
    if not owner:
        settings = _put(declaration.settings, setting)
        other = {"epochs": "steps", "steps": "epochs"}.get(setting.name)  # the one given replaces the one written
        return replace(declaration, settings=tuple(each for each in settings if each.name != other))
    if owner in CALLS:
        return replace(declaration, settings=tuple(_argued(each, owner, setting) for each in declaration.settings))
    sections = [each for each in declaration.sections if each.name == owner]
    if sections:
        new = replace(sections[0], settings=_put(sections[0].settings, setting))
        return replace(
            declaration, sections=tuple(new if each is sections[0] else each for each in declaration.sections)
        )
    place = Span(setting.span.source, 0, len(owner))
    added = ast.Section(setting.span, owner, place, None, (setting,))
    return replace(declaration, sections=(*declaration.sections, added))


def _put(settings: tuple[ast.Setting, ...], setting: ast.Setting) -> tuple[ast.Setting, ...]:
    return (*(each for each in settings if each.name != setting.name), setting)


def _argued(setting: ast.Setting, owner: str, new: ast.Setting) -> ast.Setting:
    """`optimizer = AdamW(...)` with one argument replaced or added."""
    if setting.name != owner:
        return setting
    call = setting.value
    if not isinstance(call, ast.Call):
        fail("E321", f"`{owner}` is not one call whose argument could be set", new.span, help=f"set `{owner}` itself")
    argument = ast.Argument(new.name_span.to(new.span), new.name, new.value)
    others = tuple(each for each in call.args if each.name != new.name)
    return replace(setting, value=replace(call, args=(*others, argument)))
