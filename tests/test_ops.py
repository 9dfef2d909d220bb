"""Each op's record: its gradient in float64 against PyTorch's, its Triton's meaning against its PyTorch text."""

from __future__ import annotations

import pytest
import torch

from tdsl.compiler.ops import OPS, Kind
from tdsl.compiler.passes.differentiate import differentiate
from tdsl.compiler.passes.lower import lower
from tdsl.runtime import launch
from tests.helpers import compiled, group_of
from tests.interpret import evaluate, reference
from tests.kernel_cases import BATCHES, SPLIT

DRAWN = set(BATCHES["random"])
PROGRAMS = {n: t for b in BATCHES.values() for n, t in b.items() if n not in SPLIT | DRAWN}
# Made only by lowerings and VJPs, in no signature of the language.
INTERNAL = {"uniform", "gaussian", "power", "length", "stop", "spread", "row_sum", "row_max", "row_min", "col_sum",
            "all_sum", "at_least", "at_most", "both", "either", "opposite", "whole", "whole_quotient", "real", "integer", "upcast",
            "downcast", "column", "scan_sum", "scan_back"}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_derived_backward_is_that_of_autograd(name: str) -> None:
    group = group_of(compiled(PROGRAMS[name]), name)
    kernel = differentiate(lower(group))
    torch.manual_seed(1)
    sizes = {"B": 4, "T": 3, "D": 33, "...": 4}
    inputs = [_input(v.type.dtype, [_size(s, sizes) for s in v.type.shape]) for v in group.body.inputs]
    expected = reference(group, inputs)
    grads = [torch.randn_like(o) for o in expected if o.is_floating_point()]
    leaves = [t for t in inputs if t.requires_grad]
    wanted = torch.autograd.grad([o for o in expected if o.is_floating_point()], leaves, grads, allow_unused=True)
    results, gradients = evaluate(kernel, inputs, grads)
    for found, right in zip(results, expected, strict=True):
        torch.testing.assert_close(found, right.detach(), rtol=1e-7, atol=1e-7)
    for found, right in zip(gradients, wanted, strict=True):
        assert (found is None) == (right is None)
        if right is not None:
            torch.testing.assert_close(found, right, rtol=1e-7, atol=1e-7)


def _size(size: object, sizes: dict[str, int]) -> int:
    text = str(size)
    return int(text) if text.isdigit() else sizes[text]


def _input(dtype: str, shape: list[int]) -> torch.Tensor:
    if dtype == "bool":
        return torch.rand(shape) < 0.5
    if dtype == "i64":
        return torch.randint(1, 8, shape)
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


def test_every_fusible_op_is_in_a_kernel_test() -> None:
    tested = {n.op.name for b in BATCHES.values() for m in _modules("".join(b.values())) for n in m}
    fusible = {op.name for op in OPS.values() if op.fusible and op.kind is not Kind.LIBRARY}
    assert fusible - tested - INTERNAL == set()


def _modules(text: str) -> list[tuple[object, ...]]:
    from tests.helpers import built

    return [m.graph.nodes for m in built(text).modules]


def test_what_a_kernel_takes_is_what_the_interpreter_gets_right() -> None:
    assert torch.float32 in launch.KERNEL_DTYPES
    assert not launch.use_kernels(torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("op", sorted({op.name for op in OPS.values()}))
def test_a_record_is_whole(op: str) -> None:
    record = OPS[op]
    assert record.torch
    assert not (record.triton and record.lower), "a primitive, or made of others"
    if record.kind in (Kind.POINTWISE, Kind.REDUCTION, Kind.ROW, Kind.RANDOM):
        assert record.fusible
