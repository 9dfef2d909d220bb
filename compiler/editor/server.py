"""The language server: `tdsl lsp` speaks the protocol over standard input and output."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import traceback
from collections.abc import Sequence

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from tdsl import __version__
from tdsl.compiler.editor.actions import fixes
from tdsl.compiler.editor.analysis import Analysis
from tdsl.compiler.editor.answers import Refused
from tdsl.compiler.editor.completion import complete
from tdsl.compiler.editor.definition import definition, highlights, references, symbol_at
from tdsl.compiler.editor.hints import hints
from tdsl.compiler.editor.hover import hover
from tdsl.compiler.editor.outline import folds, outline
from tdsl.compiler.editor.protocol import Protocol
from tdsl.compiler.editor.rename import renamable, rename
from tdsl.compiler.editor.signature import signature
from tdsl.compiler.editor.workspace import Workspace
from tdsl.dsl.diagnostics import Reporter
from tdsl.dsl.format import format_source

LONGEST_WAIT = 0.5  # seconds


class Server(LanguageServer):
    """A language server with the programs that are open in its editor."""

    def __init__(self) -> None:
        # Whole texts, not edits: a program is short, and no count of characters can go wrong between two sides.
        super().__init__("tdsl", __version__, types.TextDocumentSyncKind.Full)
        self.programs = Workspace()
        self.convert = Protocol()
        self.waiting: dict[str, str] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.took = 0.0
        self.ended = 0.0

    def path(self, uri: str) -> str:
        """The path of a file; of a text that has none, a path that no file has."""
        found = to_fs_path(uri) or os.path.join(os.getcwd(), uri.replace("/", "_").replace(":", "_"))
        path = os.path.normpath(found)
        self.convert.uris[path] = uri
        return path

    def analysis(self, document: types.TextDocumentIdentifier) -> Analysis | None:
        """The analysis of a file as it now is."""
        self.flush()
        return self.programs.analysis(self.path(document.uri))

    def change(self, uri: str, text: str) -> None:
        """Take the text of a file: at once, unless the last check has just ended, so that no queue builds up."""
        self.waiting[uri] = text
        pause = min(self.took, LONGEST_WAIT) - (time.monotonic() - self.ended)
        if pause <= 0:
            self.flush()
        elif self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(pause, self.flush)

    def flush(self) -> None:
        """Check what has been typed."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        while self.waiting:
            self.update(*self.waiting.popitem())

    def update(self, uri: str, text: str) -> None:
        """Take the text of a file, and publish what is wrong with it and with those that import it."""
        start = time.monotonic()
        try:
            self.publish(self.programs.update(self.path(uri), text))
        except Exception:
            # A mistake of the checker's own: the last analysis stays, and the log says why.
            self.window_log_message(types.LogMessageParams(types.MessageType.Error, traceback.format_exc()))
        self.ended = time.monotonic()
        self.took = self.ended - start

    def publish(self, analyses: Sequence[Analysis]) -> None:
        for each in analyses:
            uri = self.convert.uri(each.path)
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, self.convert.diagnostics(each)))


server = Server()


@server.feature(types.INITIALIZED)
def initialized(ls: Server, params: types.InitializedParams) -> None:
    encoding = ls.workspace.position_encoding or types.PositionEncodingKind.Utf16
    ls.convert.encoding = encoding.value if isinstance(encoding, types.PositionEncodingKind) else encoding
    roots = [each.uri for each in ls.workspace.folders.values()] or [ls.workspace.root_uri or ""]
    ls.programs.folders = [path for uri in roots if (path := to_fs_path(uri))]


@server.feature(types.TEXT_DOCUMENT_DID_OPEN)
def did_open(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
    ls.update(params.text_document.uri, params.text_document.text)


@server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
def did_change(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
    ls.change(params.text_document.uri, params.content_changes[-1].text)


@server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
def did_close(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
    uri = params.text_document.uri
    ls.flush()
    path = ls.path(uri)
    ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))
    ls.publish(ls.programs.close(path))
    ls.convert.uris.pop(path, None)


@server.feature(types.TEXT_DOCUMENT_DID_SAVE)
def did_save(ls: Server, params: types.DidSaveTextDocumentParams) -> None:
    _refresh(ls)


@server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
def did_change_watched_files(ls: Server, params: types.DidChangeWatchedFilesParams) -> None:
    _refresh(ls)


def _refresh(ls: Server) -> None:
    """Check every open file again, as data or an imported file may be another."""
    ls.flush()
    for path, each in list(ls.programs.analyses.items()):
        ls.update(ls.convert.uri(path), each.source.text)


@server.feature(types.TEXT_DOCUMENT_HOVER)
def on_hover(ls: Server, params: types.HoverParams) -> types.Hover | None:
    analysis = ls.analysis(params.text_document)
    found = hover(analysis, ls.convert.offset(analysis, params.position)) if analysis else None
    return ls.convert.hover(analysis, found) if analysis and found else None


@server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=list('."/(,=')))
def on_completion(ls: Server, params: types.CompletionParams) -> types.CompletionList | None:
    analysis = ls.analysis(params.text_document)
    if analysis is None:
        return None
    offset = ls.convert.offset(analysis, params.position)
    return ls.convert.completions(analysis, offset, complete(analysis, offset))


@server.feature(types.TEXT_DOCUMENT_SIGNATURE_HELP, types.SignatureHelpOptions(trigger_characters=list("(,")))
def on_signature_help(ls: Server, params: types.SignatureHelpParams) -> types.SignatureHelp | None:
    analysis = ls.analysis(params.text_document)
    found = signature(analysis, ls.convert.offset(analysis, params.position)) if analysis else None
    return ls.convert.help(found) if found else None


@server.feature(types.TEXT_DOCUMENT_DEFINITION)
def on_definition(ls: Server, params: types.DefinitionParams) -> types.Location | None:
    analysis = ls.analysis(params.text_document)
    found = definition(analysis, ls.convert.offset(analysis, params.position)) if analysis else None
    return ls.convert.location(found) if found else None


@server.feature(types.TEXT_DOCUMENT_REFERENCES)
def on_references(ls: Server, params: types.ReferenceParams) -> list[types.Location]:
    analysis = ls.analysis(params.text_document)
    symbol = symbol_at(analysis, ls.convert.offset(analysis, params.position)) if analysis else None
    if analysis is None or symbol is None:
        return []
    programs = ls.programs.programs(symbol.span.source.name)
    spans = {
        (span.source.name, span.start): span
        for program in (analysis, *programs)
        for span in references(program, symbol, params.context.include_declaration)
    }
    return [ls.convert.location(spans[key]) for key in sorted(spans)]


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
def on_highlight(ls: Server, params: types.DocumentHighlightParams) -> list[types.DocumentHighlight]:
    analysis = ls.analysis(params.text_document)
    spans = highlights(analysis, ls.convert.offset(analysis, params.position)) if analysis else []
    return [types.DocumentHighlight(ls.convert.of(span)) for span in spans]


@server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
def on_prepare_rename(ls: Server, params: types.PrepareRenameParams) -> types.Range | None:
    analysis = ls.analysis(params.text_document)
    if analysis is None:
        return None
    try:
        return ls.convert.of(renamable(analysis, ls.convert.offset(analysis, params.position)))
    except Refused:
        return None


@server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
def on_rename(ls: Server, params: types.RenameParams) -> types.WorkspaceEdit | None:
    analysis = ls.analysis(params.text_document)
    if analysis is None:
        return None
    offset = ls.convert.offset(analysis, params.position)
    symbol = symbol_at(analysis, offset)
    roots = ls.programs.programs(symbol.span.source.name) if symbol is not None else []
    try:
        return ls.convert.edits(rename(roots, analysis, offset, params.new_name))
    except Refused as refused:
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Error, str(refused)))
        return None


@server.feature(types.TEXT_DOCUMENT_FORMATTING)
def on_formatting(ls: Server, params: types.DocumentFormattingParams) -> list[types.TextEdit]:
    analysis = ls.analysis(params.text_document)
    text = format_source(analysis.source, Reporter()) if analysis else None
    return ls.convert.whole(analysis, text) if analysis and text is not None else []


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
def on_symbols(ls: Server, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
    analysis = ls.analysis(params.text_document)
    return [ls.convert.outline(each) for each in outline(analysis)] if analysis else []


@server.feature(types.TEXT_DOCUMENT_FOLDING_RANGE)
def on_folding(ls: Server, params: types.FoldingRangeParams) -> list[types.FoldingRange]:
    analysis = ls.analysis(params.text_document)
    ranges = [ls.convert.of(span) for span in folds(analysis)] if analysis else []
    return [types.FoldingRange(each.start.line, max(each.start.line, each.end.line - 1)) for each in ranges]


@server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
def on_inlay_hint(ls: Server, params: types.InlayHintParams) -> list[types.InlayHint]:
    analysis = ls.analysis(params.text_document)
    if analysis is None:
        return []
    start, end = (ls.convert.offset(analysis, at) for at in (params.range.start, params.range.end))
    return ls.convert.hints(analysis, hints(analysis, start, end))


@server.feature(
    types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
)
def on_code_action(ls: Server, params: types.CodeActionParams) -> list[types.CodeAction]:
    analysis = ls.analysis(params.text_document)
    if analysis is None:
        return []
    start, end = (ls.convert.offset(analysis, at) for at in (params.range.start, params.range.end))
    return [ls.convert.fix(analysis, each) for each in fixes(analysis, start, end)]


def serve() -> None:
    """Serve one editor, until it says to exit."""
    gc.freeze()  # what is imported by now stays: collecting it again and again would cost edits milliseconds
    server.start_io()
