"""What is logged of a run, and that no step is there twice or missing, whatever became of the process."""

from __future__ import annotations

import csv
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tdsl.runtime import logs
from tdsl.runtime.logs import Log
from tdsl.runtime.settings import UsageError
from tests.helpers import built
from tests.training_runs import EXAMPLES, PROGRAM, STEPS, Run, finish, logged


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each tag in all event files."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((folder / "tensorboard").glob("events.*")):
        for event in loader.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_a_log_is_cut_at_the_step_that_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "seconds": 50.0}\n{"step": 3, "seconds": 70.0}\n{"st')
    log = Log(tmp_path, 2)
    log.write({"step": 4})
    log.sync()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in found] == [1, 2, 4]
    # Time goes on where it was; that between the two starts does not count.
    assert 50.0 <= found[-1]["seconds"] < 60.0
    assert not (tmp_path / "log.csv").exists()
    assert not (tmp_path / "tensorboard").exists()


def test_a_table_has_a_column_for_each_name(tmp_path: Path) -> None:
    log = Log(tmp_path, 0, csv=True)
    log.write({"step": 10, "loss": 2.5})
    assert [row["loss"] for row in rows(tmp_path)] == ["2.5"]
    log.write({"step": 20, "loss": math.nan, 'val/a "b", c': 1.5})
    log.write({"step": 30, "loss": 0.5})
    found = rows(tmp_path)
    assert list(found[0]) == ["step", "loss", "seconds", 'val/a "b", c']
    assert [row["step"] for row in found] == ["10", "20", "30"]
    assert [row['val/a "b", c'] for row in found] == ["", "1.5", ""]
    assert [row["loss"] for row in found] == ["2.5", "nan", "0.5"]


def test_a_table_asked_for_later_has_what_was_logged_before(tmp_path: Path) -> None:
    Log(tmp_path, 0).write({"step": 1, "loss": 1.0})
    Log(tmp_path, 1, csv=True).write({"step": 2, "loss": 0.5})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [("1", "1.0"), ("2", "0.5")]


def test_events_are_cut_and_keep_their_time(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = Log(tmp_path, 0, tensorboard=True)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step, "note": "no number"})
    Log(tmp_path, 2, tensorboard=True).write({"step": 3, "loss": 9.0, "val/loss": 4.0})
    found = events(tmp_path)
    assert found["loss"] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert found["val/loss"] == [(3, 4.0)]
    assert set(found) == {"loss", "val/loss", "seconds"}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_events_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    logs.check({"logging.tensorboard": False})
    with pytest.raises(UsageError, match="pip install tensorboard"):
        logs.check({"logging.tensorboard": True})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorboard")
    text = PROGRAM.replace("logging { every = 4 }", "logging { every = 4, tensorboard = true, csv = true }")
    folder = tmp_path_factory.mktemp("project")
    write(emit(pipeline.run(built(text, EXAMPLES / "program.model")), Options("digits", root=str(EXAMPLES))), folder)
    return folder


def test_a_run_that_is_killed_and_goes_on_has_every_step_once(project: Path, tmp_path: Path) -> None:
    for reached in (25, 44):
        run = Run(project, tmp_path)
        run.wait_for(reached)
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    finish(project, tmp_path)
    lines = logged(tmp_path)
    # Every fourth step is logged, and every seventh and the last validated.
    steps = [step for step in range(1, STEPS + 1) if step % 4 == 0 or step % 7 == 0 or step == STEPS]
    assert [line["step"] for line in lines] == steps
    table = rows(tmp_path)
    assert [int(row["step"]) for row in table] == steps
    assert [_number(row["val/loss"]) for row in table] == [line.get("val/loss") for line in lines]
    found = events(tmp_path)
    for name in ("loss", "lr", "grad_norm", "val/loss", "val/accuracy"):
        expected = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected])


def _number(text: str) -> Any:
    return float(text) if text else None
