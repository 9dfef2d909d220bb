"""Tensors made of numbers: values, dtypes and shapes are PyTorch's, what PyTorch refuses is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.expressions import agree, compiled, inputs, pairs, refused

CALLS = pairs("""
    zeros(2, 3) === torch.zeros(2, 3)
    zeros((2, 3)) === torch.zeros(2, 3)
    zeros([2, 3], dtype=bf16) === torch.zeros(2, 3, dtype=torch.bfloat16)
    zeros(size=(2, B)) === torch.zeros(2, B)
    zeros(B, T) === torch.zeros(B, T)
    zeros((B, T + 1, 2 * H), dtype=int) === torch.zeros(B, T + 1, 2 * H, dtype=torch.int64)
    zeros(()) === torch.zeros(())
    zeros(0) === torch.zeros(0)
    ones(B) === torch.ones(B)
    ones(T, T, dtype=bool) === torch.ones(T, T, dtype=torch.bool)
    full((B, 2), 1.5) === torch.full((B, 2), 1.5)
    full((2,), 3) === torch.full((2,), 3)
    full([2, T], true) === torch.full((2, T), True)
    full((2, 2), fill_value=inf) === torch.full((2, 2), float("inf"))
    full((2,), 1, dtype=f32) === torch.full((2,), 1, dtype=torch.float32)
    full((2,), T) === torch.full((2,), T)
    tensor(1.5) === torch.tensor(1.5)
    tensor([1, 2, 3]) === torch.tensor([1, 2, 3])
    tensor([[1, 2.5], [3, 4]]) === torch.tensor([[1, 2.5], [3, 4]])
    tensor([true, false]) === torch.tensor([True, False])
    tensor([true, 2]) === torch.tensor([True, 2])
    tensor([]) === torch.tensor([])
    tensor([[], []]) === torch.tensor([[], []])
    tensor([1, 2], dtype=f64) === torch.tensor([1, 2], dtype=torch.float64)
    tensor([T, 2 * B]) === torch.tensor([T, 2 * B])
    tensor([-1.5, 1e-3]) === torch.tensor([-1.5, 1e-3])
    arange(5) === torch.arange(5)
    arange(T) === torch.arange(T)
    arange(end=5) === torch.arange(end=5)
    arange(T, dtype=float) === torch.arange(T, dtype=torch.float32)
    arange(1, T + 1) === torch.arange(1, T + 1)
    arange(0, 10, 3) === torch.arange(0, 10, 3)
    arange(0, 2 * H, 2) === torch.arange(0, 2 * H, 2)
    arange(0, T, 2) === torch.arange(0, T, 2)
    arange(start=2, end=9, step=2) === torch.arange(2, 9, 2)
    arange(T, 0, -1) === torch.arange(T, 0, -1)
    arange(9, -1, -2) === torch.arange(9, -1, -2)
    arange(0, 1, 0.1) === torch.arange(0, 1, 0.1)
    arange(2.5) === torch.arange(2.5)
    arange(1.0, -1.0, -0.25) === torch.arange(1.0, -1.0, -0.25)
    arange(0.0, 4) === torch.arange(0.0, 4)
    linspace(0, 1, 5) === torch.linspace(0, 1, 5)
    linspace(-1.0, 1.0, T) === torch.linspace(-1, 1, T)
    linspace(s, 1.0, steps=3) === torch.linspace(s, 1.0, 3)
    linspace(0, 10, steps=4, dtype=int) === torch.linspace(0, 10, 4, dtype=torch.int64)
    eye(3) === torch.eye(3)
    eye(T, 4) === torch.eye(T, 4)
    eye(3, m=2, dtype=bool) === torch.eye(3, 2, dtype=torch.bool)
    tril(c) === torch.tril(c)
    triu(c, 1) === torch.triu(c, 1)
    t.tril(diagonal=-1) === t.tril(-1)
    tril(ones(T, T, dtype=bool)) === torch.ones(T, T, dtype=torch.bool).tril()
    triu(full((T, T), -inf), diagonal=1) === torch.full((T, T), float("-inf")).triu(1)
    zeros_like(x) === torch.zeros_like(x)
    zeros_like(n, dtype=float) === torch.zeros_like(n, dtype=torch.float32)
    ones_like(m) === torch.ones_like(m)
    full_like(x, 2.5) === torch.full_like(x, 2.5)
    full_like(n, 2.5) === torch.full_like(n, 2.5)
    full_like(n, true, dtype=bool) === torch.full_like(n, True, dtype=torch.bool)
    x.zeros_like() === torch.zeros_like(x)
    one_hot(n, 3) === F.one_hot(n, 3)
    one_hot(k, num_classes=B + 2) === F.one_hot(k, B + 2)
    n.one_hot(10).float() === F.one_hot(n, 10).float()
    zeros(B, 8) + x === x
    zeros(x.shape) === torch.zeros(x.shape)
    zeros(x.size(0), dtype=x.dtype) === torch.zeros(B)
    rand(B, T) === torch.rand(B, T)
    rand((2, 3), dtype=f64) === torch.rand(2, 3, dtype=torch.float64)
    randn(2) === torch.randn(2)
    randn(B, 1, 1) === torch.randn(B, 1, 1)
    randint(10, (B,)) === torch.randint(10, (B,))
    randint(0, T, (B, 2)) === torch.randint(0, T, (B, 2))
    randint(-2, 2, [3], dtype=i32) === torch.randint(-2, 2, (3,), dtype=torch.int32)
    randint(high=4, size=(2, 2)) === torch.randint(4, (2, 2))
    rand_like(x) === torch.rand_like(x)
    randn_like(x) === torch.randn_like(x)
    rand_like(x, dtype=f64) === torch.rand_like(x, dtype=torch.float64)
    randn_like(n, dtype=float) === torch.randn_like(n, dtype=torch.float32)
    rand(4) - rand(4) === torch.rand(4) - torch.rand(4)
""")


@pytest.mark.parametrize(("text", "oracle"), CALLS)
def test_values_are_pytorchs(text: str, oracle: str, tmp_path: Path) -> None:
    agree(text, oracle, tmp_path)


REFUSED = {
    "zeros()": "E202",
    "zeros(-1)": "E203",
    "zeros(size=3)": "E202",
    "zeros(2, 1.5)": "E202",
    "zeros(2, dtype=3)": "E202",
    "zeros(2, device=0)": "E202",
    "full(())": "E202",
    "full((2,), none)": "E202",
    "full((2,), [1])": "E202",
    'tensor("a")': "E202",
    "tensor([[1], [1, 2]])": "E203",
    "tensor([1, [2]])": "E203",
    "tensor(x)": "E202",
    "arange()": "E202",
    "arange(5, 0)": "E203",
    "arange(0, 5, 0)": "E203",
    "arange(0, 5, -1)": "E203",
    "arange(0.0, T, 0.5)": "E208",
    "arange(T, B)": "E208",
    "arange(0, B, T)": "E208",
    "linspace(0, 1)": "E202",
    "linspace(0, 1, -2)": "E203",
    "linspace(v, 1, 2)": "E203",
    "eye(-1)": "E203",
    "tril(v)": "E203",
    "tril(c, 1.0)": "E202",
    "rand_like(n)": "E205",
    "rand(2, dtype=int)": "E205",
    "randint(5, 5, (2,))": "E203",
    "randint(10)": "E202",
    "randint(0, 2.5, (2,))": "E202",
    "one_hot(n)": "E208",
    "one_hot(x, 3)": "E205",
    "one_hot(n, 0)": "E203",
    "full_like(x)": "E202",
}


@pytest.mark.parametrize(("text", "code"), REFUSED.items())
def test_what_pytorch_refuses_is_refused(text: str, code: str) -> None:
    assert refused(text).code == code


def test_tensors_are_made_where_the_inputs_lie(tmp_path: Path) -> None:
    """Nothing is made on the CPU and copied: on the `meta` device, a copy from the CPU would show."""
    calls = (
        "zeros(B, 8)",
        "arange(T)",
        "tensor([1.0, 2.0])",
        "eye(3)",
        "rand(2)",
        "randint(3, (B,))",
        "full((2,), 1.0)",
    )
    for text in (*calls, "linspace(0, 1, 3)"):
        expression = compiled(text, tmp_path)
        given = [t.to("meta") for t in inputs({"B": 2, "T": 3, "H": 2}).values()]
        assert expression.run(*given).device.type == "meta", text


def test_two_draws_are_two(tmp_path: Path) -> None:
    """Equal calls are computed once elsewhere; random ones are not."""
    expression = compiled("rand(100), rand(100)", tmp_path)
    first, second = expression.run(*inputs({"B": 2, "T": 3, "H": 2}).values())
    assert not torch.equal(first, second)


def test_what_is_emitted_reads_well(tmp_path: Path) -> None:
    text = agree("arange(0, T, 2)", "torch.arange(0, T, 2)", tmp_path)
    assert "torch.arange(0, t.shape[1], 2, device=x.device)" in text


def test_cures() -> None:
    assert refused("one_hot(n)").help == "say it: `num_classes=10`"
    assert refused("arange(0.0, T, 0.5)").help == "count with integers and multiply: `arange(T) * 0.5`"
    assert refused("arange(T, B)").help == "state it: `assume T <= B`"
