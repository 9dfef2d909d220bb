"""A share of what `python -m tests.resumes` runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.resumes import WAYS, Resumes, Way


@pytest.mark.parametrize("way", [way for way in WAYS if not way.workers], ids=lambda way: way.name)
def test_runs_that_are_stopped_at_random_are_the_run_that_was_not(way: Way, tmp_path: Path) -> None:
    resumes, draw = Resumes(way, tmp_path), random.Random(1)
    assert resumes.check(0, draw) > 0
