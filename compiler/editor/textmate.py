"""The TextMate grammar that colours programs in editors, made of the words that the language has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tdsl.compiler.editor.words import words

SCOPE = "source.tdsl"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def grammar_text() -> str:
    """The grammar as its file has it."""
    return json.dumps(grammar(), indent=2, ensure_ascii=False) + "\n"


def grammar() -> dict[str, Any]:
    """Patterns in the order in which they are tried: declarations, statements, then expressions."""
    repository = {
        "comment": {"patterns": [_match(r"#.*$", "comment.line.number-sign")]},
        "declaration": {"patterns": _declarations()},
        "statement": {"patterns": _statements()},
        "expression": {"patterns": _expressions()},
        "string": {"patterns": [_string()]},
    }
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "tdsl",
        "scopeName": SCOPE,
        "fileTypes": ["model"],
        "patterns": [{"include": f"#{name}"} for name in ("comment", "declaration", "statement", "expression")],
        "repository": repository,
    }


def _match(pattern: str, *scopes: str) -> dict[str, Any]:
    """A pattern with one scope, or with one for each of its groups."""
    if len(scopes) == 1:
        return {"name": f"{scopes[0]}.tdsl", "match": pattern}
    captures = {str(i): {"name": f"{scope}.tdsl"} for i, scope in enumerate(scopes, start=1) if scope}
    return {"match": pattern, "captures": captures}


def _any(names: Iterable[str]) -> str:
    return f"(?:{'|'.join(names)})"


def _declarations() -> list[dict[str, Any]]:
    found = [
        _match(rf"^(extern)\s+(module)\s+({_NAME})", "storage.modifier", "storage.type", "entity.name.type"),
        _match(rf"^(module|data)\s+({_NAME})", "storage.type", "entity.name.type"),
        _match(rf"^(fn)\s+({_NAME})", "storage.type", "entity.name.function"),
        _match(rf"^(const)\s+({_NAME})", "storage.type", "variable.other.constant"),
        _match(rf"^(train|evaluate)\s+({_NAME})", "storage.type", "entity.name.section"),
    ]
    return [*found, _match(r"^import\b", "keyword.control.import")]


def _statements() -> list[dict[str, Any]]:
    settings = _any(words()["settings"])
    return [
        _match(rf"^\s+(param|buffer|field|track)\s+({_NAME})", "storage.type", "variable.other.definition"),
        _match(
            rf"^\s+(transform)\s+(?:(train|val|test)\s+)?({_NAME})",
            "storage.type",
            "storage.modifier",
            "variable.other.definition",
        ),
        _match(r"^\s+(forward)\s*(?=\()", "storage.type", ""),
        _match(r"(?:^\s+|[{]\s*)(loss|compare|predict)\s*(?=\()", "entity.name.function", ""),
        _match(r"^\s+(assume|no_grad)\b", "keyword.control", ""),
        _match(rf"(?:^\s+|[{{,]\s*)({settings})\s*(?=[{{=](?!=))", "variable.other.property", ""),
        _match(r"^\s+(group)\s*(?=\")", "variable.other.property", ""),
    ]


def _string() -> dict[str, Any]:
    return {
        "name": "string.quoted.double.tdsl",
        "begin": '"',
        "end": r'"|$',
        "patterns": [_match(r'\\["\\nt]', "constant.character.escape"), _match(r"\\.", "invalid.illegal.escape")],
    }


def _expressions() -> list[dict[str, Any]]:
    found = words()
    called = r"(?=\s*\()"
    return [
        {"include": "#string"},
        _match(r"\b[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][-+]?[0-9_]+)?\b", "constant.numeric"),
        _match(r"\b(?:return|for|in|if|else)\b", "keyword.control"),
        _match(r"\b(?:and|or|not)\b", "keyword.operator.logical"),
        _match(r"\b(?:true|false|none)\b", "constant.language"),
        _match(rf"(?<=\.)({_NAME}){called}", "entity.name.function.member", ""),
        _match(rf"(?<=\.){_any(found['facts'])}\b", "support.constant"),
        _match(rf"\b{_any(found['types'])}(?=\s*\[)", "support.type"),
        _match(rf"(?<=:)\s*{_any([*found['types'], *found['kinds']])}\b", "support.type"),
        _match(rf"\b(?<!\.){_any(found['layers'])}\b", "support.class"),
        _match(rf"\b(?<!\.){_any(n for n in found['called'] if n[0].isupper())}\b", "support.class"),
        _match(rf"\b(?<!\.){_any(found['called'])}{called}", "support.function"),
        _match(rf"\b(?<!\.){_any(found['functions'])}{called}", "support.function"),
        _match(rf"(?<=\|>)\s*{_any(found['functions'])}\b", "support.function"),
        _match(rf"\b{_NAME}{called}", "entity.name.function"),
        _match(rf"({_NAME})\s*(?==(?!=))", "variable.parameter", ""),
        _match(r"\|>", "keyword.operator.pipe"),
        _match(r"->", "keyword.operator.arrow"),
        _match(r"\.\.\.", "constant.language.rest"),
        _match(r"\*\*|//|[=!<>]=|[-+*/%@<>=]", "keyword.operator"),
        _match(r"\b[A-Z][A-Z0-9_]*\b", "variable.other.constant"),
    ]
