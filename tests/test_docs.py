"""The documents tell the truth: programs compile, lists are the registries', code is what is emitted, links exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from docs import generate, reference, snippets
from docs.snippets import Snippet
from tdsl.compiler.editor import builtins
from tdsl.compiler.ir import Value
from tdsl.compiler.ops import OPS
from tdsl.dsl import ast
from tdsl.dsl.render import render
from tests.helpers import ROOT, compiled, written
from tests.running import loaded

COURSE = ROOT / "examples" / "course"
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "editors").glob("*/*.md"), *COURSE.rglob("*.md")]
)
# Runs leave the program that made them.
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.model") if "runs" not in p.parts)
PROGRAMS = [each for page in snippets.pages() for each in snippets.snippets(page)]
RIGHT = [each for each in PROGRAMS if not each.code.startswith("E")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of the programs."""
    return snippets.prepared(tmp_path_factory.mktemp("pages"))


# Programs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
def test_a_program_of_the_reference_is_what_it_is_said_to_be(program: Snippet, folder: Path) -> None:
    unit, told = snippets.looked_at(program, folder)
    assert {each.code for each in told} == ({program.code} if program.code else set()), render(told)
    if program in RIGHT:
        assert unit is not None
        assert snippets.emitted(unit)


@pytest.mark.parametrize("program", RIGHT, ids=lambda each: each.name)
def test_the_types_in_comments_are_those_of_the_values(program: Snippet, folder: Path) -> None:
    assert [(line, said) for line, said, is_ in snippets.types(program, folder) if said != is_] == []


@pytest.mark.parametrize("program", [each for each in RIGHT if each.kind in ("", "body")], ids=lambda each: each.name)
def test_modules_of_the_reference_run(program: Snippet, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """With sizes put in, results have the shapes that the signatures promise, in training and evaluation."""
    (tmp_path / "positions").mkdir()
    (tmp_path / "positions" / "sines.py").write_text(SINES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    unit, _ = snippets.looked_at(program, folder)
    assert unit is not None
    space = loaded(written(snippets.emitted(unit), tmp_path))
    for ir in unit.modules:
        made = getattr(space, ir.class_name)
        defaults = {p.name: p.default for p in ir.params}
        if isinstance(ir.source, ast.Module) and not any(p.required for p in ir.params):
            known = {**SIZES, **defaults}
            for mode in (True, False):
                results = made().train(mode)(*(filled(value, known) for value in ir.graph.inputs))
                results = results if isinstance(results, tuple) else (results,)
                assert [list(r.shape) for r in results] == [sizes(v, known) for v in ir.graph.outputs]


SIZES = {"B": 2, "T": 16, "H": 32, "W": 32, "C": 4, "N": 4, "S": 16, "D": 8}
SINES = """
from torch import nn


class Sines(nn.Module):
    def __init__(self, dim, base=1e4):
        super().__init__()

    def forward(self, x):
        return x
"""


def sizes(value: Value, known: Mapping[str, Any]) -> list[int]:
    """The shape with every name put in; `...` is one dimension of 3."""
    return [3 if str(size) == "..." else eval(str(size), {}, dict(known)) for size in value.type.shape]


def filled(value: Value, known: Mapping[str, Any]) -> torch.Tensor:
    """An input of this type."""
    shape = sizes(value, known)
    return torch.randn(shape) if value.type.is_float else torch.zeros(shape, dtype=DTYPES[value.type.dtype])


DTYPES = {"i64": torch.int64, "bool": torch.bool}


def test_wrong_programs_and_comments_are_found(folder: Path) -> None:
    """The tests above can fail."""
    text = "h = x.sum(-1)   # float[B, 64]\ny = h + x"
    wrong = Snippet(Path("page.md"), 1, "body", "", "forward(x: float[B, 64])", f"{text}\n", {}, 0)
    assert [each.code for each in snippets.looked_at(wrong, folder)[1]] == ["E203"]
    assert list(snippets.types(wrong, folder)) == [(3, "float[B, 64]", "float[B]")]


def test_every_block_of_the_language_is_tested() -> None:
    """A block that no pattern finds would be tested by nobody; one without a language has no program in it."""
    for page in snippets.pages():
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^```tdsl", text, re.MULTILINE)) == len(list(snippets.snippets(page))), page.name
        for block in re.findall(
            r"^```\n(.*?)^```$", re.sub(r"^```\w.*?^```$", "", text, flags=re.S | re.M), re.S | re.M
        ):
            assert not re.search(r"\bmodule\b|\bforward\b|->", block), f"{page.name}: {block}"


# What is generated ---------------------------------------------------------------------------------------------------


def test_generated_documents_are_up_to_date() -> None:
    for path, text in generate.generated().items():
        assert text == path.read_text(encoding="utf-8"), f"{path.name}: run `make docs`"


def marks(kind: str) -> Iterator[str]:
    """The names of the places of a kind in the reference."""
    for page in snippets.pages():
        yield from re.findall(rf"<!-- {kind}: (\w+) -->", page.read_text(encoding="utf-8"))


def test_every_list_is_in_the_reference() -> None:
    assert set(marks("names")) == set(reference.names())
    assert set(marks("functions")) >= set(reference.GROUPS) - {"autograd"}
    assert set(marks("layers")) == {*reference.LAYER_GROUPS, "pool", "others"}
    kinds = {"initializers", "sources", "tokenizers", "splits", "transforms", "optimizers", "schedulers", "metrics"}
    kinds |= {"starts"}
    assert set(marks("signatures")) == kinds
    assert set(marks("settings")) == {"data", "train", "sections", "evaluate"}


def test_every_built_in_has_its_place_and_a_sentence() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in snippets.pages())
    found = {**builtins.functions(), **builtins.layers(), **builtins.initializers()}
    found |= {name: each for table in builtins.of_sections().values() for name, each in table.items()}
    assert [name for name in found if not re.search(rf"`{name}[`(]", text)] == []
    assert [name for name, each in {**builtins.functions(), **builtins.layers()}.items() if not each.doc] == []


def test_the_groups_name_what_exists() -> None:
    assert sorted(frozenset().union(*reference.GROUPS.values()) - builtins.functions().keys()) == []
    assert sorted(frozenset().union(*reference.LAYER_GROUPS.values()) - builtins.layers().keys()) == []


# The documents -------------------------------------------------------------------------------------------------------


def test_the_op_of_the_instructions_is_there() -> None:
    (line,) = (block.strip() for block in indented())
    assert line in (ROOT / "compiler" / "ops" / "elementwise.py").read_text(encoding="utf-8")
    assert "tan" in OPS


def indented() -> list[str]:
    """The blocks within list items."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"^   ```python\n(.*?)^   ```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files_exist(document: Path) -> None:
    text = re.sub(
        r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.S | re.M)
    )
    for link, _, anchor in (each.partition("#") for each in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in each):
        target = document.parent / link if link else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"
    files = re.findall(r"`((?:dsl|compiler|runtime|templates|tests|docs|examples)/[\w/]+\.\w+)", document.read_text())
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_rows_of_tables_have_as_many_cells_as_their_heads(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.S | re.M)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z]+)", document.read_text(encoding="utf-8"))) <= targets, document


def test_make_help_lists_every_target() -> None:
    told = subprocess.run(["make", "help"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make (\w+) ", told)) == targets


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda path: path.stem)
def test_examples_compile(program: Path) -> None:
    assert compiled(program.read_text(encoding="utf-8"), name=program).modules
