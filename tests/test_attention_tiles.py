"""The blocks of attention compile for every GPU without spilling registers, and within its shared memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tdsl.runtime import aot, attention_tiles
from tdsl.runtime.verify_inputs import Case
from tests.attention_cases import Variant, built

SHARED = {"sm_80": 99 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
LENGTH = 1024
# What takes most registers of each size: one head of k for each of q, one for several, a bias and dropout.
VARIANTS = {
    "plain": Variant(causal=True, numbers=(("softcap", 30.0),), heads=16, groups=16),
    "grouped": Variant(causal=True, numbers=(("window", 512), ("softcap", 30.0)), heads=16, groups=4),
    "rich": Variant(
        numbers=(("window", 512), ("softcap", 30.0)), heads=16, groups=4, bias=("16", "T", "S"), drops=True
    ),
}
LOW, FULL = torch.bfloat16, torch.float32


def launches(name: str, width: int, dtype: torch.dtype, target: str) -> Iterator[aot.Launch]:
    """What one use of attention launches in both directions; `width` is that of a row."""
    variant = Variant(**{**vars(VARIANTS[name]), "width": width, "v_width": width})
    module, group = built(variant)
    shapes = [(1, variant.heads, LENGTH, width), *[(1, variant.groups, LENGTH, width)] * 2]
    shapes += [(variant.heads, LENGTH, LENGTH)] if variant.bias else []
    case = Case("attention", tuple(shapes), ("float",) * len(shapes), (0.1,) * len(group.scalars))
    yield from aot.launches(module, case, dtype, target)


def check(name: str, width: int, dtype: torch.dtype, target: str) -> None:
    for each in launches(name, width, dtype, target):
        found = aot.compiled(each, target, dtype)
        assert found.spilled == 0, found
        assert found.shared <= SHARED[target], found


@pytest.mark.parametrize("target", aot.TARGETS)
def test_blocks_fit(target: str) -> None:
    check("grouped", 64, LOW, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("width", attention_tiles.WIDTHS)
@pytest.mark.parametrize("dtype", [LOW, FULL])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_block_fits(name: str, width: int, dtype: torch.dtype, target: str) -> None:
    check(name, width, dtype, target)


@pytest.mark.parametrize(("width", "v_width"), [(1, 1), (64, 64), (65, 8), (80, 256), (300, 16)])
@pytest.mark.parametrize("dtype", [LOW, FULL])
def test_widths_are_padded_to_what_tensor_cores_take(width: int, v_width: int, dtype: torch.dtype) -> None:
    for step in ("forward", "forward rich", "backward_q", "backward_kv grouped", "backward_bias rich"):
        tile = attention_tiles.tile(step, width, v_width, dtype)
        for name, given in (("BLOCK_D", width), ("BLOCK_E", v_width)):
            padded = tile.options[name]
            assert max(given, 16) <= padded < max(2 * given, 17)
            assert padded & (padded - 1) == 0
        assert (tile.queries, tile.keys) == (tile.options["BLOCK_T"], tile.options["BLOCK_S"])


def test_products_of_float32_are_in_full_unless_they_may_be_less() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed, precision in ((False, "ieee"), (True, "tf32")):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert attention_tiles.tile("forward", 64, 64, FULL).options["PRECISION"] == precision
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
