"""A share of PyTorch's own samples (`python -m tests.opinfo` runs them all), and that no operation is without them."""

from __future__ import annotations

import re

import pytest

from tests.helpers import ROOT, SHARED, python
from tests.opinfo import table

pytest.importorskip("expecttest", reason="PyTorch's operator samples need it")
SHARE = 2
LISTS = ("Creation", "Shape", "Arithmetic", "Reductions", "Linear algebra", "Activations", "Losses")


def test_samples_agree_with_pytorch() -> None:
    """In a process of its own, with Triton's interpreter."""
    ran = python("-m", "tests.opinfo", "--most", str(SHARE), "--failures", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_every_name_has_samples_or_a_reason() -> None:
    names = [name for text in table.FAMILIES.values() for name in text.split()]
    assert len(names) == len(set(names))
    assert {name for name in names if not table.entries(name)} == set(table.WITHOUT)


def test_every_entry_named_exists() -> None:
    named = {key for keys in table.ENTRIES.values() for key in keys} | set(table.LEFT_OUT)
    assert named <= set(table.op_db())


@pytest.mark.skipif(not SHARED.exists(), reason="the language's definition is not beside the repository")
@pytest.mark.parametrize("title", LISTS)
def test_every_built_in_function_is_in_the_table(title: str) -> None:
    text = (SHARED / "design" / "LANGUAGE.md").read_text(encoding="utf-8")
    found = re.search(rf"^- \*\*{title}\*\*: `([^`]+)`", text, re.MULTILINE)
    assert found is not None
    built_in = {word for word in found[1].split() if word.isidentifier()}
    assert built_in <= set(table.names())
