"""Between offsets and the language server protocol: positions, ranges, and answers in its types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lsprotocol import types

from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Completion, Completions, Edit, Fix, Help, Hint, Hover, Outline
from tdsl.compiler.editor.definition import definition
from tdsl.compiler.editor.text import Text, common
from tdsl.dsl.diagnostics import Diagnostic, Source, Span

SOURCE = "tdsl"
# Lints that tell of something that can go.
UNUSED = ("W101", "W206")


def markdown(text: str) -> types.MarkupContent:
    return types.MarkupContent(types.MarkupKind.Markdown, text)


@dataclass
class Protocol:
    """Converts in the encoding that server and client have agreed on. `uris` are those of open files by their paths."""

    encoding: str = "utf-16"
    uris: dict[str, str] = field(default_factory=dict)

    def text(self, content: str) -> Text:
        return Text(content, self.encoding)

    def offset(self, analysis: Analysis, position: types.Position) -> int:
        return self.text(analysis.source.text).offset(position.line, position.character)

    def range(self, source: Source, start: int, end: int) -> types.Range:
        text = self.text(source.text)
        return types.Range(types.Position(*text.position(start)), types.Position(*text.position(end)))

    def of(self, span: Span) -> types.Range:
        return self.range(span.source, span.start, span.end)

    def uri(self, path: str) -> str:
        """The address of a file, as the editor writes it where it is open."""
        from pygls.uris import from_fs_path

        return self.uris.get(path) or from_fs_path(path) or path

    def location(self, span: Span) -> types.Location:
        return types.Location(self.uri(span.source.name), self.of(span))

    # Diagnostics -----------------------------------------------------------------------------------------------------

    def diagnostics(self, analysis: Analysis) -> list[types.Diagnostic]:
        """Those of a file; what is wrong with a file that it imports stands at the import."""
        return [self.diagnostic(analysis, each) for each in analysis.diagnostics]

    def diagnostic(self, analysis: Analysis, each: Diagnostic) -> types.Diagnostic:
        is_warning = each.severity == "warning"
        span = each.span
        message = described(each)
        if span is None or span.source.name != analysis.path:
            message = f"{span}: {message}" if span is not None else message
            span = _import(analysis, span)
        return types.Diagnostic(
            self.of(span) if span is not None else self.range(analysis.source, 0, 0),
            message,
            types.DiagnosticSeverity.Warning if is_warning else types.DiagnosticSeverity.Error,
            each.code,
            source=SOURCE,
            tags=[types.DiagnosticTag.Unnecessary] if each.code in UNUSED else None,
        )

    # Answers ---------------------------------------------------------------------------------------------------------

    def hover(self, analysis: Analysis, found: Hover) -> types.Hover:
        return types.Hover(markdown(found.text), self.range(analysis.source, found.start, found.end))

    def completions(self, analysis: Analysis, offset: int, found: Completions) -> types.CompletionList:
        where = self.range(analysis.source, found.start, offset)
        return types.CompletionList(False, [self.completion(each, where) for each in found.items])

    def completion(self, each: Completion, where: types.Range) -> types.CompletionItem:
        kind = next(k for k in types.CompletionItemKind if k.name.lower() == each.kind)
        return types.CompletionItem(
            each.label,
            kind=kind,
            detail=each.detail or None,
            documentation=markdown(each.doc) if each.doc else None,
            sort_text=f"{each.rank}{each.label}",
            insert_text_format=types.InsertTextFormat.Snippet if each.snippet else types.InsertTextFormat.PlainText,
            text_edit=types.TextEdit(where, each.insert or each.label),
        )

    def help(self, found: Help) -> types.SignatureHelp:
        units = self.text(found.label).units
        parameters = [
            types.ParameterInformation((units(found.label[:start]), units(found.label[:end])))
            for start, end in found.parameters
        ]
        info = types.SignatureInformation(found.label, markdown(found.doc), parameters, found.active)
        return types.SignatureHelp([info], 0, found.active)

    def hints(self, analysis: Analysis, found: Iterable[Hint]) -> list[types.InlayHint]:
        text = self.text(analysis.source.text)
        return [
            types.InlayHint(
                types.Position(*text.position(hint.offset)),
                hint.text,
                types.InlayHintKind.Type,
                tooltip=hint.tooltip or None,
            )
            for hint in found
        ]

    def edits(self, edits: Sequence[Edit]) -> types.WorkspaceEdit:
        changes: dict[str, list[types.TextEdit]] = {}
        for edit in edits:
            changes.setdefault(self.uri(edit.span.source.name), []).append(
                types.TextEdit(self.of(edit.span), edit.text)
            )
        return types.WorkspaceEdit(changes)

    def whole(self, analysis: Analysis, text: str) -> list[types.TextEdit]:
        """The edit that makes the file `text`: of the lines that differ alone."""
        old = analysis.source.text.splitlines(keepends=True)
        new = text.splitlines(keepends=True)
        head = common(old, new)
        tail = common(old[head:][::-1], new[head:][::-1])
        if head == len(old) == len(new):
            return []
        start = sum(map(len, old[:head]))
        end = len(analysis.source.text) - sum(map(len, old[len(old) - tail :]))
        return [types.TextEdit(self.range(analysis.source, start, end), "".join(new[head : len(new) - tail]))]

    def outline(self, each: Outline) -> types.DocumentSymbol:
        kind = next(k for k in types.SymbolKind if k.name.lower() == each.kind)
        children = [self.outline(child) for child in each.children]
        return types.DocumentSymbol(
            each.name or "?", kind, self.of(each.span), self.of(each.name_span), each.detail, children=children
        )

    def fix(self, analysis: Analysis, each: Fix) -> types.CodeAction:
        diagnostic = self.diagnostic(analysis, analysis.diagnostics[each.diagnostic])
        kind = types.CodeActionKind.QuickFix
        return types.CodeAction(each.title, kind, [diagnostic], is_preferred=True, edit=self.edits([each.edit]))


def described(each: Diagnostic) -> str:
    """A mistake in lines: what, the label, notes, the cure."""
    notes = [f"note: {note}" for note in each.notes]
    help = [f"help: {each.help}"] if each.help else []
    return "\n".join(filter(None, [each.message, each.label, *notes, *help]))


def _import(analysis: Analysis, span: Span | None) -> Span | None:
    """The import that leads to a place in another file: the one of that file, or else the first."""
    spans = [each.span for each in analysis.tree.imports]
    for each in spans:
        found = definition(analysis, each.start)
        if found is not None and span is not None and found.source.name == span.source.name:
            return each
    return spans[0] if spans else None
