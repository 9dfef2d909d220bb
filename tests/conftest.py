"""Options of the test run, and what holds for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import MODULES


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is emitted now")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def no_program_is_left_behind() -> Iterator[None]:
    """The next test would import the modules of this one's program instead of its own."""
    before = set(sys.path)
    yield
    assert not sys.modules.keys() & set(MODULES), "use tests.running.importable"
    programs = [p for p in set(sys.path) - before if any(Path(p, f"{name}.py").exists() for name in MODULES)]
    assert not programs, "use tests.running.importable"
