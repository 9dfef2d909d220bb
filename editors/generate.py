"""Writes what the code knows of the editors' files: the grammar that colours programs.

python editors/generate.py
"""

from __future__ import annotations

from pathlib import Path

from tdsl.compiler.editor.textmate import grammar_text

GRAMMAR = Path(__file__).resolve().parent / "vscode" / "syntaxes" / "tdsl.tmLanguage.json"

if __name__ == "__main__":
    GRAMMAR.write_text(grammar_text(), encoding="utf-8")
