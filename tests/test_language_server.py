"""The language server as a process, spoken to as an editor does."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.editor import program
from tests.helpers import ROOT
from tests.lsp_client import Client

pytestmark = pytest.mark.skipif(importlib.util.find_spec("pygls") is None, reason="pygls is not installed")

NAME = "program.model"
LINES = {"BODY": "hidden = h.flatten(1)"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    found = Client(ROOT / "examples")
    found.open(NAME, program(**LINES))
    yield found
    found.kill()


@pytest.fixture
def text(client: Client) -> str:
    """The program as it is, whatever a test has made of it before."""
    client.change(NAME, program(**LINES))
    return program(**LINES)


def document(client: Client, name: str = NAME) -> dict[str, Any]:
    return {"textDocument": {"uri": client.uri(name)}}


def everywhere(text: str) -> dict[str, Any]:
    end = {"line": text.count("\n"), "character": 0}
    return {"range": {"start": {"line": 0, "character": 0}, "end": end}}


def test_it_says_what_it_can(client: Client) -> None:
    found = client.initialized["capabilities"]
    assert client.initialized["serverInfo"]["name"] == "tdsl"
    for name in ("hover", "completion", "signatureHelp", "definition", "references", "documentSymbol", "rename",
                 "documentFormatting", "inlayHint", "codeAction", "documentHighlight", "foldingRange"):  # fmt: skip
        assert found[f"{name}Provider"], name


def test_an_edit_is_answered_with_its_mistakes(client: Client, text: str) -> None:
    (found,) = client.change(NAME, text.replace("cross_entropy", "cros_entropy"))
    assert found["code"] == "E110"
    assert found["severity"] == 1
    assert "did you mean `cross_entropy`?" in found["message"]
    line = text[: text.index("cross_entropy")].count("\n")
    assert found["range"]["start"] == {"line": line, "character": 15}
    assert found["range"]["end"] == {"line": line, "character": 15 + len("cros_entropy")}
    assert [each for each in client.change(NAME, text) if each["severity"] == 1] == []


def test_hover(client: Client, text: str) -> None:
    found = client.at("hover", NAME, text, "hidden =")
    assert "hidden: float[B, dim]" in found["contents"]["value"]


def test_completion_while_a_line_is_typed(client: Client, text: str) -> None:
    typed = text.replace("h.flatten(1)", "h.")
    client.change(NAME, typed)
    found = client.at("completion", NAME, typed, "hidden = h.", after=True)
    items = {item["label"]: item for item in found["items"]}
    assert {"reshape", "mean"} <= set(items)
    place = items["reshape"]["textEdit"]["range"]
    assert place["start"] == place["end"]


def test_signature_help(client: Client, text: str) -> None:
    found = client.at("signatureHelp", NAME, text, "cross_entropy(scores, ", after=True)
    assert found["activeParameter"] == 1
    (signature,) = found["signatures"]
    start, end = signature["parameters"][1]["label"]
    assert signature["label"][start:end] == "target: tensor"


def test_definition_counts_columns_as_the_protocol_does(client: Client, text: str) -> None:
    """The comment before it has a character of two UTF-16 units."""
    typed = text.replace("h = act(up(x)) * scale  # höher 𝟙\n", 'h = act(up(x)) # "𝟙"\n').replace(
        'csv("data', 'csv("𝟙/data'
    )
    typed = typed.replace("field label:", 'field label:  int[] = column("𝟙") + column("label")\n    field other:')
    client.change(NAME, typed)
    found = client.at("definition", NAME, typed, "scores.std")
    line = typed[: typed.index("scores = model")].count("\n")
    assert found["range"] == {"start": {"line": line, "character": 8}, "end": {"line": line, "character": 14}}
    found = client.at("hover", NAME, typed, 'column("label")\n    field other')
    assert found["range"]["start"]["character"] - len('    field label:  int[] = column("𝟙") + ') == 1


def test_references_and_highlights(client: Client, text: str) -> None:
    found = client.at("references", NAME, text, "pixels: float", context={"includeDeclaration": True})
    assert len(found) == 3
    assert len(client.at("documentHighlight", NAME, text, "pixels: float")) == 3


def test_rename(client: Client, text: str) -> None:
    assert client.at("prepareRename", NAME, text, "Linear(_") is None
    found = client.at("rename", NAME, text, "pixels: float", newName="image")
    (edits,) = found["changes"].values()
    assert [edit["newText"] for edit in edits] == ["image"] * 3
    client.notified.clear()
    assert client.at("rename", NAME, text, "pixels: float", newName="label") is None
    (message,) = [each["params"]["message"] for each in client.notified if each["method"] == "window/showMessage"]
    assert "label" in message


def test_formatting_changes_what_differs(client: Client, text: str) -> None:
    options = {"options": {"tabSize": 4, "insertSpaces": True}}
    untidy = text.replace("x + x", "x+x")
    client.change(NAME, untidy)
    found = client.request("textDocument/formatting", {**document(client), **options})
    assert any("    return x + x\n" in edit["newText"] for edit in found)
    client.change(NAME, text + "module {")
    assert client.request("textDocument/formatting", {**document(client), **options}) == []


def test_inlay_hints(client: Client, text: str) -> None:
    found = client.request("textDocument/inlayHint", {**document(client), **everywhere(text)})
    labels = [hint["label"] for hint in found]
    assert ": float[B, dim]" in labels
    assert ": float[B, 10]" in labels


def test_symbols_and_folds(client: Client, text: str) -> None:
    found = client.request("textDocument/documentSymbol", document(client))
    assert [each["name"] for each in found] == ["WIDTH", "twice", "Net", "Digits", "digits", "digits"]
    folds = client.request("textDocument/foldingRange", document(client))
    assert all(fold["startLine"] <= fold["endLine"] for fold in folds)


def test_quick_fix(client: Client, text: str) -> None:
    typed = text.replace("AdamW(", "Adamw(")
    client.change(NAME, typed)
    params = {**document(client), **everywhere(typed), "context": {"diagnostics": []}}
    (found,) = client.request("textDocument/codeAction", params)
    ((edit,),) = found["edit"]["changes"].values()
    assert edit["newText"] == "AdamW"


def test_imported_files_are_read_as_they_stand_in_the_editor(tmp_path: Path) -> None:
    (tmp_path / "part.model").write_text("const SIZE = 3\n", encoding="utf-8")
    client = Client(tmp_path)
    try:
        main = 'import "part.model"\nconst TWICE = 2 * SIZE\n'
        assert client.open("main.model", main) == []
        client.open("part.model", "const LENGTH = 3\n")
        assert [each["code"] for each in client.diagnostics("main.model")] == ["E110"]
        client.change("part.model", "const SIZE = = 3\n")
        broken = client.diagnostics("main.model")
        assert broken
        assert "part.model" in broken[0]["message"]
        assert broken[0]["range"]["start"] == {"line": 0, "character": 7}
        client.change("part.model", "const SIZE = 4\n")
        assert client.diagnostics("main.model") == []
        found = client.at("rename", "part.model", "const SIZE = 4\n", "SIZE", newName="EXTENT")
        assert sorted(Path(uri).name for uri in found["changes"]) == ["main.model", "part.model"]
        assert client.stop() == 0
    finally:
        client.kill()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-32"])
def test_other_units_are_agreed_on(tmp_path: Path, encoding: str) -> None:
    client = Client(tmp_path, general={"positionEncodings": [encoding]})
    try:
        assert client.initialized["capabilities"]["positionEncoding"] == encoding
        text = 'const TEXT = "é𝟙" + SIZE\n'
        (found,) = client.open("main.model", text)
        before = text[: text.index("SIZE")]
        units = len(before.encode(encoding + "-le" if encoding == "utf-32" else encoding))
        assert found["range"]["start"]["character"] == units // (4 if encoding == "utf-32" else 1)
    finally:
        client.kill()


def test_it_lives_on_after_nonsense(tmp_path: Path) -> None:
    client = Client(tmp_path)
    try:
        for text in ("", "}", "\0", "module", 'import "main.model"', "(" * 500, "é" * 1000, 'data D { source = csv("'):
            client.open("main.model", text)
            place = {"line": 0, "character": 10_000}
            for method in ("hover", "completion", "definition", "signatureHelp"):
                params = {**document(client, "main.model"), "position": place}
                client.request(f"textDocument/{method}", params)
            client.request("textDocument/documentSymbol", document(client, "main.model"))
        client.notify("textDocument/didOpen", {"nothing": "right"})
        assert client.open("main.model", "const A = 1\n") == []
        assert json.dumps(client.at("hover", "main.model", "const A = 1\n", "A")).count("const A = 1")
        assert client.stop() == 0
    finally:
        client.kill()


def test_fast_typing_is_answered_for_what_is_there_at_last(client: Client, text: str) -> None:
    """Not each text in between need be checked, but the last one is, and a question is about the newest."""
    for length in range(1, 8):
        part = text.replace("h.flatten(1)", "h.flatten(1)"[:length])
        params = {"textDocument": {"uri": client.uri(NAME), "version": length}, "contentChanges": [{"text": part}]}
        client.notify("textDocument/didChange", params)
    found = client.at("completion", NAME, part, "hidden = h.flatt", after=True)
    assert "flatten" in {item["label"] for item in found["items"]}

    params["contentChanges"] = [{"text": text}]
    client.notify("textDocument/didChange", params)
    while any(each["severity"] == 1 for each in client.diagnostics(NAME)):
        pass
