"""Lints of data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdsl.compiler.codes import _FLIPPED
from tests.helpers import tdsl


@pytest.mark.parametrize(
    ("written", "splits", "told"),
    [
        ("transform x = [RandomHorizontalFlip()]", "train=0.8, val=0.2", "changes the images of validation, too"),
        ("transform x = [Pad(1), CenterCrop([1, 3]), RandomErasing()]", "train=0.8, test=0.2", "of testing, too"),
        ("transform x = [RandAugment()]", "train=0.8, val=0.1, test=0.1", "of validation and of testing, too"),
        ("transform test x = [RandomHorizontalFlip()]", "train=0.8, test=0.2", "changes the images of testing\n"),
        ("transform x = [RandomHorizontalFlip()]", "train=1.0", None),
        ("transform train x = [RandomHorizontalFlip()]", "train=0.8, val=0.2", None),
        ("transform val x = []\n    transform x = [RandomHorizontalFlip()]", "train=0.8, val=0.2", None),
        ("transform x = [Normalize(mean=[0.5], std=[0.5])]", "train=0.8, val=0.2", None),
    ],
)
def test_what_is_evaluated_is_not_changed_at_random(
    written: str, splits: str, told: str | None, tmp_path: Path
) -> None:
    text = _FLIPPED.replace("transform x = [RandomHorizontalFlip()]", written)
    (tmp_path / "d.model").write_text(text.replace("train=0.8, val=0.2", splits))
    (tmp_path / "points.csv").write_text("x,t,u\n0,1,2\n")
    found = tdsl("check", "d.model", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert ("W402" in found.stderr) == (told is not None), found.stderr
    assert told is None or told in found.stderr
