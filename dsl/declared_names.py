"""Names that a declaration introduces: each allowed, and each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, Reporter, Span
from tdsl.dsl.names import why_reserved

Named = tuple[str, Span]


def walk(node: ast.Node) -> Iterator[ast.Node]:
    """A node and all below it, in the order written."""
    yield node
    for field in fields(node):
        value = getattr(node, field.name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, ast.Node):
                yield from walk(child)


def check_names(declaration: ast.Declaration, reporter: Reporter) -> None:
    """Report names within a declaration that emitted code can't have, and those declared twice."""
    names = _Names(reporter)
    names.allowed([_named(declaration)])
    if isinstance(declaration, ast.Module):
        names.once([_parameter(each) for each in declaration.params], "parameter")
        names.once([*map(_named, declaration.members)], "member")
        names.allowed(map(_parameter, declaration.params))
        names.allowed(map(_named, declaration.members), member=True)
        if declaration.forward is not None:
            names.function(declaration.forward)
    elif isinstance(declaration, ast.ExternModule):
        names.once([_parameter(each) for each in declaration.params], "parameter")
    elif isinstance(declaration, ast.Function):
        names.function(declaration)
    elif isinstance(declaration, ast.Data):
        names.once([*map(_named, declaration.settings)], "setting")
        names.once([*map(_named, declaration.fields)], "field")
        names.allowed(map(_named, declaration.fields))
    elif isinstance(declaration, (ast.Train, ast.Evaluate)):
        names.once([*map(_named, declaration.settings)], "setting")
        for section in declaration.sections:
            names.once([*map(_named, section.settings)], "setting")
        for block in declaration.blocks:
            names.allowed([(block.parameter.id, block.parameter.span)])
            names.body(block)


def _named(declaration: ast.Declaration) -> Named:
    return declaration.name, declaration.name_span


def _parameter(parameter: ast.Parameter | ast.Input) -> Named:
    start = parameter.span.start
    return parameter.name, Span(parameter.span.source, start, start + len(parameter.name))


class _Names:
    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def function(self, function: ast.Function) -> None:
        inputs = [_parameter(each) for each in function.inputs]
        self.once(inputs, "input")
        self.allowed(inputs)
        self.body(function)

    def body(self, owner: ast.Node) -> None:
        self.allowed((node.id, node.span) for node in walk(owner) if isinstance(node, ast.Target))

    def allowed(self, names: Iterable[Named], member: bool = False) -> None:
        for name, span in names:
            if why := why_reserved(name, member):
                self.reporter.add(Diagnostic("E102", f"`{name}` {why}", span, help="choose another name"))

    def once(self, names: Iterable[Named], what: str) -> None:
        seen: dict[str, Span] = {}
        for name, span in names:
            if name in seen:
                note = f"the first is at {seen[name]}"
                self.reporter.add(Diagnostic("E101", f"the {what} `{name}` is given twice", span, notes=(note,)))
            seen.setdefault(name, span)
