"""Lints of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdsl.compiler.codes import DATA, run
from tests.helpers import tdsl

ROWS = "x,t\n" + "1,2\n" * 640


def warnings(text: str, folder: Path, code: str) -> list[str]:
    """The messages of a code, with their notes and cures, as `tdsl check` tells them."""
    (folder / "d.model").write_text(text)
    (folder / "points.csv").write_text(ROWS)
    found = tdsl("check", "d.model", cwd=folder)
    assert found.returncode == 0, found.stderr
    return [each for each in found.stderr.split("\n\n") if code in each]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("steps = 500, ema = EMA(decay=0.999)", ("about 1,000 steps, and the run has 500", "EMA(decay=0.98)")),
        ("steps = 3999, ema = EMA()", ("about 1,000 steps, and the run has 3,999", "EMA(decay=0.997)")),
        ("steps = 4001, ema = EMA()", None),
        ("steps = 500, ema = EMA(decay=0.98)", None),
        ("steps = 500, ema = none", None),
        ("steps = 500, ema = EMA(decay=1)", ("never leaves what the run begins with", "EMA(decay=0.98)")),
        ("steps = 10, ema = EMA(decay=0.9)", ("about 10 steps, and the run has 10", "leave it out")),
        ("epochs = 5, ema = EMA(decay=0.99)", ("the run has 100", "5 epochs of 640 rows, 32 at a time")),
        ("epochs = 50, ema = EMA(decay=0.99)", None),
        ("epochs = 5, batch_size = 100, ema = EMA(decay=0.9)", ("about 10 steps, and the run has 35",)),
    ],
)
def test_a_mean_that_reaches_back_too_far(settings: str, told: tuple[str, ...] | None, tmp_path: Path) -> None:
    found = warnings(run(settings.replace(", ", "\n    ")), tmp_path, "W304")
    assert len(found) == (told is not None)
    assert all(each in found[0] for each in told or ())


@pytest.mark.parametrize(
    ("split", "steps"),
    [("random(train=0.5, val=0.5)", 10), ("sequential(train=0.11, test=0.5)", 3), ("random(test=1.0)", None)],
)
def test_the_steps_of_a_part_of_the_rows(split: str, steps: int | None, tmp_path: Path) -> None:
    data = DATA.replace("    field", f"    split = {split}\n    field", 1)
    found = warnings(run("epochs = 1\n    ema = EMA(decay=0.9)", data), tmp_path, "W304")
    assert [f"the run has {steps}" in each for each in found] == [True] * (steps is not None)


def test_of_what_is_not_known_nothing_is_said(tmp_path: Path) -> None:
    absent = DATA.replace("points.csv", "absent.csv")
    assert not warnings(run("epochs = 1\n    ema = EMA()", absent), tmp_path, "W304")


def test_a_last_batch_that_is_left_out_is_no_step(tmp_path: Path) -> None:
    data = DATA.replace("    field", "    drop_last = true\n    field", 1)
    (told,) = warnings(run("epochs = 5\n    batch_size = 100\n    ema = EMA(decay=0.9)", data), tmp_path, "W304")
    assert "the run has 30" in told
