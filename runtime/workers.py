"""Processes that read batches ahead, and that end with the process that waits for them."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tdsl.runtime.data_error import DataError
from tdsl.runtime.reader import Failed, Key, Reader, Rows, same

MEMORY = "the system kills processes when memory or /dev/shm runs out: take fewer `workers`, or a lower `prefetch`"


class Workers:
    """`count` processes, each `prefetch` batches ahead; `pin` has what they read in memory that GPUs copy from.

    They begin with the first batch, and stay until the object is gone.
    """

    def __init__(self, reader: Reader, count: int, prefetch: int, *, pin: bool) -> None:
        self.reader = reader
        self.options: dict[str, Any] = {"num_workers": count, "prefetch_factor": prefetch, "pin_memory": pin}
        self.keys: Iterator[Key] = iter(())
        self.sent: deque[int] = deque()
        self.busy = False
        self.loader: Any = None
        self.iterator: Any = None

    def _begun(self) -> Any:
        """PyTorch's loader, once it is there."""
        if self.loader is None:
            # A generator of its own, or its seeds would be drawn from the global stream.
            self.loader = DataLoader(
                Rows(self.reader),  # type: ignore[arg-type]
                batch_size=None,
                sampler=_Sampler(weakref.proxy(self)),
                persistent_workers=True,
                collate_fn=same,
                worker_init_fn=_begin,
                generator=torch.Generator(),
                multiprocessing_context=_context(),
                **self.options,
            )
            atexit.register(_close, weakref.ref(self))
        return self.loader

    def read(self, keys: Iterator[Key]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """For each key the rows of the whole batch, and the fields of this rank's.

        Raises what a worker met with, and `DataError` for one that is gone, within some seconds.
        """
        self.busy, self.keys, self.sent = True, keys, deque()
        try:
            with _quiet():
                self.iterator = iter(self._begun())
            for found in self.iterator:
                if isinstance(found, Failed):
                    raise found.error
                yield self.sent.popleft(), found
        except Exception as error:
            lost = None if isinstance(error, DataError) else self._lost()
            # Now, as the traceback keeps this frame: processes are not to wait until that is collected.
            self.close()
            if lost is not None:
                raise lost from None
            raise
        finally:
            self.busy = False

    def _lost(self) -> DataError | None:
        """What to tell of a worker that has ended while there are batches to be read."""
        for worker in () if self.iterator is None else self.iterator._workers:
            # Its sockets, whose end is what was met with, close a little before it can be waited for.
            worker.join(0.5)
            if not worker.is_alive():
                code = worker.exitcode
                how = f"was killed by a signal ({signal.strsignal(-code)})" if code < 0 else "is gone"
                return DataError(f"{how}: it was reading batches", file=f"worker process {worker.pid}", help=MEMORY)
        return None

    def close(self) -> None:
        """End the processes, and wait until they have."""
        iterator, self.iterator = self.iterator, None
        if iterator is None:
            return
        self.loader = None
        iterator._shutdown_workers()
        for worker in iterator._workers:
            if worker.is_alive():
                worker.kill()
            worker.join()

    def __del__(self) -> None:
        self.close()


def _context() -> str | None:
    """How processes begin: by fork on Linux, also where Python's default is another (3.14), as tables are shared so.

    None, for the default, elsewhere, and where the program that uses this has chosen.
    """
    chosen = multiprocessing.get_start_method(allow_none=True) is not None
    return "fork" if sys.platform == "linux" and not chosen else None


class _Sampler:
    """The keys of whatever is read just now, each noted as it is sent."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def __iter__(self) -> Iterator[Key]:
        for key in self.workers.keys:
            self.workers.sent.append(len(key.rows))
            yield key


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the handler that PyTorch sets for the signal that a worker has ended.

    It raises wherever the process is just then: within the lock of a queue, say, which nobody opens any more, so that
    the process waits for ever instead of ending. A worker that is gone is missed all the same, a few seconds later.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # None stands for what was not set by Python, and can't be set again.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


def _begin(number: int) -> None:
    """Signals are for the process that waits: it ends its workers, and they end when it is gone."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has not all of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _close(workers: weakref.ref[Workers]) -> None:
    """At the end of the process, before `multiprocessing` would end them by the signal that they ignore."""
    found = workers()
    if found is not None:
        found.close()
