from __future__ import annotations

from pathlib import Path
from unittest import mock

from tdsl.runtime import sources
from tests.test_predict import ran, story


def test_an_argument_left_to_its_default_is_the_same_one() -> None:
    calls = []

    @sources.once
    def add(a: int = 1, b: int = 2) -> int:
        calls.append((a, b))
        return a + b

    assert [add(), add(1), add(1, 2), add(b=2), add(b=2, a=1), add(2, 1), add(2, b=1)] == [3] * 7
    assert calls == [(1, 2), (2, 1)]


def test_a_run_reads_its_data_once(tmp_path: Path) -> None:
    """Training, validation, the checkpoint's vocabulary and the report ask for them in several ways."""
    project = story(tmp_path)
    with (
        mock.patch.object(sources, "text", wraps=sources.text) as text,
        mock.patch.object(sources, "characters", wraps=sources.characters) as characters,
    ):
        assert ran(project, "train.py") == 0
    assert (text.call_count, characters.call_count) == (1, 1)
