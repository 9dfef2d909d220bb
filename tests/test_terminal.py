"""Tables that go into a file have whole names."""

from __future__ import annotations

import pytest

from tdsl.compiler import terminal


@pytest.mark.parametrize(("columns", "width"), [(None, terminal.WIDTH), ("97", 97)])
def test_a_file_is_wider_than_a_small_terminal(
    columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert terminal.console().width == width


def test_names_of_weights_are_not_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "blocks.2.attention.projection.weight"
    terminal.console().print(name + " " + "x" * 90)
    assert f"{name} x" in capsys.readouterr().out
