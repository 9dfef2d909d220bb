"""Batch norms that take the statistics of the rows of all ranks, so that they do not depend on how many there are."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from tdsl.runtime.run import Failure


class SyncBatchNorm(_BatchNorm):
    """On the CPU what PyTorch's `SyncBatchNorm` does, which takes tensors on GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """x: [B, C, ...], B of which are this rank's rows -> the same."""
        if not self.training:
            return super().forward(input)
        shape = (1, -1, *(1 for _ in range(2, input.ndim)))
        over = [i for i in range(input.ndim) if i != 1]
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        sums = _added(torch.cat([x.sum(over), x.new_full((1,), x.numel() // x.shape[1])]))
        mean, rows = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean.view(shape)
        variance = _added(centred.square().sum(over)) / rows
        self._follow(mean.detach(), variance.detach(), rows)
        found = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, rows: Tensor) -> None:
        """Move the running statistics."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - weight).add_(mean, alpha=weight)
        self.running_var.mul_(1 - weight).add_(variance * (rows / (rows - 1)), alpha=weight)


def _added(x: Tensor) -> Tensor:
    """The sum over ranks; its gradient is, too."""
    found: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return found


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = x.clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found = grad.clone()
        dist.all_reduce(found)
        return found


def convert(model: nn.Module) -> bool:
    """Let the batch norms of a model take the statistics of all ranks; whether it has any.

    Raises `Failure` for norms that would depend on the number of ranks all the same.
    """
    found = False
    for name, each in list(model.named_modules()):
        if isinstance(each, _InstanceNorm) and each.track_running_stats:
            raise Failure(
                f"`{name}` keeps statistics of instances, which are not shared among processes",
                "make it without `track_running_stats`",
            )
        if isinstance(each, _BatchNorm) and not isinstance(each, _InstanceNorm):
            if not each.track_running_stats:
                raise Failure(
                    f"`{name}` keeps no statistics, so what it computes depends on the rows of a process",
                    "make it with `track_running_stats`, or train in one process",
                )
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _converted(each))
            found = True
    return found


def _converted(norm: _BatchNorm) -> _BatchNorm:
    """The same layer with the same tensors."""
    assert norm.running_mean is not None
    kind = nn.SyncBatchNorm if norm.running_mean.is_cuda else SyncBatchNorm
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine)
    made._parameters, made._buffers, made.training = norm._parameters, norm._buffers, norm.training
    return made
