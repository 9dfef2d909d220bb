"""Runs of several processes: each computes its rows of a batch, and the gradients of all are added up.

A loss is a mean over what counts in a batch, rows or labels. A rank's part of it is weighted by its share of what
counts in the batch of all ranks, so that the sum of the ranks' gradients is that of the whole batch, whatever the
number of ranks and of accumulated parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tdsl.runtime import ranks, streams, synchronised
from tdsl.runtime.loader import Batch, Batches
from tdsl.runtime.run import Failure
from tdsl.runtime.training import Counted, shares

# Buffers are the same on every rank as they are: newer versions of PyTorch have another name for not sending them.
_NAMES = signature(DistributedDataParallel.__init__).parameters
_BUFFERS_ALONE: Any = {"forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False}
# What a loss returns: its value, and where the run tracks scalars, those by name.
Found = Any


class _Loss(nn.Module):
    """A loss as a module of its models, so that all that it calls and reads of them is within one forward."""

    def __init__(self, loss: Callable[..., Found], models: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models.values())
        self.loss = loss

    def forward(self, batch: Batch | None) -> Found:
        """The loss of a batch; of none 0, on which every parameter has the gradient 0."""
        if batch is None:
            return torch.stack([each.reshape(-1)[:0].sum() for each in self.parameters() if each.requires_grad]).sum()
        found = self.loss(*self.models, batch)
        if isinstance(found, tuple):
            # Nothing is differentiated but the loss: DDP is not to wait for gradients of what is tracked.
            return found[0], {name: value.detach() for name, value in found[1].items()}
        return found


class Shared:
    """A loss that every rank computes of its own rows. In one process it is that loss."""

    def __init__(self, loss: Callable[..., Found], models: Mapping[str, nn.Module]) -> None:
        self.module: nn.Module = _Loss(loss, models)
        self.normed = False

    def __call__(self, batch: Batch) -> Found:
        """The value of a part that `parts` gave, and what is tracked, where the loss tracks anything."""
        return self.module(batch)

    def parts(
        self, batch: Batch, parts: int, counted: Counted | None = None, *, rows: bool = False
    ) -> Iterator[tuple[Batch, float]]:
        """The parts of this rank's rows, each with its share of what counts in the batch of all ranks.

        `counted` and `rows` are as in `shares`. Gradients are added up over ranks with those of the last part, or here
        where this rank has none: in the last batch of an epoch, or where none of its labels count.
        """
        found = list(shares(batch, parts, counted, rows=rows))
        for i, (part, share) in enumerate(found):
            self._add_up(i == len(found) - 1)
            yield part, share
        if not found and self.normed:
            raise Failure(
                "nothing counts in the rows of one of the processes, and batch norm needs some in each",
                "train with a larger `batch_size`, or in one process",
            )
        if not found:
            self._add_up(True)
            self.module(None).backward()

    def _add_up(self, now: bool) -> None:
        """Whether the next backward adds gradients up over ranks: what `no_sync` does, without its block."""
        if isinstance(self.module, DistributedDataParallel):
            self.module.require_backward_grad_sync = now


def ddp(
    loss: Callable[..., Found],
    models: Mapping[str, nn.Module],
    batches: Batches,
    *,
    accumulate: int,
    unused: bool = False,
) -> Shared:
    """A loss whose gradients PyTorch's `DistributedDataParallel` adds up as they are computed.

    `accumulate` is the number of parts that each rank computes its rows in, `unused` whether there are parameters that
    the loss may not depend on. Batch norms take the statistics of all ranks' rows; raises `Failure` where a rank would
    have none. From here on the ranks draw other random numbers, as their rows are others.
    """
    shared = Shared(loss, models)
    if ranks.count() == 1:
        return shared
    shared.normed = synchronised.convert(shared.module)
    if shared.normed:
        check_rows(batches, accumulate)
    wrapped = DistributedDataParallel(shared.module, find_unused_parameters=unused, **_BUFFERS_ALONE)
    # A hook with annotations would have to have them as objects, not as text.
    wrapped.register_comm_hook(None, lambda state, bucket: _add(bucket))
    shared.module = wrapped
    streams.depart(ranks.rank())
    return shared


def _add(bucket: Any) -> torch.futures.Future[Tensor]:
    """The sum of the ranks' gradients, where DDP would take their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    done: torch.futures.Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
    return done


def check_rows(batches: Batches, accumulate: int) -> None:
    """Batch norm needs rows in every part of every rank."""
    rest = 0 if batches.drop_last else len(batches.split) % batches.batch_size
    rows = rest or batches.batch_size
    if rows // ranks.count() < accumulate:
        parts = f"{ranks.count()} processes" + (f" with {accumulate} parts each" if accumulate > 1 else "")
        raise Failure(
            f"the last batch of an epoch has {rows} rows, too few for batch norm in {parts}",
            "set `drop_last = true` in `data`, or choose another `batch_size`",
        )
