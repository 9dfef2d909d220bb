"""The record of a run, and the report that training writes: of a run that ends, is stopped, and goes on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tdsl.runtime import logs, record, report, timing
from tests.test_report import parsed
from tests.training_runs import Run, finish, project_in


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emitted program."""
    return project_in(tmp_path_factory.mktemp("project"))


def test_a_run_leaves_its_record_and_a_report(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--set", "optimizer.lr=0.01", "--steps", "20")
    found = record.read(tmp_path)
    assert (found["run"], found["step"], found["steps"], found["ended"]) == ("digits", 20, 20, "finished")
    assert found["steps_per_epoch"] == -(-found["data"]["splits"]["train"] // found["settings"]["batch_size"]) > 1
    assert found["settings"]["optimizer.lr"] == 0.01
    assert found["changed"] == {"optimizer.lr": 3e-3, "steps": 60}
    assert (found["optimizer"], found["schedule"]) == ("AdamW", ["LinearLR", "CosineAnnealingLR"])
    assert sum(row["count"] for row in found["parameters"]) == 64 * 32 + 32 + 32 * 10 + 10
    assert [group["count"] for group in found["groups"]] == [64 * 32 + 32 * 10, 42]
    assert found["groups"][1]["arguments"] == {"weight_decay": 0}
    assert found["data"]["files"] == [{"file": "data/digits.csv", "rows": 1797}]
    assert sum(found["data"]["splits"].values()) == 1797
    assert found["data"]["fields"]["pixels"] == {"type": "float[64]", "bytes": 256}
    assert found["seconds"].keys() == {"steps", "data", "validation", "checkpoints"}
    assert sum(found["seconds"].values()) <= list(logs.read(tmp_path / "log.jsonl"))[-1]["seconds"] + 60
    assert found["memory"] > 1e6
    page = parsed((tmp_path / "report.html").read_text())
    assert {"(set for this run; the program says 0.003)", "as planned", "Learning rate"} <= set(page.words)


def test_a_run_that_is_stopped_goes_on_in_its_record(project: Path, tmp_path: Path) -> None:
    run = Run(project, tmp_path)
    run.wait_for(8)
    assert record.read(tmp_path)["ended"] is None
    run.signal(signal.SIGTERM)
    run.wait()
    stopped = record.read(tmp_path)
    assert stopped["ended"] == "stopped"
    assert 0 < stopped["step"] < 60
    finish(project, tmp_path)
    ended = record.read(tmp_path)
    assert (ended["ended"], ended["step"]) == ("finished", 60)
    assert all(ended["seconds"][on] >= seconds for on, seconds in stopped["seconds"].items())


def test_a_record_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    assert record.read(tmp_path) == {}
    (tmp_path / record.RECORD).write_text("{")
    assert record.read(tmp_path) == {}
    (tmp_path / record.RECORD).write_text("[1]")
    assert record.read(tmp_path) == {}
    parsed(report.page(tmp_path, None))


def test_parameters_are_told_once_with_their_modules() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.up, self.down = nn.Linear(3, 4, bias=False), nn.Linear(3, 4)
            self.down.weight = self.up.weight
            self.down.bias.requires_grad_(False)

    found = list(record.parameters("model", Tied()))
    assert [(row["module"], row["kind"], row["name"], row["shape"]) for row in found] == [
        ("", "Tied", "scale", []), ("up", "Linear", "weight", [4, 3]), ("down", "Linear", "bias", [4]),
    ]  # fmt: skip
    assert [row["trains"] for row in found] == [True, True, False]


def test_time_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def items() -> list[int]:
        return [1, 2]

    def slow() -> object:
        for item in items():
            now[0] += 1
            yield item

    timing.start({"steps": 5.0, "data": 2.0})
    for _ in timing.waited("data", slow()):  # type: ignore[arg-type]
        now[0] += 10
    with timing.spent("checkpoints"):
        now[0] += 0.5
    timing.add("validation", 3.0)
    assert timing.summary("steps") == {"steps": 22.0, "data": 4.0, "checkpoints": 0.5, "validation": 3.0}
    json.dumps(timing.summary("steps"))
