"""`tdsl lsp`: the language server, for editors."""

from __future__ import annotations

from argparse import Namespace

from tdsl.compiler.commands.program import complain


def run(options: Namespace) -> int:
    try:
        from tdsl.compiler.editor.server import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        complain("the language server needs pygls: pip install 'tdsl[editor]'")
        return 2
    serve()
    return 0
