"""Colours: the Pygments lexer on every program, and the grammar of editors, which is generated from the same words."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name, Number, String, Text

from tdsl.compiler.editor.pygments_lexer import TdslLexer
from tdsl.compiler.editor.words import words
from tests.editor import PROGRAMS, program, text_of
from tests.helpers import ROOT

EXTENSION = ROOT / "editors" / "vscode"
TEXTS = [*map(text_of, PROGRAMS), *(text_of(path) for path in sorted((ROOT / "tests").rglob("*.model"))), program()]


def kinds(text: str) -> dict[str, object]:
    """The last token type of each token text."""
    return {value: kind for kind, value in TdslLexer().get_tokens(text)}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_tokens_join_back_to_the_text(text: str) -> None:
    lexer = TdslLexer(stripnl=False, ensurenl=False)
    tokens = list(lexer.get_tokens(text))
    assert "".join(value for _, value in tokens) == text.replace("\r\n", "\n").replace("\r", "\n")
    assert [value for kind, value in tokens if kind is Error] == []


def test_any_text_is_coloured() -> None:
    rng = random.Random(0)
    lexer = TdslLexer(stripnl=False, ensurenl=False)
    for _ in range(200):
        text = "".join(rng.choices('abz AZ_09."\\\n#(){}[]|>=+-*/é𝟙\0', k=rng.randrange(60)))
        assert "".join(value for _, value in lexer.get_tokens(text)) == text


def test_programs_hold_no_plain_text() -> None:
    for path in PROGRAMS:
        assert [value for kind, value in TdslLexer().get_tokens(text_of(path)) if kind is Text] == [], path


def test_words_are_coloured_by_what_they_are() -> None:
    found = kinds(program(RUN="scheduler = StepLR(step_size=3)"))
    for word, kind in {
        "module": Keyword.Declaration,
        "Net": Name.Function,
        "twice": Name.Function,
        "param": Keyword.Declaration,
        "Linear": Name.Builtin,
        "AdamW": Name.Builtin,
        "StepLR": Name.Builtin,
        "float": Keyword.Type,
        "return": Keyword,
        "cross_entropy": Name.Builtin,
        "pixels": Name.Attribute,
        "1e-3": Number,
        '"data/digits.csv"': String.Double,
        "# Twice its input.": Comment.Single,
        "epochs": Name,
    }.items():
        assert found[word] is kind, (word, found[word])


def test_a_setting_is_no_keyword() -> None:
    tokens = list(TdslLexer().get_tokens(program()))
    assert [kind for kind, value in tokens if value == "data"] == [Keyword.Declaration, Name]


# The grammar for editors ---------------------------------------------------------------------------------------------


def test_the_grammar_is_the_one_that_is_generated() -> None:
    """`python editors/generate.py` writes it anew."""
    from tdsl.compiler.editor.textmate import grammar_text

    assert text_of(EXTENSION / "syntaxes" / "tdsl.tmLanguage.json") == grammar_text()


def test_the_grammar_knows_every_word() -> None:
    text = text_of(EXTENSION / "syntaxes" / "tdsl.tmLanguage.json")
    for group in ("layers", "functions", "called"):
        for word in words()[group]:
            assert word in text


def test_the_extension_names_what_there_is() -> None:
    package = json.loads(text_of(EXTENSION / "package.json"))
    contributes = package["contributes"]
    for language in contributes["languages"]:
        assert (EXTENSION / language["configuration"]).is_file()
        assert ".model" in language["extensions"]
    for grammar in contributes["grammars"]:
        found = json.loads(text_of(EXTENSION / grammar["path"]))
        assert found["scopeName"] == grammar["scopeName"]
    assert (EXTENSION / package["main"]).is_file()
    json.loads(text_of(EXTENSION / "language-configuration.json"))


def modules() -> Path | None:
    """Where `vscode-textmate` is: `npm install` in editors/vscode, or a folder that the environment names."""
    for folder in (EXTENSION / "node_modules", Path(os.environ.get("TDSL_NODE_MODULES", "/nowhere"))):
        if (folder / "vscode-textmate").is_dir() and (folder / "vscode-oniguruma").is_dir():
            return folder
    return None


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(modules() is None, reason="vscode-textmate is not installed")
def test_the_grammar_colours_programs() -> None:
    """With the engine that Visual Studio Code has."""
    folder = modules()
    env = {**os.environ, "NODE_PATH": str(folder)}
    files = [str(path) for path in PROGRAMS]
    command = ["node", str(EXTENSION / "tokens.js"), *files]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    found = {(word, scope) for each in json.loads(ran.stdout) for word, scope in each}
    for word, scope in {
        "module": "storage.type.tdsl",
        "RMSNorm": "entity.name.type.tdsl",
        "Linear": "support.class.tdsl",
        "forward": "storage.type.tdsl",
        "return": "keyword.control.tdsl",
        "cross_entropy": "support.function.tdsl",
        "AdamW": "support.class.tdsl",
        "batch_size": "variable.other.property.tdsl",
        "true": "constant.language.tdsl",
        "|>": "keyword.operator.pipe.tdsl",
        "float": "support.type.tdsl",
    }.items():
        assert (word, scope) in found, (word, [each for each in found if each[0] == word])
