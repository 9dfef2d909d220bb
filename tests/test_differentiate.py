"""What a derived backward reads, keeps and writes. That its numbers are right is in test_ops and test_kernels."""

from __future__ import annotations

import pytest

from tdsl.compiler.kernel import Kernel, Layout
from tdsl.compiler.passes.differentiate import differentiate
from tdsl.compiler.passes.lower import lower
from tests.helpers import compiled, group_of


def _kernel(
    body: str, inputs: str = "x: float[B, D], y: float[B, D]", result: str = "float[B, D]", members: str = ""
) -> Kernel:
    text = f"module M(D: int = 16) {{\n{members}\n    forward({inputs}) -> {result} {{\n{body}\n    }}\n}}\n"
    return differentiate(lower(group_of(compiled(text), "M")))


RMS = "return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 1e-6) * weight"


def test_a_norm_keeps_one_number_a_row() -> None:
    kernel = _kernel(RMS, "x: float[B, D]", members="    param weight: [D] = ones()")
    assert len(kernel.saved_rows) == 1
    assert [p.name for p in kernel.saved_inputs] == ["x", "weight"]
    assert {g.port.name: g.layout for g in kernel.gradients} == {"x": Layout.FULL, "weight": Layout.COL}


def test_a_layer_norm_keeps_two_numbers_a_row() -> None:
    body = "return layer_norm(x + y, D, weight, bias)"
    kernel = _kernel(body, members="    param weight: [D] = ones()\n    param bias: [D] = ones()")
    assert len(kernel.saved_rows) == 2
    assert all(v.type.shape[1].constant == 1 for v in kernel.saved_rows)


def test_what_is_cheap_is_computed_again() -> None:
    kernel = _kernel("return gelu(x) * tanh(y)")
    assert kernel.saved == ()
    assert [p.name for p in kernel.saved_inputs] == ["x", "y"]


def test_a_vector_is_summed_once_however_often_it_is_used() -> None:
    kernel = _kernel(
        "return sigmoid(x * weight) * (x + weight) * weight", "x: float[B, D]", members="    param weight: [D] = ones()"
    )
    assert kernel.backward is not None
    assert [n.op.name for n in kernel.backward.nodes].count("col_sum") == 1


@pytest.mark.parametrize(("inputs", "body"), [("x: float[B, D], n: int[B, D]", "return where(x > 0.5, n * 2, n)")])
def test_integers_have_no_backward(inputs: str, body: str) -> None:
    assert _kernel(body, inputs, "int[B, D]").backward is None


def test_a_detached_value_hands_nothing_back() -> None:
    kernel = _kernel("return where(x > 0, y * 2, 0.5)")
    assert [g.port.name for g in kernel.gradients] == ["y"]


def test_dropout_is_drawn_again_not_stored() -> None:
    kernel = _kernel("return dropout(x * 2, 0.5)", "x: float[B, D]")
    assert kernel.saved == ()
    assert kernel.backward is not None
    assert "uniform" in [n.op.name for n in kernel.backward.nodes]
