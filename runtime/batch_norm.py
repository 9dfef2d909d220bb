"""What kernels of batch norms ask of layers and tensors: whether they can take them, and how these lie in memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdsl.runtime import launch
from tdsl.runtime.launch import Tile
from tdsl.runtime.synchronised import SyncBatchNorm

# Programs that sum over a batch: enough for any GPU of today, and a constant, so that sums come out the same on each.
MOST_PROGRAMS = 1024
# Elements of a tile: where channels lie together, 16 of every tensor in a thread. Of planes fewer, since a thread has
# several columns there, each with numbers of its own.
TILE, TILE_OF_PLANES = 2048, 1024
# Channels of a tile where they lie together: one line of a cache in bfloat16, two in float32.
CHANNELS = 64


class Folded(nn.Identity):
    """A batch norm that is folded into the layer before it: it has nothing left to do, and nothing to remember."""

    weight = bias = running_mean = running_var = None
    eps = 0.0


class Call(NamedTuple):
    """A call of `F.batch_norm` as a layer has it, which keeps its numbers in the tensors that it is given."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float
    eps: float

    @property
    def num_batches_tracked(self) -> Tensor | None:
        """Memory for a number that nobody reads."""
        return None if self.running_mean is None else self.running_mean.new_empty((), dtype=torch.int64)

    def __deepcopy__(self, memo: dict[int, Any]) -> Call:
        """With statistics of its own, to be tried."""
        mean, variance = (t if t is None else t.clone() for t in (self.running_mean, self.running_var))
        return self._replace(running_mean=mean, running_var=variance)


class Columns(NamedTuple):
    """A tensor [N, C, ...] as a matrix each of whose columns belongs to one channel, column j to channel j % C.

    Where channels lie together (channels last), the columns are the C channels and the rows all other dimensions. Where
    planes do (PyTorch's default), the columns are the N * C planes and the rows what is in one.
    `parts` programs share the rows of a column where they are summed, `part` rows each. `constants` are those of the
    kernels that walk through it.
    """

    rows: int
    cols: int
    parts: int
    part: int
    tile: Tile
    constants: Mapping[str, int]

    @property
    def grid(self) -> tuple[int]:
        """A program a tile."""
        return (-(-self.rows // self.tile.rows) * self.col_blocks,)

    @property
    def sums(self) -> tuple[int, int]:
        """A program for each part of the columns of a tile."""
        return (self.col_blocks, self.parts)

    @property
    def col_blocks(self) -> int:
        return -(-self.cols // self.tile.cols)


def columns(x: Tensor) -> Columns:
    """How a tensor [N, C, ...] that is `dense` lies in memory."""
    return _columns(x.shape[0], x.shape[1], prod(x.shape[2:]), _channels_last(x))


@functools.lru_cache(maxsize=1024)
def _columns(batch: int, channels: int, plane: int, channels_last: bool) -> Columns:
    rows, cols = (batch * plane, channels) if channels_last else (plane, batch * channels)
    if channels_last:
        wide = min(launch.power_of_two(cols), CHANNELS)
        tile = Tile(min(launch.power_of_two(rows), TILE // wide), wide, 4)
    else:
        high = min(launch.power_of_two(rows), TILE_OF_PLANES)
        tile = Tile(high, min(launch.power_of_two(cols), TILE_OF_PLANES // high), 4)
    most = max(1, MOST_PROGRAMS // -(-cols // tile.cols))
    blocks = -(-rows // tile.rows)
    part = -(-blocks // min(most, blocks)) * tile.rows
    constants = {
        "ROW_STRIDE": channels if channels_last else 1,
        "COL_STRIDE": 1 if channels_last else plane,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLS": tile.cols,
        "num_warps": tile.warps,
    }
    return Columns(rows, cols, -(-rows // part), part, tile, constants)


def dense(x: Tensor) -> Tensor:
    """`x` [N, C, ...] itself where its channels or its planes lie together in memory, else a copy whose planes do."""
    return x if _channels_last(x) else x.contiguous()


def like(tensor: Tensor, x: Tensor) -> Tensor:
    """`tensor` itself where it lies in memory as `x` does, which is of its shape and dense; else a copy."""
    same = all(n == 1 or a == b for n, a, b in zip(x.shape, tensor.stride(), x.stride(), strict=True))
    return tensor if same else torch.empty_like(x, dtype=tensor.dtype).copy_(tensor)


def _channels_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


def of_batch(norm: Any) -> bool:
    """Whether a norm takes the statistics of the batch: in training, and where it keeps none."""
    return not isinstance(norm, Folded) and (norm.training or norm.running_mean is None)


def takes(norm: nn.Module | Call, x: Tensor, *others: Tensor) -> bool:
    """Whether kernels compute what a norm makes of `x` [N, C, ...].

    They do for PyTorch's own batch norms with parameters and statistics in float32, and for one that is `Folded` where
    no gradient is asked for. Others, such as those that are synchronised among processes, compute their results
    themselves; so do all for a batch without elements, or for one value a channel, which PyTorch refuses in training.
    """
    if isinstance(norm, Folded):
        return x.numel() > 0 and not torch.is_grad_enabled() and launch.use_kernels(x, *others)
    if not isinstance(norm, (_BatchNorm, Call)) or isinstance(norm, (nn.SyncBatchNorm, SyncBatchNorm)):
        return False
    if isinstance(norm, _BatchNorm) and (x.shape[1] != norm.num_features or _is_changed(norm)):
        return False
    enough = x.numel() > (x.shape[1] if of_batch(norm) else 0)
    vectors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    held = tuple(t for t in vectors if t is not None)
    return enough and all(t.is_contiguous() for t in held) and launch.use_kernels(x, *others, float32=held)


def _is_changed(norm: _BatchNorm) -> bool:
    """Whether a layer keeps other things than it was made to keep."""
    kept = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return any((t is not None) != norm.track_running_stats for t in kept)
