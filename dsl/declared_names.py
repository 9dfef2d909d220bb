"""Names that a declaration introduces: each allowed, and each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from tdsl.dsl import ast, habits
from tdsl.dsl.diagnostics import Diagnostic, Reporter, Span
from tdsl.dsl.names import why_reserved

Named = tuple[str, Span]


def walk(node: ast.Node) -> Iterator[ast.Node]:
    """A node and all below it, in the order written."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        below: list[ast.Node] = []
        for name in _parts(type(each)):
            value = getattr(each, name)
            if isinstance(value, ast.Node):
                below.append(value)
            elif isinstance(value, tuple):
                below += [child for child in value if isinstance(child, ast.Node)]
        waiting += reversed(below)


_PARTS: dict[type[ast.Node], tuple[str, ...]] = {}


def _parts(kind: type[ast.Node]) -> tuple[str, ...]:
    """The attributes in which a node may hold others."""
    if kind not in _PARTS:
        _PARTS[kind] = tuple(each.name for each in fields(kind) if each.name not in ("span", "name_span", "doc"))
    return _PARTS[kind]


def check_names(declaration: ast.Declaration, reporter: Reporter) -> None:
    """Report names within a declaration that emitted code can't have, and those declared twice."""
    names = _Names(reporter)
    imported = isinstance(declaration, (ast.Module, ast.ExternModule))
    names.allowed([_named(declaration)], variable=not isinstance(declaration, ast.Evaluate), imported=imported)
    if isinstance(declaration, ast.Module):
        names.once([_parameter(each) for each in declaration.params], "parameter")
        names.once([*map(_named, declaration.members)], "member")
        names.allowed(map(_parameter, declaration.params), variable=True, member=True)
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


def _free(name: str) -> str:
    """A name like it that may be declared."""
    return f"{name.strip('_') or 'name'}_"


def _named(declaration: ast.Declaration) -> Named:
    return declaration.name, declaration.name_span


def _parameter(parameter: ast.Parameter | ast.Input) -> Named:
    start = parameter.span.start
    return parameter.name, Span(parameter.span.source, start, start + len(parameter.name))


class _Names:
    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def function(self, function: ast.Function) -> None:
        inputs = [_parameter(each) for each in function.takes]
        self.once(inputs, "input")
        self.allowed(inputs, variable=True)
        self.body(function)

    def body(self, owner: ast.Node) -> None:
        self.allowed(((node.id, node.span) for node in walk(owner) if isinstance(node, ast.Target)), variable=True)

    def allowed(self, names: Iterable[Named], **uses: bool) -> None:
        for name, span in names:
            if why := why_reserved(name, **uses):
                help = f"choose another name, such as `{_free(name)}`"
                self.reporter.add(Diagnostic("E102", f"`{name}` {why}", span, help=help))

    def once(self, names: Iterable[Named], what: str) -> None:
        seen: dict[str, Span] = {}
        for name, span in names:
            if name in seen:
                note = f"the first is at {seen[name]}"
                help = habits.ONE_OPTIMIZER if name == "optimizer" else "rename one, or remove it"
                self.reporter.add(Diagnostic("E101", f"the {what} `{name}` is given twice", span, "", (note,), help))
            seen.setdefault(name, span)
