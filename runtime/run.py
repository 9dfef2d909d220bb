"""What a training script does around its loop: options, settings, device, seeds, signals, and how it ends."""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from tdsl.runtime import lock, logs, ranks, streams, timing
from tdsl.runtime.loader import Batch, Batches
from tdsl.runtime.settings import Settings, UsageError
from tdsl.runtime.table import DataError

# That a terminal is gone; Windows has no such signal.
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)


class Failure(Exception):
    """A run that can't go on. `message` says what and why, `help` the way out."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return f"{self.message}\n  help: {self.help}" if self.help else self.message


@dataclass
class Job:
    """One start of a training script: where it writes, what it was asked for, and whether it was told to stop."""

    name: str
    out: Path
    device: torch.device
    settings: Settings
    resume: str
    program: str
    signal: int | None = field(default=None, init=False)

    @property
    def part(self) -> ranks.Part:
        """Which rows of each batch are this process's, for `data.batches`."""
        return ranks.part()

    @property
    def stopping(self) -> bool:
        """Whether SIGTERM, SIGINT or SIGHUP came, to any rank: the loop then ends after its step, with a checkpoint."""
        found = ranks.most(self.signal or 0)
        self.signal = found or self.signal
        return found > 0

    def stop(self, number: int, frame: FrameType | None) -> None:
        """The handler of signals; a second SIGINT ends the process at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
        if number == HANGUP:
            _leave_terminal()


@dataclass(frozen=True)
class Length:
    """How long a run is: `steps` optimizer steps, of which `epoch` make an epoch. `unit` is what the run counts.

    A period that the program leaves open is an epoch, or a tenth of the steps.
    """

    epoch: int
    steps: int
    unit: str

    @classmethod
    def of(cls, settings: Settings, epoch: int) -> Length:
        """The length that the settings `epochs` or `steps` ask for. Raises `Failure` where there are no batches."""
        if epoch == 0:
            raise Failure("the split `train` has no batch", "give it rows, or make `batch_size` smaller")
        if settings["steps"] is not None:
            return cls(epoch, settings["steps"], "step")
        return cls(epoch, settings["epochs"] * epoch, "epoch")

    def period(self, every: int | None) -> int:
        """`every` of the run's unit in steps."""
        if self.unit == "epoch":
            return (every or 1) * self.epoch
        return every or max(1, self.steps // 10)

    def due(self, step: int, every: int | None) -> bool:
        """Whether what happens `every` so many units, and at the end, happens after `step` steps."""
        return step % self.period(every) == 0 or step >= self.steps


def stream(batches: Batches, step: int, steps: int) -> Iterator[Batch]:
    """The batches of steps `step`, `step` + 1, ... (from 0) until `steps` are done, epoch after epoch."""
    return timing.waited("data", batches.steps(step, steps))


def train_mode(*models: nn.Module) -> None:
    """Put models into training mode; one whose every parameter is frozen, such as a teacher, into evaluation mode."""
    for model in models:
        model.train(any(parameter.requires_grad for parameter in model.parameters()))


def set_up(*, seed: int, tf32: bool = False, deterministic: bool = False) -> None:
    """Seed, and choose how float32 products are computed: in full precision unless `tf32`."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    streams.seed_all(seed)


def check_finite(loss: float, step: int) -> None:
    """Raise `Failure` for a loss that is not a finite number."""
    if not np.isfinite(loss):
        help = "the last checkpoint is intact; lower `optimizer.lr`, or set `clip_grad_norm`"
        raise Failure(f"the loss is {loss} at step {step}", help)


# The command line ---------------------------------------------------------------------------------------------------


def main(
    name: str,
    settings: Mapping[str, Any],
    train: Callable[[Job], None],
    *,
    out: Path,
    program: Path,
    distributed: bool = False,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a training script; the exit status: 0, 1 where the run failed, 2 where the options are wrong.

    `out` is the run's folder unless `--out` names another, `program` the text that the script was made
    from, `distributed` whether `torchrun` may start it in several processes. A run that a signal ended returns 128 plus
    its number, as a shell would have it.
    """

    def start() -> int:
        check_processes(name, distributed)
        job = _job(name, settings, out, program, argv)
        with ranks.group(job.device), _alone(job.out), _signals(job):
            train(job)
        return 0 if job.signal is None else 128 + job.signal

    return reported(name, start, memory="make `batch_size` smaller, or `accumulate` larger")


def check_processes(name: str, distributed: bool) -> None:
    """Raise `UsageError` where `torchrun` has started several processes of what is done by one."""
    if ranks.started() > 1 and not distributed:
        help = f"start it by itself, or write `distributed = ddp()` in `train {name}`"
        raise UsageError(f"`{name}` runs in one process, and was started in {ranks.started()}", help)


def reported(name: str, start: Callable[[], int], *, memory: str) -> int:
    """What `start` returns; where it fails in a way that a user can mend, that is told, and the status returned.

    `memory` is the way out where the GPU's memory does not suffice.
    """
    try:
        _let_interrupts_through()
        return start()
    except UsageError as error:
        return _report(error, 2)
    except (Failure, DataError) as error:
        return _report(error, 1)
    except torch.OutOfMemoryError as error:
        return _report(Failure(str(error).split(". ")[0], memory), 1)
    except OSError as error:
        return _report(Failure(f"{error.filename or name}: {error.strerror or error}"), 1)
    except RuntimeError as error:
        if not ranks.lost(error):
            raise
        return 1 if ranks.failed() else _report(Failure("another process of the run is gone"), 1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _let_interrupts_through() -> None:
    """Take SIGINT, which `tdsl train` has blocked until here: while PyTorch is imported, it would raise anywhere."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _report(error: Exception, status: int) -> int:
    if ranks.once(str(error)):
        print(f"error: {error}", file=sys.stderr)
    return status


def _parser(name: str, out: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Train `{name}`.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="the run's folder (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--epochs", metavar="N", help="how many epochs")
    parser.add_argument("--steps", metavar="N", help="how many optimizer steps")
    parser.add_argument("--resume", metavar="auto|none|PATH", help="go on from the newest checkpoint, or from that one")
    parser.add_argument("--seed", metavar="N", help="the seed of all that is random")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, such as optimizer.lr=1e-3"
    )
    return parser


def _job(name: str, settings: Mapping[str, Any], out: Path, program: Path, argv: Sequence[str] | None) -> Job:
    given = _parser(name, out).parse_args(argv)
    if given.epochs is not None and given.steps is not None:
        raise UsageError("a run counts `--epochs` or `--steps`, not both")
    changes = [f"{key}={value}" for key in ("epochs", "steps", "seed") if (value := getattr(given, key)) is not None]
    found = Settings(settings).changed([*given.set, *changes])
    logs.check(found)
    resume = given.resume if given.resume is not None else str(found["checkpoint.resume"])
    return Job(name, given.out, choose_device(given.device), found, resume, program.read_text(encoding="utf-8"))


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, of several processes each its own.

    Raises `UsageError` for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.started() > 1:
        name = f"cuda:{ranks.local()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device `{name}`", "cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"`{name}` is not supported", "cpu, cuda or cuda:N")
    if device.type == "cuda" and ranks.started() > 1 and device.index != ranks.local():
        raise UsageError(f"{ranks.started()} processes can't share the device `{name}`", "--device cuda: one for each")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device `{name}`: PyTorch finds {torch.cuda.device_count()} GPUs", "--device cpu")
    return device


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Within, no other run trains in this folder. Raises `Failure` where one does."""
    with ExitStack() as until:
        other = ranks.first(lambda: lock.take(out, until))
        if other is not None:
            help = "wait until that has ended, or train in another folder with `--out`"
            raise Failure(f"{out} is in use: {other} trains there", help)
        yield


@contextmanager
def _signals(job: Job) -> Iterator[None]:
    """Let SIGTERM, SIGINT and, unless `nohup` has it ignored, SIGHUP ask the job to stop."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    before = {number: signal.signal(number, job.stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Say no more to a terminal that is gone: whatever is said would raise, and no checkpoint be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        # What was a terminal is a device still, and no terminal any more.
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)
