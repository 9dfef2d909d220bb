"""A program as an editor sees it: its text, its trees, its mistakes, and what the builder made of each expression."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tdsl.compiler.build.body import guarded
from tdsl.compiler.build.classes import Classes
from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.program import build
from tdsl.compiler.build.values import Observer, Semantic
from tdsl.compiler.driver import checked
from tdsl.compiler.editor.index import Index
from tdsl.compiler.editor.text import Text, common
from tdsl.compiler.editor.tolerant import mend
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.probe import probe
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, Reporter, Source, Span
from tdsl.dsl.parser import parse
from tdsl.dsl.program import Program
from tdsl.dsl.resolve import Parse, load

# A file and the ends of a span in it.
Extent = tuple[str, int, int]
# The texts of open files, by their real paths.
Buffers = Mapping[str, str]


@dataclass(frozen=True)
class Analysis:
    """One file of a program, with the files that it imports.

    `diagnostics` are those of `tdsl check`. `trees` holds each file with its syntax tree, imported files before those
    that import them, this one last; with a syntax error they are those of the mended text. `facts` has what the builder
    made of an expression, a target, an input or a member, in the words of the declaration that it stands in.
    """

    path: str
    source: Source
    diagnostics: tuple[Diagnostic, ...]
    trees: tuple[tuple[Source, ast.File], ...]
    program: Program | None
    facts: Mapping[Extent, Semantic]
    buffers: Buffers = field(repr=False)

    @cached_property
    def text(self) -> Text:
        return Text(self.source.text)

    @cached_property
    def index(self) -> Index:
        return Index(self.trees, self.fact)

    @cached_property
    def tree(self) -> ast.File:
        """The file's own tree."""
        return next((tree for source, tree in reversed(self.trees) if source.name == self.path), ast.File((), ()))

    @property
    def imported(self) -> list[str]:
        """The real paths of all files of the program, its own among them."""
        return [os.path.realpath(source.name) for source, _ in self.trees]

    def fact(self, node: ast.Node) -> Semantic | None:
        return self.facts.get(_extent(node.span))

    def declaration(self, offset: int) -> ast.Declaration | None:
        """The declaration of the file around an offset."""
        for each in self.tree.declarations:
            if each.span.start <= offset <= each.span.end:
                return each
        return None


def analyze(path: str, text: str, buffers: Buffers | None = None, before: Analysis | None = None) -> Analysis:
    """Check a file whose text is `text`; what a syntax error hides is taken from the mended text, or from `before`.

    `buffers` are read in place of files that are imported.
    """
    trees: dict[str, tuple[Source, ast.File]] = {}
    facts: dict[Extent, Semantic] = {}
    buffers = buffers or {}
    program, reporter = _load(path, text, buffers, _kept(parse, trees))
    broken = any(tree.broken for _, tree in trees.values()) or any(d.code < "E1" for d in reporter.errors)
    if program is not None:
        if not broken:
            _functions(program, facts)
        checked(program, reporter, None if broken else _observer(facts))
    if broken:
        program, unheard = _load(path, text, buffers, _kept(_mending(trees), trees))
        if program is not None:
            _functions(program, facts)
            build(program, unheard, _observer(facts))
    source = Source(path, text)
    found = Analysis(path, source, tuple(reporter.diagnostics), tuple(trees.values()), program, facts, buffers)
    if before is not None and reporter.errors:
        _carry(before, found, facts)
    return found


def _load(path: str, text: str, buffers: Buffers, parse: Parse) -> tuple[Program | None, Reporter]:
    return load(path, text=text, probe=probe, buffers=buffers, parse=parse)


def _kept(parse: Parse, trees: dict[str, tuple[Source, ast.File]]) -> Parse:
    """Parses, and keeps the trees."""

    def parsed(source: Source, reporter: Reporter) -> ast.File:
        tree = parse(source, reporter)
        trees[source.name] = source, tree
        return tree

    return parsed


def _mending(strict: dict[str, tuple[Source, ast.File]]) -> Parse:
    """Mends the trees that have been made; a mended import may bring in a file that has none yet."""
    made = dict(strict)
    strict.clear()

    def parsed(source: Source, reporter: Reporter) -> ast.File:
        return mend(source, made[source.name][1] if source.name in made else parse(source, Reporter()))

    return parsed


def _functions(program: Program, facts: dict[Extent, Semantic]) -> None:
    """Each `fn` in its own words: the builder elaborates one in the words of its callers."""
    reporter = Reporter()
    for function in program.functions.values():
        classes = Classes(program, reporter, observe=_observer(facts, function.span))
        frame = Frame(classes, GraphBuilder(function.name, ""), {})
        with knowing({}), guarded(reporter, frame, []):
            classes.function_alone(function, frame)


def _observer(facts: dict[Extent, Semantic], within: Span | None = None) -> Observer:
    def observe(node: ast.Node, value: Semantic) -> None:
        span = node.name_span if isinstance(node, ast.Declaration) else node.span
        if isinstance(node, ast.Input):
            span = Span(span.source, span.start, span.start + len(node.name))
        if within is None or (within.source.name == span.source.name and within.start <= span.start <= within.end):
            facts.setdefault(_extent(span), value)

    return observe


def _extent(span: Span) -> Extent:
    return span.source.name, span.start, span.end


def _carry(before: Analysis, after: Analysis, facts: dict[Extent, Semantic]) -> None:
    """What was known of text that has not changed, for declarations that are now not understood at all or in part."""
    old, new = before.source.text, after.source.text
    head = common(old, new)
    tail = common(old[head:][::-1], new[head:][::-1])
    wanted = [d.span for d in after.tree.declarations if _is_torn(d, after, facts)]
    for (name, start, end), value in before.facts.items():
        if name != after.path or (head < end and start < len(old) - tail):
            continue
        moved = 0 if end <= head else len(new) - len(old)
        if any(span.start <= start + moved and end + moved <= span.end for span in wanted):
            facts.setdefault((name, start + moved, end + moved), value)


def _is_torn(declaration: ast.Declaration, analysis: Analysis, facts: Mapping[Extent, Semantic]) -> bool:
    """Whether a declaration has a syntax error, or a mistake for which nothing of it was built."""
    span = declaration.span
    inside = [d for d in analysis.diagnostics if d.span and d.span.source.name == analysis.path]
    inside = [d for d in inside if d.span and span.start <= d.span.start <= span.end]
    if any(d.code < "E1" for d in inside):
        return True
    return not any(name == analysis.path and span.start <= start < span.end for name, start, _ in facts)
