"""The documents tell the truth: lists are the registries', code is what is emitted, links and commands exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tdsl.compiler.ops import OPS
from tests.helpers import ROOT, compiled

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.model"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_documents_are_up_to_date(generator: ModuleType) -> None:
    for path, text in generator.generated().items():
        assert text == path.read_text(encoding="utf-8"), f"{path.name}: run `make docs`"


def test_every_list_of_names_is_in_the_reference(generator: ModuleType) -> None:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- names: (\w+) -->", text)) == set(generator.names())


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
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    files = re.findall(r"`((?:dsl|compiler|runtime|templates|tests|docs|examples)/[\w/]+\.\w+)", text)
    assert [name for name in files if not (ROOT / name).exists()] == []


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
