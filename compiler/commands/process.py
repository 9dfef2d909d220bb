"""Processes that commands start, and that end as the command is asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

# What asks a process to end, beside Ctrl-C. Windows has no SIGHUP.
ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def call(command: Sequence[str], env: Mapping[str, str], *, imports: bool = False) -> int:
    """Run a command to its end; its exit status, which is 128 and the number of the signal where one ended it.

    Signals that ask this process to end are passed on, and it waits for what comes of that: a run writes a checkpoint
    first. Raises `KeyboardInterrupt`, once the command has ended, where this process was interrupted. A script that
    `imports` much before it can handle an interrupt begins with SIGINT blocked, and lets it through once it can.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            process.send_signal(number)
        if not started:
            early.append(number)

    with _handled(pass_on), _blocked(imports) as release, subprocess.Popen(command, env=env) as process:
        started.append(process)
        for number in early:
            process.send_signal(number)
        status = _ended(process, release)
    return status if status >= 0 else 128 - status


@contextmanager
def _blocked(asked: bool) -> Iterator[Callable[[], None]]:
    """Where that is asked for, SIGINT is blocked until the function is called that this gives: processes inherit it."""
    if not asked or not hasattr(signal, "pthread_sigmask"):
        yield lambda: None
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield release
    finally:
        release()


def _ended(process: subprocess.Popen[bytes], release: Callable[[], None]) -> int:
    """The status of a process that comes to its end, as also where this one is interrupted."""
    interrupted = False
    while True:
        try:
            release()
            status = process.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
            # A terminal interrupts both, `kill` this one alone. A second interrupt would end a run without its
            # checkpoint, a request to end changes nothing for one that has been interrupted.
            if os.name == "posix":
                process.terminate()
    if interrupted:
        raise KeyboardInterrupt
    return status


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within, signals that ask to end are handled so; those that are ignored, as under `nohup`, are so still."""
    main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in ENDS if main and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
