"""More elements than 32 bits can count: offsets are computed in 64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.gpu.kinds import DEVICE
from tests.running import executed

COUNT = (1 << 31) + 17
# A prime: rows begin at every alignment, and the last one ends at no power of two.
COLS = 4099
ROWS = -(-COUNT // COLS)
PIECE = 1 << 14
# Three inputs and results of 4 GiB in bfloat16, their gradients, and a piece in float64.
MEMORY = 40 << 30
DTYPE = torch.bfloat16


@pytest.fixture(autouse=True)
def _room() -> Iterator[None]:
    free, _ = torch.cuda.mem_get_info()
    if free < MEMORY:
        pytest.skip(f"needs {MEMORY >> 30} GiB of the GPU's memory, {free >> 30} are free")
    yield
    torch.cuda.empty_cache()


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=DTYPE).requires_grad_()


def _compare(
    found: Tensor, inputs: list[Tensor], grad: Tensor, grads: list[Tensor], formula: Callable[..., Tensor]
) -> None:
    """Results and gradients of whole rows (of `found`, [N, D]) against float32, piece by piece."""
    for start in range(0, len(found), PIECE):
        rows = slice(start, start + PIECE)
        leaves = [each.detach()[rows].float().requires_grad_() for each in inputs]
        expected = formula(*leaves)
        wanted = torch.autograd.grad(expected, leaves, grad[rows].float())
        for a, b in zip((found[rows], *(each[rows] for each in grads)), (expected, *wanted), strict=True):
            torch.testing.assert_close(a.float(), b.detach(), rtol=2e-2, atol=2e-2)


def test_a_flat_kernel(tmp_path: Path) -> None:
    text = "module M() { forward(x: float[N], y: float[N]) -> float[N] { return silu(x) * y } }"
    module = executed(text, tmp_path).M()
    inputs = [_random(COUNT), _random(COUNT)]
    grad = torch.randn(COUNT, device=DEVICE, dtype=DTYPE)
    found = module(*inputs)
    grads = torch.autograd.grad(found, inputs, grad)
    # As rows of 2^17, but for the last elements.
    whole, last = COUNT >> 17 << 17, slice(COUNT - 31, COUNT)
    _compare(*_as_rows(found.detach(), inputs, grad, grads, slice(0, whole), (-1, 1 << 17)), lambda x, y: F.silu(x) * y)
    _compare(*_as_rows(found.detach(), inputs, grad, grads, last, (1, -1)), lambda x, y: F.silu(x) * y)


def _as_rows(
    found: Tensor, inputs: list[Tensor], grad: Tensor, grads: tuple[Tensor, ...], part: slice, shape: tuple[int, int]
) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
    def cut(each: Tensor) -> Tensor:
        return each.detach()[part].view(shape)

    return cut(found), list(map(cut, inputs)), cut(grad), list(map(cut, grads))


@pytest.mark.parametrize("kind", ["rows", "tiles"])
def test_kernels_over_rows(kind: str, tmp_path: Path) -> None:
    body = {"rows": "rms_norm(x, [dim], weight, 1e-6)", "tiles": "gelu(x * weight)"}[kind]
    formula: Callable[[Tensor, Tensor], Tensor] = {
        "rows": lambda x, w: F.rms_norm(x, (COLS,), w, 1e-6),
        "tiles": lambda x, w: F.gelu(x * w),
    }[kind]
    text = f"""module M(dim: int) {{
    param weight: [dim] = normal(mean=1.0, std=0.1)
    forward(x: float[N, dim]) -> float[N, dim] {{ return {body} }}
}}"""
    module = executed(text, tmp_path).M(COLS).to(DEVICE, DTYPE)
    x, grad = _random(ROWS, COLS), torch.randn(ROWS, COLS, device=DEVICE, dtype=DTYPE)
    found = module(x)
    d_x, d_weight = torch.autograd.grad(found, (x, module.weight), grad)
    weight = module.weight.detach().float()
    _compare(found.detach(), [x], grad, [d_x], lambda each: formula(each, weight))
    wanted = _weight_gradient(x, weight, grad, formula)
    assert (d_weight.double() - wanted).norm() < 2e-2 * wanted.norm()


def _weight_gradient(x: Tensor, weight: Tensor, grad: Tensor, formula: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    total = torch.zeros(COLS, dtype=torch.float64, device=DEVICE)
    leaf = weight.clone().requires_grad_()
    for start in range(0, ROWS, PIECE):
        rows = slice(start, start + PIECE)
        (part,) = torch.autograd.grad(formula(x.detach()[rows].float(), leaf), leaf, grad[rows].float())
        total += part.double()
    return total
