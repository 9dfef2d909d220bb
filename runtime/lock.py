"""The lock of a run's folder, in which one process trains at a time: a file `.lock`, which tells the process, too.

The lock is the process's, and ends with it however it ends, so that what is left of the file stands in nobody's way.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

LOCK = ".lock"


def take(folder: Path, until: ExitStack) -> str | None:
    """Lock a folder until that closes; which process has it, where another does.

    Where the system or the file system has no locks nothing is locked.
    """
    if find_spec("fcntl") is None:  # Windows
        return None
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    until.callback(os.close, file)
    try:
        # Not `flock`, whose lock forked processes share: workers outlive a run that is killed for some seconds, and
        # would keep it. This one ends where the process closes the file, however often opened: only here it is.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return _told(file) if error.errno in (errno.EACCES, errno.EAGAIN) else None
    with suppress(OSError):  # a full disk is told of by what needs it
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    return None


def _told(file: int) -> str:
    """Which process has the lock, as that has written it."""
    number, _, host = os.pread(file, 1000, 0).decode("utf-8", "replace").strip().partition(" ")
    if not number:
        return "another process"
    return f"process {number}" if host == socket.gethostname() else f"process {number} on {host}"
