"""A file and what it imports, resolved: names bound, constants folded, every setting checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tdsl.dsl import ast
from tdsl.dsl.declared_names import check_names, walk
from tdsl.dsl.diagnostics import Diagnostic, ProgramError, Reporter, Source, Span, fail
from tdsl.dsl.facts import Prober
from tdsl.dsl.lexer import MOST_CHARACTERS
from tdsl.dsl.overrides import override
from tdsl.dsl.parser import parse
from tdsl.dsl.program import Constant, DataSpec, EvaluateSpec, Program, TrainSpec
from tdsl.dsl.resolve_data import resolve_data
from tdsl.dsl.resolve_evaluate import resolve_evaluate
from tdsl.dsl.resolve_run import resolve_train
from tdsl.dsl.scope import Scope
from tdsl.dsl.starts import starts

MOST_IMPORTS = 64
Parse = Callable[[Source, Reporter], ast.File]


def load(
    path: str | Path,
    *,
    text: str | None = None,
    allow_outside: bool = False,
    overrides: Mapping[str, str] | None = None,
    probe: Prober | None = None,
    buffers: Mapping[str, str] | None = None,
    parse: Parse = parse,
) -> tuple[Program | None, Reporter]:
    """Read, parse and resolve a program.

    `text` stands in for the content of `path`, `buffers` for that of the files with these real paths; `parse` makes the
    syntax tree of each file; `overrides` are the `--set` options; `probe` reads the headers of data
    files, and without it fields are not checked and facts such as `Digits.rows` are errors. The program holds all that
    could be resolved, even where the reporter has errors, so that a caller can look for more; it is None where the file
    can't be read. Raises nothing for what is wrong with a program.
    """
    reporter = Reporter()
    files = _Files(reporter, buffers or {}, parse)
    main = files.read(str(path), text)
    if main is None:
        return None, reporter
    if overrides:
        files.trees[-1] = (main, override(files.trees[-1][1], overrides, reporter))
    scope = Scope(reporter, Path(path).parent, probe, allow_outside)
    declarations = list(_declare(files.trees, main, scope))
    return _resolve(main, tuple(source for source, _ in files.trees), declarations, scope), reporter


class _Files:
    """Reads files once each, those they import before them."""

    def __init__(self, reporter: Reporter, buffers: Mapping[str, str], parse: Parse) -> None:
        self.reporter = reporter
        self.buffers = buffers
        self.parse = parse
        self.trees: list[tuple[Source, ast.File]] = []
        self.known: set[str] = set()
        self.open: list[str] = []

    def read(self, name: str, text: str | None = None, asked: Span | None = None) -> Source | None:
        with self.reporter.guard():
            real = os.path.realpath(name)
            text = self.buffers.get(real) if text is None else text
            source = Source(name, content(name, asked) if text is None else text)
            tree = self.parse(source, self.reporter)
            self.known.add(real)
            self.open.append(real)
            for each in tree.imports:
                with self.reporter.guard():
                    self.include(each, name)
            self.open.pop()
            self.trees.append((source, tree))
            return source
        return None

    def include(self, each: ast.Import, importer: str) -> None:
        name = os.path.normpath(os.path.join(os.path.dirname(importer), each.path))
        real = os.path.realpath(name)
        if "\0" in each.path or not each.path:
            fail("E104", "this names no file", each.span)
        if real in self.open:
            chain = " -> ".join(os.path.basename(file) for file in [*self.open[self.open.index(real) :], real])
            fail(
                "E103",
                "this import leads back to itself",
                each.span,
                notes=(chain,),
                help="move what both need into a third file",
            )
        if len(self.open) > MOST_IMPORTS:
            fail("E103", f"imports are more than {MOST_IMPORTS} deep", each.span)
        if real not in self.known:
            self.read(name, asked=each.span)


def content(name: str, asked: Span | None) -> str:
    """The text of a file; `asked` is the import that wants it."""
    try:
        with open(name, "rb") as file:
            content = file.read(4 * MOST_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        where = asked or Span(Source(name, ""), 0, 0)
        return fail(
            "E104",
            f"cannot read `{name}`: {why}",
            where,
            help="the path is relative to the file that imports it" if asked else None,
        )
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        good = content[: error.start].decode("utf-8").replace("\r\n", "\n")
        source = Source(name, good + "\ufffd")
        return fail("E001", "the file is not UTF-8", Span(source, len(good), len(good) + 1), help="save it as UTF-8")


def _declare(trees: list[tuple[Source, ast.File]], main: Source, scope: Scope) -> Iterator[ast.Declaration]:
    """All declarations; those of modules, data and so on entered into the scope, duplicates reported."""
    runs: dict[tuple[type, str], ast.Declaration] = {}
    folder = os.path.dirname(main.name)
    for source, tree in trees:
        scope.broken |= set(tree.broken)
        prefix = os.path.relpath(os.path.dirname(source.name) or ".", folder or ".")
        for declaration in tree.declarations:
            with scope.guard():
                if isinstance(declaration, (ast.Train, ast.Evaluate)):
                    _once(declaration, runs.get((type(declaration), declaration.name)))
                    runs[type(declaration), declaration.name] = declaration
                else:
                    _once(declaration, scope.declarations.get(declaration.name))
                    scope.declarations[declaration.name] = declaration
                    scope.prefixes[declaration.name] = "" if prefix == "." else f"{prefix.replace(os.sep, '/')}/"
                yield declaration


def _once(declaration: ast.Declaration, earlier: ast.Declaration | None) -> None:
    if earlier is not None:
        note = f"the first is at {earlier.name_span}"
        help = "rename one, or remove it"
        fail("E101", f"`{declaration.name}` is declared twice", declaration.name_span, notes=(note,), help=help)


def _resolve(main: Source, sources: tuple[Source, ...], found: list[ast.Declaration], scope: Scope) -> Program:
    for declaration in found:
        check_names(declaration, scope.reporter)
    for declaration in found:
        if isinstance(declaration, ast.Const):
            with scope.guard():
                scope.constant(declaration, declaration.name_span)
    _ask_facts(found, scope)
    data = {each.name: resolve_data(each, scope) for each in found if isinstance(each, ast.Data)}
    evaluations = {each.name: each for each in found if isinstance(each, ast.Evaluate)}
    runs: dict[str, TrainSpec] = {}
    declared_runs = [each.name for each in found if isinstance(each, ast.Train)]
    for each in found:
        if isinstance(each, ast.Train) and (run := resolve_train(each, data, evaluations.get(each.name), scope)):
            runs[each.name] = run
            _warn_absent_weights(each, run, declared_runs, scope)
    evaluated = {name: resolve_evaluate(each, runs, declared_runs, scope) for name, each in evaluations.items()}
    _warn_unread(data, runs, evaluated, scope.reporter)
    return Program(
        main, sources, _constants(scope),
        {each.name: each for each in found if isinstance(each, ast.Function)},
        {each.name: each for each in found if isinstance(each, ast.Module)},
        {each.name: each for each in found if isinstance(each, ast.ExternModule)},
        data, runs, evaluated, frozenset((*scope.broken, *_lost(scope))),
    )  # fmt: skip


def _constants(scope: Scope) -> dict[str, Constant]:
    return {name: value for name, value in scope.constants.items() if not isinstance(value, ProgramError)}


def _lost(scope: Scope) -> list[str]:
    """Constants without a value, for a mistake that is told already."""
    known = _constants(scope)
    return [name for name, each in scope.declarations.items() if isinstance(each, ast.Const) and name not in known]


def _ask_facts(found: list[ast.Declaration], scope: Scope) -> None:
    """Find out the facts of data that modules and models speak of."""
    for declaration in found:
        if isinstance(declaration, (ast.Const, ast.Data)):
            continue
        for node in walk(declaration):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            if isinstance(scope.declarations.get(node.value.id), ast.Data):
                with scope.guard():
                    scope.attribute(node, node.value)


def _warn_absent_weights(run: ast.Train, spec: TrainSpec, runs: list[str], scope: Scope) -> None:
    """Tell that the weights to begin with are not there, unless another run of the program writes them."""
    for start in starts(spec):
        path = start.path
        written = any(f"{path}/".startswith(f"runs/{name}/") for name in runs if name != run.name)
        if scope.probe is None or written or scope.is_there(path):
            continue
        span = start.span or next(setting.value.span for setting in run.settings if setting.name == "init_from")
        help = "put it there before training: the path is from the program's folder"
        scope.reporter.add(Diagnostic("W401", f"no such file: {path}", span, "the weights to begin with", help=help))


def _warn_unread(
    data: Mapping[str, DataSpec],
    runs: Mapping[str, TrainSpec],
    evaluated: Mapping[str, EvaluateSpec],
    reporter: Reporter,
) -> None:
    """Warn of fields that no run on their data reads."""
    for spec in data.values():
        blocks = [run.loss for run in runs.values() if run.data is spec]
        for name, run in runs.items():
            other = evaluated.get(name)
            if run.data is spec and other is not None:
                blocks += [block for block in (other.compare, other.predict) if block is not None]
        if not blocks:
            continue
        read = {name for block in blocks for name in _read(block)}
        if not read <= {field.name for field in spec.fields}:
            continue  # a name that is misspelt, or the batch as a whole: what else is read can't be told
        for field in spec.fields:
            if field.name not in read:
                help = "remove it, unless it is there for `predict`"
                message = f"the field `{field.name}` is never read"
                reporter.add(Diagnostic("W101", message, field.span, help=help))


def _read(block: ast.Block) -> Iterator[str | None]:
    """The fields that a block reads; None among them where it hands on the whole batch."""
    whole = 0
    for node in walk(block):
        if isinstance(node, ast.Name) and node.id == block.parameter.id:
            whole += 1
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == block.parameter.id:
            whole -= 1
            yield node.name
    if whole:
        yield None
