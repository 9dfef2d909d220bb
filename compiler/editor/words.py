"""The words that colouring knows, by what they are: from the tables that the language itself reads."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.editor import builtins, sections_doc
from tdsl.dsl import signatures
from tdsl.dsl.lexer import DECLARATIONS

CONSTANTS = ("true", "false", "none")
OPERATORS = ("and", "or", "not")
MEMBERS = ("param", "buffer", "forward")
SECTION_WORDS = ("field", "transform")


def words() -> Mapping[str, list[str]]:
    """Sorted lists of names; a name that is a keyword only in its place is in its place's list alone."""
    sections = builtins.of_sections()
    called = {name for table in sections.values() for name in table}
    settings = {*sections_doc.DATA, *sections_doc.TRAIN, *sections_doc.EVALUATE}
    settings |= {name.rpartition(".")[2] for name in sections_doc.SECTIONS}
    found = {
        "declarations": set(DECLARATIONS),
        "statements": {*sections_doc.KEYWORDS, "in"} - {*DECLARATIONS, *MEMBERS, *SECTION_WORDS},
        "members": set(MEMBERS),
        "sections": set(SECTION_WORDS),
        "constants": set(CONSTANTS),
        "operators": set(OPERATORS),
        "types": set(sections_doc.DTYPES),
        "kinds": {"str", "fn", "module"},
        "layers": set(builtins.layers()),
        "functions": {*builtins.functions(), *builtins.methods(), *builtins.initializers(), "range"},
        "called": called,
        "settings": settings,
        "facts": set(signatures.FACTS),
    }
    return {name: sorted(each) for name, each in found.items()}
