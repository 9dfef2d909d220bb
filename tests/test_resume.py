"""A run that is killed anywhere and started again is, bit for bit, the run that was not stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers import ROOT, python
from tests.training_runs import STEPS, Run, assert_same_run, contents, finish, logged, project_in


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emitted program."""
    return project_in(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def whole(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    finish(project, out)
    return out


def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not(
    project: Path, whole: Path, tmp_path: Path
) -> None:
    for reached in (12, 33, 48):
        run = Run(project, tmp_path)
        run.wait_for(reached)
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    finish(project, tmp_path)
    assert_same_run(tmp_path, whole)


def test_runs_that_are_killed_at_random_moments_lose_nothing() -> None:
    ran = python("-m", "tests.kills", "30", "11", cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "30 kills" in ran.stdout


def test_damages_are_noticed() -> None:
    ran = python("-m", "tests.damages", "60", "3", cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert "60 damages" in ran.stdout


def test_workers_may_come_and_go(project: Path, whole: Path, tmp_path: Path) -> None:
    for reached, workers in ((12, 2), (33, 0)):
        run = Run(project, tmp_path, "--set", f"data.workers={workers}")
        run.wait_for(reached)
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    finish(project, tmp_path, "--set", "data.workers=1", "--set", "data.prefetch=3")
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("syncs", [3, 8, 15, 20, 41, 44])
def test_a_run_that_is_killed_while_it_writes(syncs: int, project: Path, whole: Path, tmp_path: Path) -> None:
    assert Run(project, tmp_path, syncs=syncs).wait() == -signal.SIGKILL
    finish(project, tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_writes_a_checkpoint_first(
    number: signal.Signals, project: Path, whole: Path, tmp_path: Path
) -> None:
    run = Run(project, tmp_path)
    run.wait_for(1)
    run.signal(number)
    assert run.wait() == 128 + number
    steps = [int(path.name.removeprefix("step-")) for path in tmp_path.glob("checkpoints/step-*")]
    assert max(steps) >= logged(tmp_path)[-1]["step"]
    told = finish(project, tmp_path)
    assert f"going on from {tmp_path}/checkpoints/step-{max(steps)}" in told
    mine, theirs = contents(tmp_path), contents(whole)
    name = f"checkpoints/step-{STEPS}/model.safetensors"
    assert mine[name] == theirs[name]
    assert logged(tmp_path) == logged(whole)


def test_a_run_goes_on_from_an_earlier_checkpoint_as_it_did(project: Path, whole: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--set", "checkpoint.keep=10")
    finish(project, tmp_path, "--resume", str(tmp_path / "checkpoints" / "step-30"))
    name = f"checkpoints/step-{STEPS}/model.safetensors"
    assert contents(tmp_path)[name] == contents(whole)[name]
    assert logged(tmp_path) == logged(whole)


def test_a_longer_run_goes_on_where_the_shorter_ended(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--steps", "20")
    assert "the run has ended" in finish(project, tmp_path, "--steps", "20")
    assert "step-20" in finish(project, tmp_path, "--steps", "40")
    assert (tmp_path / "checkpoints" / "step-40").is_dir()


def test_a_run_that_starts_anew_sets_the_earlier_one_aside(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--steps", "20")
    finish(project, tmp_path, "--steps", "10", "--resume", "none")
    assert (tmp_path / "checkpoints" / "step-10").is_dir()
    assert not (tmp_path / "checkpoints" / "step-20").exists()
    assert (tmp_path / "previous" / "checkpoints" / "step-20").is_dir()
    assert logged(tmp_path)[-1]["step"] == 10


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (("--set", "batch_sise=3"), 2, "did you mean `batch_size`?"),
        (("--set", "batch_size=0"), 2, "`batch_size` takes an integer of at least 1, not `0`"),
        (("--set", "batch_size=ten"), 2, "`batch_size` takes an integer"),
        (("--set", "batch_size=7"), 2, "does not divide into 2 equal parts"),
        (("--set", "optimizer.lr=-1"), 2, "`optimizer.lr` takes a number of at least 0"),
        (("--set", "optimizer.lr"), 2, "lacks a value"),
        (("--set", "ema=none"), 2, "help: `tdsl train FILE --set ema=none` takes it"),
        (("--epochs", "1", "--steps", "1"), 2, "not both"),
        (("--device", "tpu"), 2, "tpu"),
        (("--resume", "nowhere/step-3"), 1, "`nowhere/step-3` is no checkpoint"),
        (("--set", "optimizer.lr=1e30", "--steps", "9"), 1, "is nan at step"),
    ],
)
def test_wrong_options_are_told_without_a_traceback(
    options: tuple[str, ...], status: int, expected: str, project: Path, tmp_path: Path
) -> None:
    run = Run(project, tmp_path, *options)
    assert run.wait() == status
    assert expected in run.text
    assert "Traceback" not in run.text
    assert not list(tmp_path.glob("checkpoints/step-*"))


def test_other_settings_are_no_way_to_go_on(project: Path, tmp_path: Path) -> None:
    finish(project, tmp_path, "--steps", "10")
    run = Run(project, tmp_path, "--set", "optimizer.lr=1e-3")
    assert run.wait() == 1
    assert "`optimizer.lr` was 0.003, is 0.001" in run.text
