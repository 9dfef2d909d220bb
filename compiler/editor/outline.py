"""The declarations of a file and their parts, as editors list them; and what can be folded."""

from __future__ import annotations

from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Outline
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span

_KINDS = {
    ast.Const: "constant",
    ast.Function: "function",
    ast.Module: "class",
    ast.ExternModule: "class",
    ast.Data: "struct",
    ast.Train: "event",
    ast.Evaluate: "event",
}


def outline(analysis: Analysis) -> list[Outline]:
    """The declarations of the file, in the order written."""
    return [_declaration(each) for each in analysis.tree.declarations if each.name_span.text == each.name]


def _declaration(each: ast.Declaration) -> Outline:
    parts: list[Outline] = []
    if isinstance(each, ast.Module):
        parts = [_part(member, "field" if isinstance(member, ast.Member) else "property") for member in each.members]
        parts += [_part(each.forward, "method")] if each.forward is not None else []
    elif isinstance(each, ast.Data):
        parts = [_part(field, "field") for field in each.fields]
    elif isinstance(each, (ast.Train, ast.Evaluate)):
        parts = [Outline(b.name, "method", "", b.span, b.name_span) for b in each.blocks]
        parts += [Outline(s.name, "namespace", s.pattern or "", s.span, s.name_span) for s in each.sections]
    parts.sort(key=lambda part: part.span.start)
    return Outline(each.name, _KINDS[type(each)], _word(each), each.span, each.name_span, tuple(parts))


def _part(each: ast.Declaration, kind: str) -> Outline:
    detail = each.type.span.text if isinstance(each, (ast.Field, ast.ParamMember)) else ""
    name_span = each.name_span
    if isinstance(each, ast.Function):
        detail = f"({', '.join(i.span.text for i in each.takes)})"
    return Outline(each.name, kind, " ".join(detail.split()), each.span, name_span)


def _word(each: ast.Declaration) -> str:
    return {ast.ExternModule: "extern module", ast.Function: "fn"}.get(type(each), type(each).__name__.lower())


def folds(analysis: Analysis) -> list[Span]:
    """Declarations, blocks and sections that go over several lines."""
    found: list[Span] = []
    for each in analysis.tree.declarations:
        found.append(each.span)
        if isinstance(each, ast.Module) and each.forward is not None:
            found.append(each.forward.span)
        if isinstance(each, (ast.Train, ast.Evaluate)):
            found += [part.span for part in (*each.blocks, *each.sections)]
    return [span for span in found if "\n" in span.text]
