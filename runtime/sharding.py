"""Runs of several processes that have the parameters, their gradients and the optimizer's state divided among them.

PyTorch's `fully_shard` (FSDP2) keeps of each parameter the rows of this process, and gathers a block's for as long as
the block is computed: within a forward they are ordinary tensors. The optimizer has a plain tensor for the rows of each
parameter, which is that parameter's memory, so it is no other than that of one process, and its state is divided, too.
What of a gradient's norm and of overflowing gradients a process can't know by itself is told among all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from tdsl.runtime import low_precision, optim, ranks, streams, synchronised
from tdsl.runtime.average import Average
from tdsl.runtime.distributed import Found, Shared, check_rows
from tdsl.runtime.loader import Batch, Batches
from tdsl.runtime.run import Failure
from tdsl.runtime.shards import Piece, piece
from tdsl.runtime.training import Counted
from tdsl.runtime.training import shares as own_shares


class Whole(Shared):
    """What a run of one process does where several would divide the parameters."""

    def own(self, groups: list[Any]) -> list[Any]:
        """What an optimizer takes, with what this process has of each parameter."""
        return groups

    def average(self, model: nn.Module, decay: float) -> AveragedModel | Average:
        """Averaged weights of a model."""
        return optim.average(model, decay)

    def clip_gradients(self, optimizer: Optimizer, max_norm: float | None, *, told: bool = True) -> Tensor:
        """As `optim.clip_gradients`, of the gradients of all processes."""
        return optim.clip_gradients(optimizer, max_norm, told=told)

    @contextmanager
    def gathered(self, average: AveragedModel | Average | None = None) -> Iterator[None]:
        """Within, models can be called as they are, the averaged one with its averages."""
        yield


class Sharded(Whole):
    """A loss of models that `fully_shard` has divided. Every rank computes as many parts of a batch."""

    def __init__(self, loss: Callable[..., Found], models: Mapping[str, nn.Module]) -> None:
        super().__init__(loss, models)
        # The parameters that are not divided, as they are numbers, and those that are, with what this rank has of them.
        self.numbers = [each for each in self.module.parameters() if each.dim() == 0]
        self.rows: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}

    def parts(
        self, batch: Batch, parts: int, counted: Counted | None = None, *, rows: bool = False
    ) -> Iterator[tuple[Batch, float]]:
        """As `Shared.parts`; of a rank that has fewer than others, the rest are of another rank and count nothing."""
        yield from _even(batch, parts, counted, rows, self.normed)
        for parameter, own in self.rows.values():
            gradient = None if parameter.grad is None else piece(parameter.grad)
            own.grad = gradient.tensor if isinstance(gradient, Piece) else gradient
            parameter.grad = None
        for number in self.numbers:
            if number.grad is not None:
                dist.all_reduce(number.grad)

    def own(self, groups: list[Any]) -> list[Any]:
        return [
            {**group, "params": [(name, self._own(parameter)) for name, parameter in group["params"]]}
            for group in groups
        ]

    def _own(self, parameter: nn.Parameter) -> nn.Parameter:
        own = piece(parameter)
        if not isinstance(own, Piece):
            return parameter
        return self.rows.setdefault(id(parameter), (parameter, nn.Parameter(own.tensor)))[1]

    def average(self, model: nn.Module, decay: float) -> Average:
        return Average(model, decay)

    def clip_gradients(self, optimizer: Optimizer, max_norm: float | None, *, told: bool = True) -> Tensor:
        if max_norm is None and not told:
            return optim.UNTOLD
        members = [each for group in optimizer.param_groups for each in group["params"]]
        # Numbers are the same on all ranks: the first tells of them.
        left_out = {id(each) for each in self.numbers} if ranks.rank() else set()
        gradients = [each.grad for each in members if each.grad is not None and id(each) not in left_out]
        found = torch.zeros(ranks.count(), dtype=members[0].dtype, device=members[0].device)
        found[ranks.rank()] = nn.utils.get_total_norm(gradients)
        dist.all_reduce(found)
        norm: Tensor = torch.linalg.vector_norm(found)
        if max_norm is not None:
            nn.utils.clip_grads_with_norm_(members, max_norm, norm)
        return norm

    @contextmanager
    def gathered(self, average: AveragedModel | Average | None = None) -> Iterator[None]:
        root: Any = self.module
        if isinstance(average, Average):
            with average.instead(), self.gathered():
                yield
            return
        root.unshard()
        try:
            yield
        finally:
            root.reshard()


class GradScaler(torch.amp.GradScaler):
    """A scaler that leaves out a step where the gradients of any process overflow."""

    def _unscale_grads_(self, *args: Any, **options: Any) -> dict[torch.device, Tensor]:
        found = super()._unscale_grads_(*args, **options)
        if ranks.count() > 1:
            for each in found.values():
                dist.all_reduce(each, dist.ReduceOp.MAX)
        return found


def fsdp(
    loss: Callable[..., Found],
    models: Mapping[str, nn.Module],
    batches: Batches,
    *,
    accumulate: int,
    blocks: Sequence[str] = (),
) -> Whole:
    """A loss of models whose parameters PyTorch's `fully_shard` divides among the ranks.

    `accumulate` is the number of parts that each rank computes its rows in, `blocks` are globs of the modules that are
    gathered one after another, each part of a path by itself; all else is gathered for the whole of a step. Batch norms
    take the statistics of all ranks' rows; raises `Failure` where a rank would have none. From here on the ranks draw
    other random numbers, as their rows are others.
    """
    if ranks.count() == 1:
        return Whole(loss, models)
    shared = Sharded(loss, models)
    shared.normed = synchronised.convert(shared.module)
    if shared.normed:
        check_rows(batches, accumulate)
    # Gathered anew for each block, a parameter has no copy that would still be what it is.
    low_precision.keep_none()
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    device = next(shared.module.parameters()).device
    mesh = init_device_mesh(device.type, (ranks.count(),))
    for module in [*_blocks(models, blocks), shared.module]:
        _shard(module, mesh, set(shared.numbers))
    streams.depart(ranks.rank())
    return shared


def _blocks(models: Mapping[str, nn.Module], patterns: Sequence[str]) -> Iterator[nn.Module]:
    for owner, model in models.items():
        lead = "" if owner == "model" else f"{owner}."
        for name, module in model.named_modules():
            named = any(_fits(f"{lead}{name}", pattern) for pattern in patterns)
            if name and named and next(module.parameters(), None) is not None:
                yield module


def _fits(name: str, pattern: str) -> bool:
    parts, others = name.split("."), pattern.split(".")
    return len(parts) == len(others) and all(map(fnmatchcase, parts, others))


def _shard(module: nn.Module, mesh: Any, ignored: set[nn.Parameter]) -> None:
    for parameter in module.parameters():
        # As `fully_shard` has them: those of convolutions may have their channels last.
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
    made: Any = fully_shard(module, mesh=mesh, ignored_params=ignored)
    assert isinstance(made, FSDPModule)
    # The sum of the ranks' gradients, where FSDP would take their mean.
    made.set_gradient_divide_factor(1.0)
    made.set_force_sum_reduction_for_comms(True)


# Parts of batches of which every rank has as many -------------------------------------------------------------------


def shares(
    batch: Batch, parts: int, counted: Counted | None = None, *, rows: bool = False
) -> Iterator[tuple[Batch, float]]:
    """As `training.shares`, but every rank has as many parts: each takes part in gathering what others compute with.

    What a rank lacks are parts of another's, with the share 0.
    """
    yield from (
        own_shares(batch, parts, counted, rows=rows)
        if ranks.count() == 1
        else _even(batch, parts, counted, rows, normed=False)
    )


def _even(batch: Batch, parts: int, counted: Counted | None, rows: bool, normed: bool) -> list[tuple[Batch, float]]:
    found = list(own_shares(batch, parts, counted, rows=rows))
    there = ranks.gathered(len(found))
    most = max(there)
    if min(there) == most:
        return found
    if normed:
        raise Failure(
            "nothing counts in the rows of one of the processes, and batch norm needs some in each",
            "train with a larger `batch_size`, or in one process",
        )
    other = _told(there.index(most), found[0][0] if found else batch)
    return [*found, *[(other, 0.0)] * (most - len(found))]


def filled(batch: Batch) -> Batch:
    """The rows of this rank; where it has none, those of another, to compute what is then left out."""
    if batch.total >= ranks.count():
        return batch
    # The last rank has rows of every batch.
    other = _told(ranks.count() - 1, batch)
    return batch if batch.size else other


def _told(rank: int, batch: Batch) -> Batch:
    """The rows of a rank, on this one's device."""
    device = next(iter(batch.fields.values())).device
    told: list[Any] = [batch.to("cpu") if ranks.rank() == rank else None]
    dist.broadcast_object_list(told, src=rank)
    found: Batch = told[0]
    return found.to(device)
