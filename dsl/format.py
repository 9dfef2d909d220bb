"""The one formatting of a program: idempotent, with every comment kept, and the same program after it."""

from __future__ import annotations

from collections.abc import Iterator

from tdsl.dsl import ast
from tdsl.dsl.concrete import read
from tdsl.dsl.diagnostics import Reporter, Source, Span
from tdsl.dsl.layout import file_lines, text_of
from tdsl.dsl.parser import parse


class Unfaithful(Exception):
    """Formatting would have changed what a program says: a defect of the formatter, never of the program."""


def format_source(source: Source, reporter: Reporter) -> str | None:
    """The text of a program as it should be laid out; None where it has syntax errors, which are reported.

    Raises `Unfaithful` rather than return the text of another program.
    """
    before = parse(source, reporter)
    if reporter.errors:
        return None
    text = text_of(file_lines(read(source)))
    again = Reporter()
    after = parse(Source(source.name, text), again)
    if again.errors or not same_program(before, after):
        raise Unfaithful(f"formatting {source.name} would change the program")
    return text


def same_program(left: ast.File, right: ast.File) -> bool:
    """Whether two syntax trees differ in the places of their nodes alone."""
    return _same(left, right)


def _same(left: object, right: object) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, tuple):
        assert isinstance(right, tuple)
        return len(left) == len(right) and all(map(_same, left, right))
    if not isinstance(left, (ast.Node, ast.File)):
        return left == right
    return all(_same(getattr(left, name), getattr(right, name)) for name in _parts(left))


def _parts(node: ast.Node | ast.File) -> Iterator[str]:
    """The fields of a node that say what it is.

    Documentation is the comment directly above a line, so what shared its line with something else had none of its own.
    """
    for name in node.__dataclass_fields__:
        if isinstance(getattr(node, name), Span):
            continue
        if name != "doc" or (isinstance(node, ast.Node) and _begins_line(node.span)):
            yield name


def _begins_line(span: Span) -> bool:
    text = span.source.text
    return not text[text.rfind("\n", 0, span.start) + 1 : span.start].strip()
