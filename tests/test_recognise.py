"""What is written out in arithmetic gets the form that has a name, and nothing else does."""

from __future__ import annotations

import pytest

from tdsl.compiler.passes.recognise import recognise
from tdsl.compiler.passes.tidy import prune, share
from tests.helpers import compiled, graph_of


def ops(body: str, inputs: str = "x: float[B, 8]", result: str = "float[B, 8]") -> list[str]:
    """The operations of a body after `recognise`."""
    text = f"module M() {{\n    forward({inputs}) -> {result} {{\n        {body}\n    }}\n}}\n"
    return [node.op.name for node in graph_of(compiled(text, (share, prune, recognise)), "M").nodes]


@pytest.mark.parametrize(
    "body",
    [
        "return 0.5 * x * (1 + erf(x * 0.7071067811865476))",
        "return x * 0.5 * (1.0 + erf(x / 1.4142135623730951))",
        "return x * (erf(x * 0.70710678) + 1) / 2",
        "return (1 + erf(x / 1.4142135623730951)) * x * 0.5",
        "return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x ** 3)))",
        "return 0.5 * x * (1 + tanh(0.79788456 * (x + 0.044715 * x * x * x)))",
        "return x * (1 + tanh((0.044715 * x ** 3 + x) * 0.7978845608028654)) * 0.5",
    ],
)
def test_gelu(body: str) -> None:
    assert ops(body) == ["gelu"]


@pytest.mark.parametrize(
    "body",
    [
        "return 0.5 * x * (1 + erf(x * 0.7))",
        "return 0.5 * x * (1 + erf(x ** 2 * 0.7071067811865476))",
        "return 0.4 * x * (1 + erf(x * 0.7071067811865476))",
        "return 0.5 * x * (2 + erf(x * 0.7071067811865476))",
        "return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.05 * x ** 3)))",
        "return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x ** 2)))",
        "return 0.5 * x.detach() * (1 + erf(x * 0.7071067811865476))",
    ],
)
def test_what_is_nearly_a_gelu(body: str) -> None:
    assert "gelu" not in ops(body)


def test_what_else_is_read_of_a_gelu_stays() -> None:
    body = "e = erf(x * 0.7071067811865476)\n        return 0.5 * x * (1 + e) + e"
    assert "gelu" not in ops(body)


HEADS = "q: float[B, 4, T, 16], k: float[B, 4, S, 16], v: float[B, 4, S, 8]"
SQUARE = "q: float[B, 4, T, 16], k: float[B, 4, T, 16], v: float[B, 4, T, 16]"


def attended(body: str, inputs: str = HEADS, result: str = "float[B, 4, T, 8]") -> dict[str, object]:
    """What `attention` is told, where a body is one; else nothing."""
    text = f"module M() {{\n    forward({inputs}) -> {result} {{\n        {body}\n    }}\n}}\n"
    nodes = graph_of(compiled(text, (share, prune, recognise, prune)), "M").nodes
    if [n.op.name for n in nodes] != ["attention"]:
        return {}
    return {**nodes[0].attrs, "bias": len(nodes[0].values) > 3}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return softmax(q @ k.T, -1) @ v", {"scale": 1.0, "causal": False, "bias": False}),
        ("return softmax(q @ k.T * 0.25, dim=-1) @ v", {"scale": 0.25}),
        ("return softmax(q @ k.transpose(-2, -1) / 4, 3) @ v", {"scale": 0.25}),
        ("return matmul(softmax(0.25 * matmul(q, k.transpose(2, 3)), -1), v)", {"scale": 0.25}),
    ],
)
def test_attention(body: str, told: dict[str, object]) -> None:
    found = attended(body)
    assert {name: found[name] for name in told} == told


def test_attention_with_dropout() -> None:
    rate = attended("return dropout(softmax(q @ k.T, -1), 0.2) @ v")["dropout_p"]
    assert getattr(rate, "text", "") == "0.2 if self.training else 0.0"


def test_attention_with_a_bias() -> None:
    found = attended("return softmax(q @ k.T * 0.25 + b, -1) @ v", f"{HEADS}, b: float[4, T, S]")
    assert found["bias"] is True
    assert found["scale"] == 0.25


@pytest.mark.parametrize(
    "mask",
    [
        "masked_fill(q @ k.T * 0.25, tril(ones(T, T)) == 0, -inf)",
        "masked_fill(q @ k.T * 0.25, triu(ones(T, T), 1).bool(), -1e9)",
        "where(tril(ones(T, T)) > 0, q @ k.T * 0.25, -1e9)",
        "where(logical_not(triu(ones(T, T), diagonal=1).bool()), q @ k.T * 0.25, -inf)",
    ],
)
def test_attention_to_what_came_before(mask: str) -> None:
    found = attended(f"return softmax({mask}, -1) @ v", SQUARE, "float[B, 4, T, 16]")
    assert found["causal"] is True
    assert found["scale"] == 0.25


@pytest.mark.parametrize(
    "body",
    [
        "return softmax(q @ k.T, 2) @ v",
        "return softmax(q @ k, -1) @ v",
        "return softmax(masked_fill(q @ k.T, triu(ones(T, T), 0).bool(), -inf), -1) @ v",
        "return softmax(masked_fill(q @ k.T, triu(ones(T, T), 1).bool(), 0.0), -1) @ v",
        "return softmax(masked_fill(q @ k.T, m, -inf), -1) @ v",
        "return softmax(sin(q @ k.T), -1) @ v",
        "w = softmax(q @ k.T, -1)\n        return w @ v + w.sum(-1, true)",
    ],
)
def test_what_is_nearly_attention(body: str) -> None:
    inputs = "q: float[B, 4, 16, 16], k: float[B, 4, 16, 16], v: float[B, 4, 16, 16], m: bool[16, 16]"
    assert attended(body.replace("T, T", "16, 16"), inputs, "float[B, 4, 16, 16]") == {}


LAYERS = """module M() {{
    a = Linear(8, 6{bias})
    b = Linear(8, 6{bias})
    c = Linear(8, 4{bias})
    d = Linear(8, 4{bias}, weight=c.weight)
    forward(x: float[B, 8], y: float[B, 8]) -> {result} {{
        {body}
    }}
}}
"""


def layered(body: str, bias: str = "", result: str = "float[B, 6]") -> list[str]:
    text = LAYERS.format(body=body, bias=bias, result=result)
    return [node.op.name for node in graph_of(compiled(text, (share, prune, recognise)), "M").nodes]


@pytest.mark.parametrize("bias", ["", ", bias=false"])
def test_layers_over_one_input(bias: str) -> None:
    assert layered("return silu(a(x)) * b(x)", bias) == ["linears", "chunk", "silu", "mul"]
    assert layered("return a(x), c(x)", bias, "(float[B, 6], float[B, 4])") == ["linears", "split"]


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("return a(x) + b(y)", "float[B, 6]"),
        ("return a(x) + a(x * 2)", "float[B, 6]"),
        ("return c(x) + d(x)", "float[B, 4]"),
    ],
)
def test_layers_that_stay_apart(body: str, result: str) -> None:
    assert "linears" not in layered(body, ", bias=false", result)


def test_what_layers_yield_is_called_after_them() -> None:
    text = LAYERS.format(
        body="g = a(x)\n        return silu(g) * b(x), g", bias="", result="(float[B, 6], float[B, 6])"
    )
    graph = graph_of(compiled(text, (share, prune, recognise)), "M")
    assert [v.name for v in graph.nodes[1].outputs] == ["g", "b"]
