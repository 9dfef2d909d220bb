"""Training runs of several processes, started as `torchrun` starts them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from tdsl.compiler import pipeline
from tdsl.compiler.emit.project import Options, emit, write
from tests.helpers import built
from tests.training_runs import EXAMPLES, FORKS, logged

# Seconds that a run may take, and that are left to a process that is asked to end.
MOST, GRACE = 300, 10


def project_of(text: str, folder: Path, name: str = "digits") -> Path:
    """The emitted program, in this folder."""
    write(emit(pipeline.run(built(text, EXAMPLES / "program.model")), Options(name, root=str(EXAMPLES))), folder)
    return folder


def script(path: Path, told: Path, options: Sequence[str], environment: dict[str, str]) -> None:
    """In a child: run an emitted script as one rank."""
    with told.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    # Workers are forked from this process, as where it is not forked itself: the default would be as it was.
    multiprocessing.set_start_method("fork", force=True)
    os.environ |= environment
    sys.argv = [path.name, *options]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        # What an interpreter does at its end, and a forked process does not: it would wait for workers.
        atexit._run_exitfuncs()


class Ranks:
    """An emitted script in `count` processes, forked as fresh ones; with `torchrun`'s environment where several."""

    def __init__(self, project: Path, out: Path, *options: str, count: int = 2, name: str = "train.py") -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.told = [out.with_name(f"{out.name}.{rank}.told") for rank in range(count)]
        # The store is not rank 0's, and outlives it: `torchrun` has it in a process of its own.
        self.store: Any = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)}
        shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        given = ["--out", str(out), "--device", "cpu", *options]
        self.processes = []
        for rank, told in enumerate(self.told):
            told.unlink(missing_ok=True)
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = FORKS.Process(target=script, args=(project / name, told, given, own))
            process.start()
            self.processes.append(process)

    def wait(self) -> list[int | None]:
        """The exit statuses, once each process has ended by itself."""
        for process in self.processes:
            process.join(MOST)
        return [process.exitcode for process in self.processes]

    def wait_as_torchrun(self) -> list[int | None]:
        """The exit statuses; once a process has failed, the others are asked to end, and made to."""
        until = time.monotonic() + MOST
        while any(each.is_alive() for each in self.processes) and not self._failed() and time.monotonic() < until:
            time.sleep(0.002)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.signal(number)
            for process in self.processes:
                process.join(GRACE)
        return [process.exitcode for process in self.processes]

    def _failed(self) -> bool:
        return any(process.exitcode for process in self.processes)

    def wait_for(self, step: int) -> None:
        """Until the log has come to a step, or a process has ended."""
        while self.alive() and self._logged() < step:
            time.sleep(0.002)

    def _logged(self) -> int:
        """The last step in the log, which a run that starts over sets aside; -1 where there is none."""
        lines = logged(self.out)
        return int(lines[-1]["step"]) if lines else -1

    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def signal(self, number: signal.Signals, *only: int) -> None:
        """Send a signal to all processes, or to those of some ranks."""
        for rank, process in enumerate(self.processes):
            if process.is_alive() and process.pid is not None and (not only or rank in only):
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(process.pid, number)

    @property
    def text(self) -> str:
        """What all of them said."""
        return "".join(told.read_text(encoding="utf-8") for told in self.told if told.exists())


def finish(project: Path, out: Path, *options: str, count: int = 2, name: str = "train.py") -> str:
    """Run a script to its end; what was said."""
    run = Ranks(project, out, *options, count=count, name=name)
    statuses = run.wait()
    assert statuses == [0] * count, run.text
    return run.text
