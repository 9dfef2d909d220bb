"""`tdsl fmt`: lay programs out in the one way; a program with syntax errors is told of them and left alone."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from dataclasses import dataclass

from tdsl.compiler.commands.program import STDIN, STDIN_NAME, complain, read_stdin, tell
from tdsl.dsl.diagnostics import Reporter, Source
from tdsl.dsl.format import Unfaithful, format_source
from tdsl.dsl.resolve import content


@dataclass(frozen=True)
class Formatted:
    """A file's text before and after."""

    file: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


def run(options: Namespace) -> int:
    reporter = Reporter()
    try:
        found = [each for file in options.files if (each := _formatted(file, reporter)) is not None]
    except Unfaithful as error:
        complain(f"internal error: {error}; nothing was written")
        return 1
    if reporter.errors or options.format == "json":
        tell(reporter.diagnostics, options)
    failed = [_finish(each, options) for each in found]
    if STDIN not in options.files and options.format == "text" and not options.diff:
        _sum_up(found, options.check)
    if reporter.errors:
        return 2
    return 1 if any(failed) or (options.check and any(each.changed for each in found)) else 0


def _formatted(file: str, reporter: Reporter) -> Formatted | None:
    """A file, formatted; None where it can't be, which is reported."""
    with reporter.guard():
        source = Source(STDIN_NAME, read_stdin()) if file == STDIN else Source(file, content(file, None))
        mine = Reporter()
        after = format_source(source, mine)
        for diagnostic in mine.diagnostics:
            reporter.add(diagnostic)
        return None if after is None else Formatted(file, source.text, after)
    return None


def _finish(each: Formatted, options: Namespace) -> bool:
    """Print or write what was asked for; true where that failed."""
    if options.diff:
        sys.stdout.writelines(_diff(each))
    elif each.file == STDIN and not options.check:
        sys.stdout.write(each.after)
    elif each.changed and not options.check:
        return not _replaced(each)
    return False


def _diff(each: Formatted) -> list[str]:
    before, after = (text.splitlines(keepends=True) for text in (each.before, each.after))
    name = STDIN_NAME if each.file == STDIN else each.file
    lines = difflib.unified_diff(before, after, name, f"{name}, formatted")
    return [line if line.endswith("\n") else f"{line}\n\\ no newline at the end of the file\n" for line in lines]


def _replaced(each: Formatted) -> bool:
    """Write a file whole or not at all, where it is and with the rights that it has."""
    path = os.path.realpath(each.file)
    try:
        handle, aside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".tdsl-fmt-")
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(each.after)
            shutil.copymode(path, aside)
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        complain(f"can't write {each.file}: {error.strerror}")
        return False
    return True


def _sum_up(found: list[Formatted], check: bool) -> None:
    changed = [each for each in found if each.changed]
    for each in changed:
        print(f"would format {each.file}" if check else f"formatted {each.file}")
    same = len(found) - len(changed)
    if same:
        print(f"{same} file{'s' if same != 1 else ''} already formatted")
