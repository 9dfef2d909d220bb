"""What becomes one kernel and what does not."""

from __future__ import annotations

import pytest

from tests.helpers import compiled, graph_of


def _ops(
    body: str, inputs: str = "x: float[B, D], y: float[B, D]", result: str = "float[B, D]", members: str = ""
) -> list[str]:
    text = f"module M(D: int = 16) {{\n{members}\n    forward({inputs}) -> {result} {{\n{body}\n    }}\n}}\n"
    return [node.op.name for node in graph_of(compiled(text), "M").nodes]


@pytest.mark.parametrize(
    ("what", "body", "ops"),
    [
        ("a chain", "return tanh(x + y) * x", ["group"]),
        ("a single operation", "return tanh(x)", ["tanh"]),
        ("a chain cut by a product", "h = gelu(x * y)\nh = h @ h.T @ h\nreturn tanh(h) * h", ["group", "swap_last", "matmul", "matmul", "group"]),
        ("a sum over rows, used again", "return x / sum(x * x, dim=-1, keepdim=true)", ["group"]),
        ("a sum over all, used again", "return x + (x * x).sum()", ["group", "add"]),
        ("a sum over the first dimension, used again", "return x + (x * x).sum(dim=0)", ["group", "add"]),
        ("a norm alone", "return rms_norm(x, D)", ["group"]),
        ("the greatest of each column", "return x + (x * x).amax(dim=0)", ["mul", "amax", "add"]),
        ("what nothing needs", "z = exp(x) + 1\nreturn tanh(x) * y", ["group"]),
        ("the same thing twice", "return exp(x) * y + exp(x)", ["group"]),
    ],
    ids=lambda v: v if isinstance(v, str) and " " in v and "\n" not in v and "return" not in v else "",
)  # fmt: skip
def test_groups(what: str, body: str, ops: list[str]) -> None:
    assert _ops(body) == ops, what


def test_groups_do_not_wait_for_each_other() -> None:
    """`w * s` must not join `w`: it waits for `s`, which is there when the kernel of `j + w` is done."""
    body = "j = exp(x)\ns = j.sum(0)\nw = exp(v)\nreturn j + w, w * s"
    found = _ops(body, "x: float[B, D], v: float[D]", "(float[B, D], float[D])")
    assert found == ["exp", "group", "mul"]


def test_equal_things_are_computed_once() -> None:
    text = "module M(D: int = 8) {\n forward(x: float[B, D]) -> float[B, D] { return exp(x) * 2 + exp(x) }\n}\n"
    (node,) = graph_of(compiled(text), "M").nodes
    assert node.group is not None
    assert [n.op.name for n in node.group.body.nodes].count("exp") == 1


def test_no_group_waits_for_itself() -> None:
    """`z` needs the group's `h` through a product, and `h` again: joined, they would never start."""
    body = "h = tanh(x) * y\np = h @ h.T @ h\nreturn h + p * 2"
    assert _ops(body) == ["group", "swap_last", "matmul", "matmul", "group"]


def test_several_results_leave_one_kernel() -> None:
    ops = _ops(
        "h = x + y\nreturn h, h * rsqrt(mean(h ** 2, dim=-1, keepdim=true) + 1e-6)", result="(float[B, D], float[B, D])"
    )
    assert ops == ["group"]


def test_rows_of_different_lengths_are_different_kernels() -> None:
    body = "a = x * sum(x, dim=-1, keepdim=true)\nreturn a * sum(a, dim=(1, 2), keepdim=true)"
    assert len(_ops(body, "x: float[B, T, D]", "float[B, T, D]")) == 2


def test_double_precision_is_left_to_pytorch() -> None:
    assert "group" not in _ops("return tanh(x) * x", "x: f64[B, D]", "f64[B, D]")
