"""Rotary positions for emitted kernels: tables of cosines and sines, kept from call to call, and tiles."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from tdsl.runtime.launch import power_of_two
from tdsl.runtime.nn_functions import rope_table

# Tables kept; those that a CUDA graph reads are kept beside them.
MOST_TABLES = 32
# The fewest positions that a table is made for: sequences that grow step by step share one.
FEWEST_POSITIONS = 256

Key = tuple[int, float, int, torch.device]

_tables: dict[Key, Tensor] = {}
# What captured graphs read lies where it lay when they were captured, for as long as the process runs.
_captured: dict[int, Tensor] = {}
_lock = Lock()


def table(length: int, dim: int, base: float, offset: int, device: torch.device) -> Tensor:
    """Cosines and sines of the positions from `offset` on, as `nn_functions.rope` has them: float32 [length, dim].

    The first half of a row holds the cosines of a position's angles, the second their sines. There may be more rows.
    """
    first = min(offset, 0)
    key = (dim, base, first, device)
    found = _tables.get(key)
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    if found is None or found.shape[0] < offset - first + length:
        found = _make(key, offset - first + length, capturing)
    elif capturing:
        _captured[found.data_ptr()] = found
    return found if offset == first else found[offset - first :]


def _make(key: Key, rows: int, capturing: bool) -> Tensor:
    dim, base, first, device = key
    # Without gradients, but not as a tensor that no gradient may pass: a later call may be in training.
    with torch.inference_mode(False), torch.no_grad():
        made = rope_table(power_of_two(max(rows, FEWEST_POSITIONS)), dim, base, first, device)
    if capturing:
        # It lies in the graph's own memory, and is made anew by each replay.
        return made
    with _lock:
        if device.type == "cuda":
            # Whatever stream reads it finds it complete; and none reads any longer what is let go.
            torch.cuda.synchronize(device)
        _tables.pop(key, None)
        while len(_tables) >= MOST_TABLES:
            _tables.pop(next(iter(_tables)))
        _tables[key] = made
    return made


def by_heads(x: Tensor) -> Tensor:
    """`x` [..., T, D] as [batch, heads, T, D] with the numbers of each row side by side: a view wherever it can be."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    return x.flatten(0, -4) if x.dim() > 3 else x[(None,) * (4 - x.dim())]


def like(x: Tensor) -> Tensor:
    """An empty tensor of the shape of `x` [batch, heads, T, D]: the heads of a position side by side where its are."""
    batch, heads, length, dim = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, length, heads, dim).transpose(1, 2)
    return x.new_empty(batch, heads, length, dim)


class Tile(NamedTuple):
    """The programs, along positions and along heads, and the tile of each: positions by halves of a head, and warps."""

    grid: tuple[int, int]
    rows: int
    cols: int
    warps: int


def tile(n_rows: int, heads: int, dim: int) -> Tile:
    """For `n_rows` positions of `heads` heads: about 1,024 pairs a program, which goes through the heads.

    Where that makes few programs, several share the heads of the same positions.
    """
    cols = power_of_two(dim // 2)
    rows = max(1, min(1024 // cols, 64, power_of_two(n_rows)))
    blocks = -(-n_rows // rows)
    sharing = min(heads, -(-1024 // blocks))
    return Tile((blocks, sharing), rows, cols, max(1, min(rows * cols // 256, 16)))
