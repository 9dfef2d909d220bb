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


SEQUENCES = """
data D {{
    source = npz("series.npz")
    field x: float[12, 8] = column("x")
}}
module Inner() {{
    layer = {layer}
    forward(x: float[M, N, 8]) -> float[M, N, 8] {{ return {call} }}
}}
module Net() {{
    inner = Inner()
    forward(x: float[B, T, 8]) -> float[B, T, 8] {{ return {into} }}
}}
train r {{
    model = Net()
    data = D
    loss(batch) {{ return model(batch.x).mean() }}
    optimizer = SGD(lr=0.1)
    epochs = 1
}}
"""
ATTENTION = "layer(x, x, x)[0]"


@pytest.mark.parametrize(
    ("layer", "call", "into", "told"),
    [
        ("LSTM(8, 8)", "layer(x)[0]", "inner(x)", True),
        ("GRU(8, 8)", "layer(x)[0]", "inner(relu(x) * 2)", True),
        ("RNN(8, 8)", "layer(x.flip(1))[0]", "inner(x)", True),
        ("MultiheadAttention(8, 2)", ATTENTION, "inner(x)", True),
        ("LSTM(8, 8)", "layer(x.transpose(0, 1))[0].transpose(0, 1)", "inner(x)", False),
        ("LSTM(8, 8)", "layer(x)[0]", "inner(x.permute(1, 0, 2)).permute(1, 0, 2)", False),
        ("GRU(8, 8)", "layer(x)[0]", 'rearrange(inner(rearrange(x, "b t d -> t b d")), "t b d -> b t d")', False),
        ("GRU(8, 8, batch_first=true)", "layer(x)[0]", "inner(x)", False),
        ("MultiheadAttention(8, 2, batch_first=true)", ATTENTION, "inner(x)", False),
        ("MultiheadAttention(8, 2)", ATTENTION, "inner(x.movedim(0, 1)).movedim(0, 1)", False),
    ],
)
def test_rows_that_are_taken_for_a_sequence(layer: str, call: str, into: str, told: bool, tmp_path: Path) -> None:
    found = warnings(SEQUENCES.format(layer=layer, call=call, into=into), tmp_path, "W209")
    assert len(found) == told
    assert all("`batch_first=true`" in each and "has the rows first" in each for each in found)


def test_a_layer_that_two_models_share_is_told_once(tmp_path: Path) -> None:
    text = SEQUENCES.format(layer="LSTM(8, 8)", call="layer(x)[0]", into="inner(inner(x)) + inner(x + 1)")
    assert len(warnings(text, tmp_path, "W209")) == 1
