"""A share of what `python -m tests.resumes` runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.resumes import STRATEGIES, Resumes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_runs_that_are_stopped_at_random_are_the_run_that_was_not(strategy: str, tmp_path: Path) -> None:
    resumes, draw = Resumes(strategy, tmp_path), random.Random(1)
    assert sum(resumes.check(number, draw) for number in range(2)) > 0
