"""The processes of a run, which `torchrun` starts and calls ranks: which one this is, and what they tell each other.

In a run of one process nothing is told: `gathered` gives back what it is given, `first` calls its function. All of
these but `rank`, `count` and `once` are to be called by every rank, in the same order.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypedDict, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# What gloo says where the other side of a connection is gone.
GONE = ("gloo", "Connection closed", "Connection reset", "Broken pipe")
# Where ranks leave word of what they have said, for those that still live.
_BOARD: list[Any] = []


def started() -> int:
    """How many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0. Rank 0 writes and prints."""
    return dist.get_rank() if count() > 1 else int(os.environ.get("RANK", "0")) if started() > 1 else 0


class Part(TypedDict):
    """A process among those of a run."""

    rank: int
    ranks: int


def part() -> Part:
    """This one, as arguments."""
    return {"rank": rank(), "ranks": count()}


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Within, the processes that `torchrun` has started work together: tensors on GPUs by NCCL, all else by gloo."""
    if started() == 1:
        yield
        return
    store, number, ranks = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
    _BOARD[:] = [dist.PrefixStore("tdsl", store)]  # type: ignore[attr-defined]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=ranks)
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        # What communicates is released first: after the group, its threads would wait for this one for ever.
        gc.collect()
        dist.destroy_process_group()


def gathered(value: T) -> list[T]:
    """The value of every rank, in their order: of any kind that pickles."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def total(numbers: Sequence[float]) -> list[float]:
    """Sums of numbers over ranks, in float64 and in the order of ranks."""
    return [sum(each) for each in zip(*gathered(list(numbers)), strict=True)]


def most(number: int) -> int:
    """The largest of the ranks' numbers."""
    if count() == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def first(function: Callable[[], T]) -> T:
    """What `function` returns on rank 0, the only one that calls it, or raises there: on every rank."""
    if count() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    found: T = outcome[0]
    return found


def once(text: str) -> bool:
    """Whether no other rank has said this yet: what all of them find is told by one."""
    if not _BOARD:
        return rank() == 0
    with suppress(dist.DistError):
        _BOARD[0].add("failed", 1)
        return bool(_BOARD[0].add(hashlib.sha256(text.encode()).hexdigest(), 1) == 1)
    return True


def lost(error: RuntimeError) -> bool:
    """Whether an error says no more than that another rank is gone."""
    return started() > 1 and (isinstance(error, dist.DistError) or any(each in str(error) for each in GONE))


def failed() -> bool:
    """Whether another rank has said why it is gone."""
    with suppress(dist.DistError):
        return bool(_BOARD) and _BOARD[0].add("failed", 0) > 0
    return False


def say(text: str) -> None:
    """Print to the terminal's error stream, from rank 0 alone."""
    if rank() == 0:
        print(text, file=sys.stderr)
