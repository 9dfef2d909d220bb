"""Colours for programs in documents: a lexer for Pygments, by the name `tdsl`."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, include
from pygments.lexer import words as any_of
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    Whitespace,
)

from tdsl.compiler.editor.words import words

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_WORDS = words()


def _only(group: str, before: str = r"\b", after: str = r"\b") -> any_of:
    """The words of a group, whole."""
    return any_of(tuple(_WORDS[group]), prefix=before, suffix=after)


class TdslLexer(RegexLexer):  # type: ignore[misc]
    """Words are keywords where they can be ones: `data` begins a declaration, and is a setting's name elsewhere."""

    name = "tdsl"
    url = ""
    aliases: ClassVar[list[str]] = ["tdsl", "model"]
    filenames: ClassVar[list[str]] = ["*.model"]
    mimetypes: ClassVar[list[str]] = ["text/x-tdsl"]

    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (
                rf"^(extern)([ \t]+)(module)([ \t]+)({_NAME})",
                bygroups(Keyword.Declaration, Whitespace, Keyword.Declaration, Whitespace, Name.Class),
            ),
            (rf"^(module|data)([ \t]+)({_NAME})", bygroups(Keyword.Declaration, Whitespace, Name.Class)),
            (rf"^(fn)([ \t]+)({_NAME})", bygroups(Keyword.Declaration, Whitespace, Name.Function)),
            (rf"^(const)([ \t]+)({_NAME})", bygroups(Keyword.Declaration, Whitespace, Name.Constant)),
            (rf"^(train|evaluate)([ \t]+)({_NAME})", bygroups(Keyword.Declaration, Whitespace, Name.Namespace)),
            (r"^(import)\b", Keyword.Namespace),
            (
                rf"^([ \t]+)(param|buffer|field|track)([ \t]+)({_NAME})",
                bygroups(Whitespace, Keyword.Declaration, Whitespace, Name.Variable),
            ),
            (r"^([ \t]+)(forward)(?=[ \t]*\()", bygroups(Whitespace, Keyword.Declaration)),
            (
                rf"^([ \t]+)(transform)([ \t]+)(train|val|test)?([ \t]*)({_NAME})",
                bygroups(Whitespace, Keyword.Declaration, Whitespace, Keyword.Type, Whitespace, Name.Variable),
            ),
            (r"^([ \t]+)(assume|no_grad)\b", bygroups(Whitespace, Keyword)),
            (r"\n", Whitespace),
            (r"[ \t\r]+", Whitespace),
            (r"#[^\n]*", Comment.Single),
            include("expression"),
        ],
        "expression": [
            (r'"(?:[^"\\\n]|\\.)*"?', String.Double),
            (r"[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][-+]?[0-9_]+)?", Number),
            (r"\b(return|for|in|if|else)\b", Keyword),
            (r"\b(and|or|not)\b", Operator.Word),
            (r"\b(true|false|none)\b", Keyword.Constant),
            (rf"(?<=\.)({_NAME})(?=\()", Name.Function),
            (rf"(?<=\.)({_NAME})", Name.Attribute),
            (_only("types", after=r"(?=\[)"), Keyword.Type),
            (_only("layers", after=r"(?=[ \t]*\()"), Name.Builtin),
            (_only("called", after=r"(?=[ \t]*\()"), Name.Builtin),
            (_only("functions", after=r"(?=[ \t]*\()"), Name.Builtin),
            (rf"({_NAME})(?=[ \t]*\()", Name.Function),
            (_only("types"), Keyword.Type),
            (_NAME, Name),
            (r"\|>|->|\*\*|//|\.\.\.|[=!<>]=|[-+*/%@<>=]", Operator),
            (r"[(){}\[\],.:]", Punctuation),
            (r".", Text),
        ],
    }
