"""Tables of rotary positions that are kept, and the tiles of the kernels that read them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tdsl.runtime import rotary
from tdsl.runtime.nn_functions import rope, rope_table

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_tables() -> Iterator[None]:
    rotary._tables.clear()
    yield
    rotary._tables.clear()


@pytest.mark.parametrize("offset", [0, 3, 300, -3, -400])
@pytest.mark.parametrize("length", [0, 1, 7, 257])
def test_a_table_has_the_angles_of_rope(length: int, offset: int) -> None:
    x = torch.randn(length, 10)
    cos, sin = rotary.table(length, 10, 500.0, offset, CPU)[:length].chunk(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    torch.testing.assert_close(turned, rope(x, 500.0, offset))


def test_a_table_is_made_once_and_made_longer() -> None:
    first = rotary.table(5, 8, 10000.0, 0, CPU)
    assert rotary.table(9, 8, 10000.0, 0, CPU) is first
    assert rotary.table(1, 8, 10000.0, 7, CPU).data_ptr() == first[7:].data_ptr()
    longer = rotary.table(1000, 8, 10000.0, 24, CPU)
    assert len(rotary._tables) == 1
    assert len(longer) >= 1000
    assert rotary.table(1024, 8, 10000.0, 0, CPU).data_ptr() == longer.data_ptr() - 24 * 8 * 4
    assert rotary.table(5, 8, 500.0, 0, CPU).data_ptr() != longer.data_ptr()


def test_tables_are_not_kept_without_end() -> None:
    for i in range(3 * rotary.MOST_TABLES):
        rotary.table(2, 4, 100.0 + i, 0, CPU)
    assert len(rotary._tables) == rotary.MOST_TABLES


def test_a_table_of_inference_serves_training() -> None:
    with torch.inference_mode():
        rotary.table(3, 4, 10000.0, 0, CPU)
    x = torch.ones(3, 4, requires_grad=True)
    (x * rotary.table(3, 4, 10000.0, 0, CPU)[:3]).sum().backward()
    assert x.grad is not None
    assert not rotary.table(3, 4, 10000.0, 0, CPU).requires_grad


def test_rope_table_is_cosines_then_sines() -> None:
    table = rope_table(3, 4, 100.0, 1, CPU)
    angles = torch.tensor([[1.0, 0.1], [2.0, 0.2], [3.0, 0.3]])
    torch.testing.assert_close(table, torch.cat((angles.cos(), angles.sin()), dim=-1))


@pytest.mark.parametrize("n_rows", [1, 5, 63, 64, 1000, 65536])
@pytest.mark.parametrize("heads", [1, 3, 12, 128])
@pytest.mark.parametrize("dim", [2, 6, 64, 96, 128, 4096])
def test_tiles_cover_all_positions_and_half_a_head(n_rows: int, heads: int, dim: int) -> None:
    tile = rotary.tile(n_rows, heads, dim)
    assert tile.grid[0] * tile.rows >= n_rows > (tile.grid[0] - 1) * tile.rows
    assert 1 <= tile.grid[1] <= heads
    assert dim // 2 <= tile.cols < dim
    for power in (tile.rows, tile.cols, tile.warps):
        assert power & (power - 1) == 0


@pytest.mark.gpu
def test_a_captured_graph_keeps_its_table() -> None:
    """What a graph reads is not let go when longer tables take its place, nor when there are many."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda", torch.cuda.current_device())
    y = torch.zeros(16, 8, device=device)
    rotary.table(16, 8, 10000.0, 0, device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y.copy_(rotary.table(16, 8, 10000.0, 0, device)[:16])
    for i in range(2 * rotary.MOST_TABLES):
        rotary.table(4096, 8, 10000.0 + i, 0, device)
    y.zero_()
    graph.replay()
    torch.testing.assert_close(y, rope_table(16, 8, 10000.0, 0, device))
