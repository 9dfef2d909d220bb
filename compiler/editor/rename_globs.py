"""Globs of a run that follow a name: `freeze = ["head.*"]` names `top.*` once the member `head` is called `top`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations

from tdsl.compiler import recomputation
from tdsl.compiler.build.program import build
from tdsl.compiler.build.unit import RunIR, Unit
from tdsl.compiler.editor.answers import Edit, Refused
from tdsl.compiler.patterns import is_named, named_parameters, patterns_of, place
from tdsl.dsl.diagnostics import Reporter, Span
from tdsl.dsl.program import Program

# Kinds of symbols whose names are parts of those of parameters and modules.
NAMED = ("member", "param", "model")
# A glob with the old name in more places is not followed.
MOST_PLACES = 4

Matches = Callable[[str, str], bool]


@dataclass(frozen=True)
class _Glob:
    """A glob of a run, where it stands, and what it has names of; `matches` is asked with a name and a glob."""

    setting: str
    text: str
    span: Span
    names: tuple[str, ...]
    matches: Matches

    def found(self, text: str) -> list[int]:
        """The places of the names that another glob in its place would match."""
        return [place for place, name in enumerate(self.names) if self.matches(name, text)]


def followed(before: Program, after: Program, old: str, new: str) -> Iterator[Edit]:
    """The edits by which each glob of the runs of `before` names in `after`, where `old` is `new`, what it named.

    Raises `Refused` for one that names it otherwise than by its whole name: by a wildcard, say.
    """
    units = [build(program, Reporter()) for program in (before, after)]
    if units[0] is None or units[1] is None:
        return  # a mistake of the program, or of the new name, which is told as such
    for name, run in units[0].runs.items():
        if name in units[1].runs:
            globs = zip(_globs(units[0], run), _globs(units[1], units[1].runs[name]), strict=True)
            for glob, renamed in globs:
                yield from _edits(glob, renamed, old, new)


def _globs(unit: Unit, run: RunIR) -> Iterator[_Glob]:
    """The globs of a run: of parameters, and modules around them, and of modules alone."""
    modules = tuple(recomputation.names(unit, run))
    names = (*(name for name, _ in named_parameters(unit, run)), *modules)
    for pattern, span, setting in patterns_of(run):
        yield _Glob(setting, pattern, place(span, setting, pattern), names, is_named)
    for pattern in recomputation.patterns_of(run):
        setting = recomputation.SETTING
        yield _Glob(setting, pattern, place(run.spec.span, setting, pattern), modules, fnmatchcase)


def _edits(glob: _Glob, renamed: _Glob, old: str, new: str) -> Iterator[Edit]:
    parts = glob.text.split(".")
    places = [number for number, part in enumerate(parts) if part == old]
    wanted = glob.found(glob.text)
    # The name may be one of those within a class of Python's, which are not known.
    is_known = bool(wanted) or not places
    for chosen in _choices(places) if is_known else ():
        text = ".".join(new if number in chosen else part for number, part in enumerate(parts))
        if renamed.found(text) == wanted:
            yield from (_edit(glob, parts, number, new) for number in sorted(chosen))
            return
    raise Refused(f'"{glob.text}" of `{glob.setting}` names `{old}`, and can\'t follow: change it first')


def _choices(places: list[int]) -> Iterator[tuple[int, ...]]:
    """Which of the places have the new name: none of them, all of them, some of them."""
    yield ()
    if len(places) <= MOST_PLACES:
        for count in range(len(places), 0, -1):
            yield from combinations(places, count)


def _edit(glob: _Glob, parts: list[str], number: int, new: str) -> Edit:
    """The edit of one part of a glob; raises `Refused` where the glob does not stand in the run as it is."""
    span = glob.span
    if span.text != f'"{glob.text}"':
        raise Refused(f'"{glob.text}" of `{glob.setting}` is not written there: change it first')
    start = span.start + 1 + sum(len(part) + 1 for part in parts[:number])
    return Edit(Span(span.source, start, start + len(parts[number])), new)
