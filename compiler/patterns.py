"""The parameters of a run by name, and the globs that name some of them: those of `freeze` and of each `group`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from tdsl.compiler.build.unit import RunIR, Unit
from tdsl.compiler.inspect import ParameterInfo, parameters
from tdsl.dsl.diagnostics import Diagnostic, Span
from tdsl.dsl.names import nearest

# How many names an error lists.
LISTED = 8


def named_parameters(unit: Unit, run: RunIR) -> Iterator[tuple[str, ParameterInfo]]:
    """Parameters as patterns know them: those of `model` as they are, those of another with its name in front."""
    for owner, member in run.models.items():
        lead = "" if owner == "model" else f"{owner}."
        yield from ((f"{lead}{each.path}", each) for each in parameters(unit, member) if each.trainable)


def trained(unit: Unit, run: RunIR) -> Iterator[tuple[str, ParameterInfo]]:
    """Those that the run's optimizer has."""
    yield from ((name, each) for name, each in named_parameters(unit, run) if not is_frozen(name, run))


def is_frozen(name: str, run: RunIR) -> bool:
    """Whether `freeze` names a parameter of the run."""
    return any(is_named(name, pattern) for pattern in _frozen(run))


def is_named(name: str, pattern: str) -> bool:
    """Whether a glob matches a parameter's name or that of a module that it is in.

    The rule is that of `optim.freeze` and `optim.groups`, which a run without the compiler has.
    """
    return any(fnmatchcase(each, pattern) for each in _prefixes(name))


def unmatched(unit: Unit, run: RunIR) -> Iterator[Diagnostic]:
    """An error for each pattern that names no parameter. What a class of Python's has is not among them."""
    found = [*named_parameters(unit, run)]
    names = [name for name, _ in found]
    ties = {f"{name.removesuffix(each.path)}{tie}": name for name, each in found for tie in each.ties}
    for pattern, span, setting in patterns_of(run):
        if any(is_named(name, pattern) for name in names):
            continue
        where = place(span, setting, pattern)
        tie = next((tie for tie in ties if is_named(tie, pattern)), None)
        if tie is None:
            yield Diagnostic("E336", f'"{pattern}" matches no parameter', where, help=_help(pattern, names))
        else:
            message = f'"{pattern}" matches no parameter but by a second name of `{ties[tie]}`'
            note = f"`{tie}` is tied to `{ties[tie]}`: both are one parameter, which goes by its first name"
            yield Diagnostic("E336", message, where, notes=(note,), help=f'write "{ties[tie]}"')


def patterns_of(run: RunIR) -> list[tuple[str, Span, str]]:
    """The globs that name parameters, what each stands within, and behind which word."""
    frozen = [(pattern, run.spec.span, "freeze") for pattern in _frozen(run)]
    return [*frozen, *((group.pattern, group.span, "group") for group in run.spec.groups)]


def place(span: Span, setting: str, pattern: str) -> Span:
    """Where a pattern stands within a run, behind the name of its setting; else, as of a `const`, the run."""
    named = span.word(setting)
    at = span.source.text.find(f'"{pattern}"', named.start, span.end)
    return named if at < 0 else Span(span.source, at, at + len(pattern) + 2)


def _frozen(run: RunIR) -> tuple[str, ...]:
    found = run.spec.settings.get("freeze")
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, tuple) else ()


def _prefixes(name: str) -> list[str]:
    """The name, and those of all modules that it is in: `blocks` and `blocks.0` of `blocks.0.weight`."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _help(pattern: str, names: Sequence[str]) -> str:
    if not names:
        return "the run has no parameters"
    modules = {each for name in names for each in _prefixes(name)[:-1]}
    known = {*names, *modules, *(f"{each}.*" for each in modules), *(f"*.{name.rpartition('.')[2]}" for name in names)}
    if found := nearest(pattern, known):
        return f'did you mean "{found}"?'
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"the parameters are {', '.join(names[:LISTED])}{more}"
