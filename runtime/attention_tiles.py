"""The blocks in which kernels compute attention: how many queries and keys a program takes at once.

For rows of 64, 128 and 256 columns each compiles without spilling registers, whatever the scores are made of, and fits
into the shared memory of its GPUs: 227 KB on sm_90 and sm_100, 64 KB on gfx942. Those of sm_80, which other GPUs of
NVIDIA share, fit into the 99 KB of the smallest of these, but for TF32. `tests/test_attention_tiles.py` compiles them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

from tdsl.runtime import launch

# Rows of a result and of its gradient that a program of the backward multiplies.
DELTA_ROWS = 16
# Rows of up to so many columns share a block.
WIDTHS = (64, 128, 256)
# Queries, keys, warps and stages.
Block = tuple[int, int, int, int]
Blocks = tuple[Block, Block, Block]
# For each of these widths, by what computes it and on what; what has no entry of its own has that of "sm_80". `rich`
# are scores with a bias or dropout, `grouped` those of heads that share keys, which the other steps take as they come.
LOW: Mapping[str, Mapping[str, Blocks]] = {
    "forward": {
        "sm_80": ((128, 64, 8, 3), (128, 64, 8, 2), (64, 32, 8, 2)),
        "sm_90": ((128, 128, 8, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
        "sm_100": ((128, 128, 8, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
        "gfx": ((128, 64, 8, 1), (64, 64, 4, 1), (64, 32, 4, 1)),
    },
    "forward rich": {
        "sm_80": ((64, 64, 8, 2), (64, 64, 8, 2), (64, 32, 8, 2)),
        "gfx": ((128, 64, 8, 1), (64, 64, 4, 1), (64, 32, 4, 1)),
    },
    "backward_q": {
        "sm_80": ((128, 64, 8, 2), (64, 32, 8, 3), (32, 32, 4, 2)),
        "sm_90": ((128, 64, 8, 3), (128, 64, 8, 2), (64, 64, 8, 2)),
        "sm_100": ((128, 64, 8, 3), (128, 64, 8, 2), (128, 32, 8, 2)),
        "gfx": ((64, 64, 4, 1), (64, 32, 4, 1), (32, 32, 4, 1)),
    },
    "backward_q rich": {
        "sm_80": ((64, 64, 8, 2), (64, 32, 8, 2), (32, 32, 4, 2)),
        "gfx": ((64, 64, 4, 1), (64, 32, 4, 1), (32, 32, 4, 1)),
    },
    "backward_kv": {
        "sm_80": ((32, 128, 8, 3), (32, 64, 8, 2), (32, 32, 8, 2)),
        "sm_90": ((64, 128, 8, 2), (64, 128, 8, 2), (32, 64, 8, 2)),
        "sm_100": ((64, 128, 8, 2), (64, 128, 8, 2), (32, 64, 8, 2)),
        "gfx": ((64, 64, 4, 1), (32, 64, 4, 1), (16, 32, 4, 1)),
    },
    "backward_kv grouped": {
        "sm_80": ((32, 128, 8, 3), (32, 64, 8, 2), (32, 32, 8, 2)),
        "sm_90": ((64, 128, 8, 2), (64, 64, 8, 2), (32, 32, 8, 2)),
        "gfx": ((64, 64, 4, 1), (32, 64, 4, 1), (16, 32, 4, 1)),
    },
    "backward_kv rich": {
        "sm_80": ((64, 32, 8, 2), (64, 32, 8, 2), (16, 32, 8, 2)),
        "gfx": ((64, 64, 4, 1), (32, 64, 4, 1), (16, 32, 4, 1)),
    },
    "backward_bias rich": {
        "sm_80": ((64, 32, 8, 2), (64, 32, 8, 2), (64, 32, 8, 2)),
        "gfx": ((64, 32, 4, 1), (64, 32, 4, 1), (32, 32, 4, 1)),
    },
}
# Products of float32 in full precision are not those of tensor cores.
FULL: Mapping[str, Mapping[str, Blocks]] = {
    "forward": {
        "sm_80": ((64, 32, 4, 1), (64, 16, 4, 1), (32, 16, 8, 1)),
        "gfx": ((64, 32, 4, 1), (64, 16, 4, 1), (32, 16, 4, 1)),
    },
    "forward rich": {
        "sm_80": ((64, 32, 8, 1), (16, 32, 8, 1), (32, 32, 8, 1)),
        "gfx": ((64, 32, 4, 1), (64, 16, 4, 1), (32, 16, 4, 1)),
    },
    "backward_q": {
        "sm_80": ((64, 16, 8, 1), (16, 64, 8, 1), (16, 32, 8, 1)),
        "sm_90": ((64, 16, 8, 1), (32, 16, 8, 1), (16, 32, 8, 1)),
        "sm_100": ((64, 16, 8, 1), (32, 16, 8, 1), (16, 32, 8, 1)),
        "gfx": ((64, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    },
    "backward_q rich": {
        "sm_80": ((32, 16, 8, 1), (16, 16, 4, 1), (16, 32, 8, 1)),
        "gfx": ((64, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    },
    "backward_kv": {
        "sm_80": ((32, 64, 8, 1), (32, 32, 4, 1), (16, 16, 4, 1)),
        "gfx": ((32, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    },
    "backward_kv rich": {
        "sm_80": ((32, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
        "gfx": ((32, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    },
    "backward_bias rich": {
        "sm_80": ((64, 32, 8, 1), (32, 16, 8, 1), (16, 16, 4, 1)),
        "gfx": ((64, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    },
}
TF32: Mapping[str, Mapping[str, Blocks]] = {
    "forward": {"sm_80": ((64, 32, 4, 1), (64, 16, 4, 1), (32, 16, 8, 1))},
    "backward_q": {"sm_80": ((64, 32, 8, 1), (16, 32, 4, 2), (16, 32, 8, 1))},
    "backward_kv": {"sm_80": ((64, 32, 8, 2), (64, 32, 8, 2), (32, 16, 8, 2))},
    "backward_bias rich": {"sm_80": ((32, 32, 8, 2), (16, 32, 4, 2), (32, 16, 8, 2))},
}
# Of rows that are wider still.
SMALLEST: Block = (16, 16, 4, 1)


class Tile(NamedTuple):
    """A block of `queries` and one of `keys`, and the `options` of a launch with them."""

    queries: int
    keys: int
    options: Mapping[str, Any]


def tile(step: str, width: int, v_width: int, dtype: torch.dtype) -> Tile:
    """The blocks of a step of attention, for rows of q and k that are `width` long, and of v that are `v_width`.

    `step` is `forward`, `backward_q`, `backward_kv` or `backward_bias`, then what its scores are: `forward rich`.
    """
    return _tile(step, width, v_width, _precision(dtype), launch.architecture())


def _precision(dtype: torch.dtype) -> str:
    """How products are computed: `low`, in 16 bits, or those of float32 in full or in TF32, as PyTorch's are."""
    if dtype != torch.float32:
        return "low"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


@cache
def _tile(step: str, width: int, v_width: int, precision: str, architecture: str) -> Tile:
    family = "gfx" if architecture.startswith("gfx") else architecture
    precision = "ieee" if precision == "tf32" and family == "gfx" else precision
    table = {"low": LOW, "ieee": FULL, "tf32": TF32}[precision]
    blocks = table.get(step) or table[step.partition(" ")[0]]
    fitting = [b for most, b in zip(WIDTHS, blocks.get(family, blocks["sm_80"])) if max(width, v_width) <= most]
    queries, keys, warps, stages = fitting[0] if fitting else SMALLEST
    options = {
        "D": width,
        "E": v_width,
        "BLOCK_T": queries,
        "BLOCK_S": keys,
        "BLOCK_D": _padded(width),
        "BLOCK_E": _padded(v_width),
        "PRECISION": "tf32" if precision == "tf32" else "ieee",
        "num_warps": warps,
        "num_stages": stages,
    }
    return Tile(queries, keys, options)


def _padded(width: int) -> int:
    """The power of two that tensor cores take for it."""
    return max(launch.power_of_two(width), 16)
