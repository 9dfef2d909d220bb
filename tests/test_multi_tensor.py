"""Optimizers that take a step in one launch, in Triton's interpreter: each check of `tests/one_launch.py`."""

from __future__ import annotations

import json

import pytest

from tests.helpers import ROOT, python
from tests.one_launch import CHECKS


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    ran = python("-m", "tests.one_launch", interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_one_launch(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == ""
