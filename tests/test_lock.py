"""One run at a time trains in a folder; a run that is gone, however it went, stands in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tdsl.runtime import checkpoint, lock
from tests.rank_runs import Ranks, finish, project_of
from tests.training_runs import FORKS, PROGRAM, Run, logged, project_in

LONG = ("--steps", "1000000", "--set", "checkpoint.every=1000000")


def test_a_second_run_in_a_folder_ends_with_a_message(tmp_path: Path) -> None:
    project, out = project_in(tmp_path / "project"), tmp_path / "run"
    one = Run(project, out, *LONG)
    one.wait_for(4)
    two = Run(project, out, *LONG, "--resume", "none")
    assert two.wait() == 1
    assert f"error: {out} is in use: process {one.process.pid} trains there\n" in two.text
    assert "`--out`" in two.text
    assert "Traceback" not in two.text
    reached = logged(out)[-1]["step"]
    one.wait_for(reached + 20)
    one.signal(signal.SIGTERM)
    assert one.wait() == 128 + signal.SIGTERM
    steps = [line["step"] for line in logged(out)]
    assert steps == sorted(set(steps))
    newest = checkpoint.listed(out / "checkpoints")[0]
    newest.verify()
    assert newest.step >= steps[-1]
    assert not (out / "previous").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_workers_of_a_run_that_is_killed_keep_no_lock(count: int, tmp_path: Path) -> None:
    """They notice that it is gone some seconds later, and have its descriptors till then."""
    strategy = "ddp()" if count > 1 else "none"
    text = PROGRAM.replace("    steps      =", f"    distributed = {strategy}\n    steps      =")
    project, out = project_of(text, tmp_path / "project"), tmp_path / "run"
    run = Ranks(project, out, *LONG, "--set", "data.workers=2", count=count)
    run.wait_for(4)
    pids = [process.pid for process in run.processes]
    workers = [pid for parent in pids for pid in children(parent)]
    run.signal(signal.SIGSTOP)  # so that none ends for another's sake
    stop(workers)
    run.signal(signal.SIGKILL)
    run.wait()
    try:
        assert len([pid for pid in workers if holds(pid, out / lock.LOCK)]) >= 2
        finish(project, out, "--steps", "8", count=count)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)


def children(parent: int | None) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def stop(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def holds(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    return any(each.readlink() == path for each in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize("count", [1, 2])
def test_processes_of_a_second_run_end_with_one_message(count: int, tmp_path: Path) -> None:
    text = PROGRAM.replace("    steps      =", "    distributed = ddp()\n    steps      =")
    project, out = project_of(text, tmp_path / "project"), tmp_path / "run"
    one = Ranks(project, out, *LONG, count=2)
    one.wait_for(4)
    two = Ranks(project, out, *LONG, count=count)
    assert two.wait() == [1] * count
    assert two.text.count(f"is in use: process {one.processes[0].pid} trains there") == 1
    assert "Traceback" not in two.text
    one.signal(signal.SIGTERM)
    assert one.wait() == [128 + signal.SIGTERM] * 2


def hold(folder: Path) -> None:
    """In a child: have the lock, and be killed."""
    lock.take(folder, ExitStack())
    (folder / "locked").touch()
    signal.pause()


def test_who_has_the_lock_is_told_as_far_as_it_is_known(tmp_path: Path) -> None:
    child = FORKS.Process(target=hold, args=(tmp_path,))
    child.start()
    while not (tmp_path / "locked").exists():
        assert child.is_alive()
    with ExitStack() as until:
        assert lock.take(tmp_path, until) == f"process {child.pid}"
        (tmp_path / lock.LOCK).write_text("7 elsewhere\n")
        assert lock.take(tmp_path, until) == "process 7 on elsewhere"
        (tmp_path / lock.LOCK).write_text("")
        assert lock.take(tmp_path, until) == "another process"
    child.kill()
    child.join()
    with ExitStack() as until:
        assert lock.take(tmp_path, until) is None
        assert (tmp_path / lock.LOCK).read_text().startswith(f"{os.getpid()} ")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_locks_nothing_is_locked(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with ExitStack() as until:
        assert lock.take(tmp_path, until) is None
