"""What the compiler has inferred, shown within the text: the shape of every binding."""

from __future__ import annotations

from collections.abc import Iterator

from tdsl.compiler.build.values import Infer, LayerInstance
from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Hint
from tdsl.compiler.editor.describe import binding
from tdsl.dsl import ast
from tdsl.dsl.constants import describe
from tdsl.dsl.declared_names import walk
from tdsl.dsl.diagnostics import Span


def hints(analysis: Analysis, start: int = 0, end: int | None = None) -> list[Hint]:
    """The hints between two offsets, in order."""
    stop = len(analysis.source.text) if end is None else end
    found: list[Hint] = []
    for declaration in analysis.tree.declarations:
        if declaration.span.end < start or declaration.span.start > stop:
            continue
        found += _constant(analysis, declaration) if isinstance(declaration, ast.Const) else ()
        for node in walk(declaration):
            found += _hint(analysis, node)
    return sorted((hint for hint in found if start <= hint.offset <= stop), key=lambda hint: hint.offset)


def _hint(analysis: Analysis, node: ast.Node) -> Iterator[Hint]:
    if isinstance(node, ast.Target):
        yield from _binding(analysis, node)
    elif isinstance(node, ast.Member):
        yield from _inferred(analysis, node)
    elif isinstance(node, ast.Pipe):
        yield from _stages(analysis, node)


def _binding(analysis: Analysis, node: ast.Target) -> Iterator[Hint]:
    """`h: float[B, 128]`."""
    value = analysis.fact(node)
    text = binding(value) if value is not None else ""
    if text:
        yield Hint(node.span.end, text)


def _inferred(analysis: Analysis, node: ast.Member) -> Iterator[Hint]:
    """`Linear(_ = 512, 64)`."""
    made = analysis.fact(_name(node))
    if not isinstance(made, LayerInstance) or not isinstance(node.value, ast.Call):
        return
    for number, argument in enumerate(node.value.args):
        if not isinstance(argument.value, ast.Name) or argument.value.id != "_":
            continue
        names = [arg.name for arg in made.layer.signature]
        name = argument.name or (names[number] if number < len(names) else "")
        size = made.args.get(name)
        if size is not None and not isinstance(size, Infer):
            yield Hint(argument.value.span.end, f" = {size}", f"`{name}`, taken from the input")


def _stages(analysis: Analysis, node: ast.Pipe) -> Iterator[Hint]:
    """The type after each stage of a pipe that stands on a line of its own."""
    text = analysis.source.text
    value = analysis.fact(node)
    behind = text[node.span.end : analysis.text.end_of_line(node.span.end)].strip()
    if value is None or behind or "\n" not in text[node.value.span.end : node.stage.span.start]:
        return
    yield Hint(node.span.end, binding(value), "after this stage")


def _constant(analysis: Analysis, node: ast.Const) -> Iterator[Hint]:
    """The value of a constant that is not written out."""
    consts = analysis.program.consts if analysis.program is not None else {}
    if node.name in consts and not isinstance(node.value, (ast.Literal, ast.ListExpr, ast.TupleExpr)):
        yield Hint(node.value.span.end, f" = {describe(consts[node.name]).strip('`')}")


def _name(node: ast.Declaration) -> ast.Node:
    return ast.Target(Span(node.span.source, node.name_span.start, node.name_span.end), node.name)
