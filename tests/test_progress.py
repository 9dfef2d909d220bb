"""The view of a run in a terminal, and what is told where there is none."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from tdsl.runtime import progress
from tdsl.runtime.progress import BLOCKS, LETTERS, MOST_VALUES, Course, View, memory
from tdsl.runtime.run import Length
from tdsl.runtime.training import Best, EarlyStopping


def state(folder: Path, step: int = 0, name: str = "digits", best: Best | None = None) -> Any:
    """What a view looks at of a run."""
    job = SimpleNamespace(name=name, out=folder, device=torch.device("cpu"))
    schedule = SimpleNamespace(length=Length(20, 2000, "epoch"))
    return SimpleNamespace(job=job, schedule=schedule, step=step, best=best, early_stopping=None, ended=False)


def console(width: int = 80, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), width=width, height=30, force_terminal=terminal, color_system=None, record=True)


def drawn(view: View) -> list[str]:
    """The lines of a picture."""
    page = Console(file=io.StringIO(), width=view.console.width, force_terminal=True, color_system=None)
    page.print(view.picture())
    text = page.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


LINE: dict[str, Any] = {
    "step": 1240, "epoch": 62.0, "loss": 0.21434, "lr": 3e-4, "grad_norm": 1.5, "rows_per_second": 12431.2,
}  # fmt: skip


def full(folder: Path, width: int = 80) -> View:
    """A view of a run that has come a long way."""
    run = state(folder, 1200, best=Best("val/loss", "min", 0.2501, 1100))
    view = View(run, console(width))
    for step in range(0, 1240, 10):
        view.show({**LINE, "step": step, "loss": 2.5 * 0.99**step + 0.2})
    run.step = 1240
    view.tell({"train/loss": 0.22, "val/loss": 0.2511, "val/accuracy": 0.93125})
    view.show(LINE)
    return view


def test_a_picture_tells_how_the_run_is(tmp_path: Path) -> None:
    bar, loss, steps, epochs, validation, best = drawn(full(tmp_path))
    assert bar.startswith("digits  ━")
    assert "62%" in bar
    assert bar.endswith("left")
    assert loss.split()[:2] == ["loss", "0.2143"]
    assert loss.split()[2].startswith(BLOCKS[-1])
    assert loss.endswith(BLOCKS[0])
    assert steps.split() == ["step", "1,240/2,000", "rate", "3.000e-04", "rows/s", "12,431"]
    assert epochs.split()[:5] == ["epoch", "62.00", "gradient", "1.5000", "memory"]
    assert validation.split() == ["validation", "step", "1,240", "loss", "0.2511", "accuracy", "0.9313"]
    assert best.split() == ["best", "step", "1,100", "val/loss", "0.2501"]


def test_the_best_validation_is_marked(tmp_path: Path) -> None:
    view = full(tmp_path)
    view.state.best.step = 1240
    assert drawn(view)[4].endswith("★")
    view.state.early_stopping = EarlyStopping(Best("val/accuracy", "max", 0.95, 800), 5)
    view.state.best = None
    assert drawn(view)[5].split() == ["best", "step", "800", "val/accuracy", "0.9500"]
    view.state.early_stopping = None
    assert len(drawn(view)) == 5


@pytest.mark.parametrize(("width", "count"), [(20, 10), (40, 10), (60, 7), (68, 7), (69, 6), (80, 6), (200, 6)])
def test_a_picture_fits(width: int, count: int, tmp_path: Path) -> None:
    view = full(tmp_path, width)
    view.state.job.name = "a_run_with_a_name_that_is_longer_than_any_terminal_is_wide"
    view.tell({f"val/a_metric_with_a_long_name_{number}": number / 7 for number in range(30)})
    lines = drawn(view)
    assert len(lines) == count
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [28, 40, 49, 60, 69, 80])
def test_no_number_is_cut_short(width: int, tmp_path: Path) -> None:
    words = " ".join(drawn(full(tmp_path, width))).split()
    assert {"loss", "0.2143", "step", "1,240/2,000", "rate", "3.000e-04", "rows/s", "12,431", "epoch", "62.00"} <= {
        *words
    }
    assert {"gradient", "1.5000", "memory", "validation", "0.2511", "best"} <= {*words}


def test_a_picture_before_anything_is_known(tmp_path: Path) -> None:
    lines = drawn(View(state(tmp_path), console()))
    assert len(lines) == 4
    assert lines[2].split() == ["step", "0/2,000", "rate", "rows/s"]


def test_a_run_that_has_ended_tells_how_long_it_took(tmp_path: Path) -> None:
    run = state(tmp_path, 1999)
    view = View(run, console())
    run.step = 2000
    assert drawn(view)[0].endswith("in 0:00")


def test_a_picture_after_a_resumption_has_what_was_logged_before(tmp_path: Path) -> None:
    lines = [{**LINE, "step": step, "loss": 5.0 - step} for step in (1, 2)]
    lines[1] |= {"train/loss": 4.0, "val/loss": 3.5}
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3, "lo')
    view = View(state(tmp_path, 2), console())
    assert view.losses.values == [4.0, 3.0]
    assert drawn(view)[4].split() == ["validation", "step", "2", "loss", "3.5000"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_picture_of_a_run_that_went_wrong(value: float, tmp_path: Path) -> None:
    view = full(tmp_path)
    view.show({**LINE, "loss": value, "grad_norm": value})
    view.tell({"val/loss": value})
    lines = drawn(view)
    assert lines[1].split()[1] == lines[3].split()[3] == str(value)


def test_names_are_no_markup(tmp_path: Path) -> None:
    view = full(tmp_path)
    view.state.job.name = "[red]x[/]"
    view.tell({"val/[bold]b[/]": 1.0})
    assert drawn(view)[0].startswith("[red]x[/]")
    assert "[bold]b[/] 1.0000" in drawn(view)[4]


def test_elsewhere_each_validation_is_a_line(tmp_path: Path) -> None:
    view = View(state(tmp_path, best=Best("val/loss", "min", 0.25, 7)), console(40, terminal=False))
    for step, value in ((7, 0.25), (14, 0.5)):
        view.state.step = step
        view.advance()
        view.show({**LINE, "step": step})
        view.tell({"train/loss": 0.123456, "val/loss": value, "val/[a]": 1.0})
    lines = view.console.export_text().splitlines()
    assert lines == [
        "step      7  train/loss 0.1235  val/loss 0.25  val/[a] 1  (best)",
        "step     14  train/loss 0.1235  val/loss 0.5  val/[a] 1",
    ]


@pytest.mark.parametrize(
    ("stopping", "unit", "told"),
    [
        (Best("val/loss", "min", 0.123, 140), "epoch", "has not improved for 5 epochs; best 0.1230 at epoch 7"),
        (Best("val/loss", "min", 0.123, 220), "epoch", "has not improved for 1 epoch; best 0.1230 at epoch 11"),
        (Best("val/loss", "min", 0.123, 140), "step", "has not improved for 100 steps; best 0.1230 at step 140"),
        (Best("val/loss", "min"), "epoch", "has never been a number"),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_that_stops_early_says_why(
    stopping: Best, unit: str, told: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, page = state(tmp_path, 240), console(terminal=terminal)
    run.schedule.length = Length(20, 2000, unit)
    run.early_stopping = EarlyStopping(stopping, 5)
    monkeypatch.setattr(progress, "Console", lambda **_: page)
    with progress.bar(run):
        pass
    assert "stopped early" not in page.export_text()
    with progress.bar(run):
        run.ended = True
    assert page.export_text().splitlines()[-1].strip() == f"stopped early: val/loss {told}"


def test_the_least_that_counts_is_told_with_the_reason() -> None:
    stopping = EarlyStopping(Best("val/accuracy", "max", 0.5, 20), 2, min_delta=0.01)
    told = "val/accuracy has not improved by more than 0.01 for 2 epochs; best 0.5000 at epoch 1"
    assert stopping.reason(60, Length(20, 2000, "epoch")) == told


def test_pictures_are_made_from_time_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    view, made = View(state(tmp_path), console()), []
    monkeypatch.setattr(view, "refresh", lambda: made.append(view.state.step))
    for _ in range(100):
        view.state.step += 1
        now += 0.0101
        view.advance()
    assert made == [1, 26, 51, 76]


def test_the_time_left_follows_the_steps_after_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    view = View(state(tmp_path, 1000), console())
    for seconds in (60.0, 0.5, 0.5):
        view.state.step += 1
        now += seconds
        view.advance()
    assert drawn(view)[0].endswith(f"{997 // 2 // 60}:{round(498.5) % 60:02} left")


def test_a_course_is_halved_as_it_grows() -> None:
    course = Course()
    for value in range(4 * MOST_VALUES):
        course.add(float(value))
    assert len(course.values) < MOST_VALUES
    assert course.values[0] == pytest.approx(3.5)
    assert sum(course.values) / len(course.values) == pytest.approx((4 * MOST_VALUES - 1) / 2, rel=1e-2)


@pytest.mark.parametrize(
    ("values", "width", "text"),
    [
        ([], 5, ""),
        ([3.0], 5, "▁"),
        ([2.0, 2.0], 5, "▁▁"),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8, BLOCKS[::-1]),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 2, "█▁"),
        # A thousandth of the first value is drawn by the number of its digits.
        ([1000.0, 31.6, 1.0], 5, "█▄▁"),
        ([1.0, math.nan, 2.0, math.inf], 5, "▁█"),
        ([-5.0, 5.0], 5, "▁█"),
        ([1.0, 2.0], 0, ""),
    ],
)
def test_the_course_in_characters(values: list[float], width: int, text: str) -> None:
    course = Course()
    course.values = values
    assert course.spark(width) == text
    assert course.spark(width, LETTERS) == text.translate(str.maketrans(BLOCKS, LETTERS))


def test_the_memory_of_a_process_grows_with_what_it_holds() -> None:
    before = memory(torch.device("cpu"))
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert memory(torch.device("cpu")) - before > 0.8 * held.nbytes
