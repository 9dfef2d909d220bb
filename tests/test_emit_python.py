"""Graphs as statements of Python: their text, and that they compute what their nodes do."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tdsl.compiler.emit.python import block_lines, graph_lines
from tdsl.compiler.emit.reference import reference_lines
from tdsl.compiler.ir import Graph, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.ops.op import OPS
from tdsl.compiler.ops.trace import Tracer
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.size import Size, Symbol
from tests.graphs import REST, B, T, body, function_of, param, tensor

# Expressions ----------------------------------------------------------------------------------------------------------

EXPRESSIONS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a - (b - a),
    lambda a, b: a - b - a,
    lambda a, b: (a + b) * (a - b) / (a * b),
    lambda a, b: a / (b / a) / b,
    lambda a, b: -(a * b) + -a,
    lambda a, b: 2.0 - -a * b,
    lambda a, b: (a > b) == (b > a),
    lambda a, b: 1e-5 * a + 3e20 / b,
]
POWERS: list[tuple[str, Callable[[Any, Any], Any], Callable[[Tensor], Tensor]]] = [
    ("x**2", lambda t, x: t.pow(x, 2), lambda x: x**2),
    ("(-x)**2", lambda t, x: t.pow(-x, 2), lambda x: (-x) ** 2),
    ("-x**2", lambda t, x: -t.pow(x, 2), lambda x: -(x**2)),
    ("x**-2", lambda t, x: t.pow(x, -2), lambda x: x**-2),
    ("(x**3)**2", lambda t, x: t.pow(t.pow(x, 3), 2), lambda x: (x**3) ** 2),
    ("2**x", lambda t, x: t.pow(2, x), lambda x: 2**x),
    ("(x + 1)**2", lambda t, x: t.pow(x + 1, 2), lambda x: (x + 1) ** 2),
]


def traced(write: Callable[[Tracer, Any], Any]) -> Graph:
    tracer = Tracer()
    a, b = tensor("a", B), tensor("b", B)
    result = write(tracer, (tracer.wrap(a), tracer.wrap(b)))
    return Graph("f", (a, b), (), tuple(tracer.nodes), (result.value,))


@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
def test_operators_keep_their_order(number: int) -> None:
    write = EXPRESSIONS[number]
    graph = traced(lambda t, x: t.eq(x[0] > x[1], x[1] > x[0]) if number == 6 else write(*x))
    function = function_of(graph_lines(graph), "a", "b")
    a, b = torch.randn(50), torch.randn(50)
    assert torch.equal(function(a, b), write(a, b))


@pytest.mark.parametrize(("text", "write", "oracle"), POWERS, ids=[p[0] for p in POWERS])
def test_powers(text: str, write: Callable[[Any, Any], Any], oracle: Callable[[Tensor], Tensor]) -> None:
    graph = traced(lambda t, x: write(t, x[0]))
    (line,) = graph_lines(graph)
    assert line.removeprefix("return ").replace(" ** ", "**") == text.replace("x", "a")
    a = torch.randn(50)
    assert torch.equal(function_of([line], "a")(a), oracle(a))


@pytest.mark.parametrize(
    ("text", "op", "attrs"),
    [
        ("x.flatten(1)", "flatten", {"start_dim": 1}),
        ("x.flatten(0, 1)", "flatten", {"end_dim": 1}),
        ("x.flatten()", "flatten", {}),
        ("x.transpose(1, 2)", "transpose", {"dim0": 1, "dim1": 2}),
        ("x.permute(0, 2, 1)", "permute", {"dims": (0, 2, 1)}),
        ("x.unsqueeze(-1)", "unsqueeze", {"dim": -1}),
        ("x.squeeze(0)", "squeeze", {"dim": 0}),
        ("x.sum(dim=(1, 2), keepdim=True)", "sum", {"dim": (1, 2), "keepdim": True}),
        ("F.softmax(x, dim=-1)", "softmax", {"dim": -1}),
        ('F.gelu(x, approximate="tanh")', "gelu", {"approximate": "tanh"}),
        ("F.leaky_relu(x)", "leaky_relu", {}),
        ("F.leaky_relu(x, negative_slope=1e-5)", "leaky_relu", {"negative_slope": 1e-5}),
        ("torch.linalg.vector_norm(x, dim=-1)", "norm", {"dim": -1}),
        ("F.layer_norm(x, (6,))", "layer_norm", {"normalized_shape": 6}),
        ("x[:, 1:3, None]", "index", {"items": (("slice", None, None, None), ("slice", 1, 3, None), None)}),
        ("x.mT", "swap_last", {}),
    ],
)
def test_arguments_are_given_as_a_person_gives_them(text: str, op: str, attrs: dict[str, Any]) -> None:
    x = tensor("x", 4, 5, 6)
    b = body(x)
    made = b(op, x, **attrs)
    (line,) = graph_lines(b.graph((made,), {}))
    assert line == f"return {text}"
    result = function_of([line], "x")(torch.randn(4, 5, 6))
    assert list(result.shape) == [s.constant for s in made.type.shape]


def test_a_method_of_an_expression_is_parenthesised() -> None:
    x = tensor("x", B, 6)
    b = body(x)
    graph = b.graph((b("matmul", b("swap_last", b("add", x, 1.0)), b("identity", b("add", x, 2.0))),), {})
    assert graph_lines(graph) == ["return (x + 1.0).mT @ (x + 2.0)"]


def test_bounds_by_name() -> None:
    x = tensor("x", B)
    b = body(x)
    graph = b.graph((b("clamp", b("clamp", x, 1e-6), Scalar(None), 2.0),), {})
    assert graph_lines(graph) == ["return torch.clamp(torch.clamp(x, min=1e-6), max=2.0)"]


# Statements -----------------------------------------------------------------------------------------------------------


def test_names_are_bound_again_where_the_older_value_is_dead() -> None:
    x = tensor("x", B, 4)
    b = body(x)
    second = b("relu", b("mul", x, 2.0, name="x"), name="x")
    assert graph_lines(b.graph((b("add", second, 1.0),), {})) == [
        "x = x * 2.0  # [B, 4]",
        "x = F.relu(x)  # [B, 4]",
        "return x + 1.0",
    ]


def test_names_that_are_still_read_are_kept() -> None:
    x = tensor("x", B, 4)
    b = body(x)
    second = b("mul", x, 2.0, name="x")
    lines = graph_lines(b.graph((b("add", b("relu", second, name="h"), x),), {}))
    assert lines == ["x_2 = x * 2.0  # [B, 4]", "h = F.relu(x_2)  # [B, 4]", "return h + x"]


def test_a_nested_expression_still_reads_the_older_value() -> None:
    """`x - 1` is written after the name `x` could have been bound again."""
    x = tensor("x", B, 4)
    b = body(x)
    nested = b("sub", x, 1.0)
    newer = b("mul", x, 2.0, name="x")
    graph = b.graph((b("add", b("mul", newer, newer), nested),), {})
    value = torch.randn(3, 4)
    assert torch.equal(function_of(graph_lines(graph), "x")(value), (value * 2) * (value * 2) + (value - 1))


def test_values_used_twice_get_names_and_long_lines_are_divided() -> None:
    x = tensor("x", B, 4)
    b = body(x)
    once = b("exp", x)
    twice = b("mul", once, once)
    for _ in range(30):
        twice = b("sin", twice)
    lines = graph_lines(b.graph((twice,), {}))
    assert lines[0] == "exp = torch.exp(x)"
    assert all(len(line) <= 112 for line in lines)
    value = expected = torch.randn(3, 4)
    expected = expected.exp() * expected.exp()
    for _ in range(30):
        expected = expected.sin()
    assert torch.equal(function_of(lines, "x")(value), expected)


def test_random_draws_keep_their_order() -> None:
    x = tensor("x", B, 4)
    b = body(x)
    first, second = b("randn_like", x), b("rand_like", x, name="u")
    graph = b.graph((b("sub", b("mul", second, second), first),), {})
    value = torch.zeros(3, 4)
    torch.manual_seed(0)
    found = function_of(graph_lines(graph), "x")(value)
    torch.manual_seed(0)
    normal, uniform = torch.randn_like(value), torch.rand_like(value)
    assert torch.equal(found, uniform * uniform - normal)


def random_graph(seed: int) -> tuple[Graph, Callable[[Tensor, Tensor], list[Tensor]]]:
    """A graph of arithmetic and random draws with few names, and what it computes node by node."""
    choose = random.Random(seed)
    x, y = tensor("x", B, 4), tensor("y", B, 4)
    b = body(x, y)
    values: list[Value] = [x, y]
    steps: list[tuple[str, tuple[int, ...]]] = []
    for _ in range(choose.randint(3, 14)):
        op = choose.choice(["add", "sub", "mul", "neg", "tanh", "rand_like", "randn_like", "maximum"])
        places = tuple(
            choose.randrange(max(0, len(values) - 5), len(values)) for arg in OPS[op].signature if arg.is_operand
        )
        values.append(b(op, *(values[i] for i in places), name=choose.choice(["", "", "", "x", "y", "h"])))
        steps.append((op, places))
    results = [choose.randrange(2, len(values)) for _ in range(choose.randint(1, 3))]

    needed = set(results)
    for i in range(len(steps) - 1, -1, -1):
        needed |= set(steps[i][1]) if i + 2 in needed else set()

    def evaluate(first: Tensor, second: Tensor) -> list[Tensor]:
        made = [first, second]
        for i, (op, places) in enumerate(steps, start=2):
            made.append(getattr(torch, op)(*(made[j] for j in places)) if i in needed else first)
        return [made[i] for i in results]

    return b.graph(tuple(values[i] for i in results), {}), evaluate


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_random_graphs_compute_what_their_nodes_do(start: int) -> None:
    """Names bound again, expressions nested, draws in order: as if each node were a statement."""
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    for seed in range(start, start + 100):
        graph, evaluate = random_graph(seed)
        lines = graph_lines(graph)
        torch.manual_seed(seed)
        found = function_of(lines, "x", "y")(first, second)
        torch.manual_seed(seed)
        expected = evaluate(first, second)
        found = found if isinstance(found, tuple) else (found,)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), "\n".join(lines)


def test_what_is_not_needed_is_not_written() -> None:
    x = tensor("x", B, 4)
    b = body(x)
    b("exp", x, name="unused")
    first, _ = b("chunk", x, chunks=2, dim=-1, name="q k")
    lines = graph_lines(b.graph((b("add", first, 1.0),), {}))
    assert lines == ["q, _ = x.chunk(2, dim=-1)  # [B, 2]", "return q + 1.0"]


def test_run_time_sizes_are_read_once() -> None:
    x = tensor("x", B, T, param("dim"))
    b = body(x)
    with knowing({Symbol("dim", param=True): 8, Symbol("heads", param=True): 2}):
        head = b("reshape", x, shape=(B, T, param("heads"), param("dim") // param("heads")), name="h")
        lines = graph_lines(b.graph((b("reshape", head, shape=(B, T * param("dim"))),), {}))
    assert lines == [
        "B, T, _ = x.shape",
        "h = x.reshape(B, T, self.heads, self.dim // self.heads)  # [B, T, heads, dim // heads]",
        "return h.reshape(B, T * self.dim)",
    ]


def test_a_size_read_once_is_read_in_place() -> None:
    x = tensor("x", B, 3, 4)
    b = body(x)
    assert graph_lines(b.graph((b("reshape", x, shape=(B, 12)),), {})) == ["return x.reshape(x.shape[0], 12)"]


def test_a_size_of_an_input_that_is_bound_again_is_read_first() -> None:
    x = tensor("x", B, 3, 4)
    b = body(x)
    graph = b.graph((b("reshape", b("unsqueeze", x, dim=0, name="x"), shape=(B, 12)),), {})
    assert graph_lines(graph)[0] == "B = x.shape[0]"
    assert function_of(graph_lines(graph), "x")(torch.zeros(5, 3, 4)).shape == (5, 12)


def test_a_size_never_hides_a_name_that_is_needed() -> None:
    features = Size.of(Symbol("F"))
    x = tensor("x", features, 4)
    b = body(x)
    y = b("relu", b("reshape", x, shape=(features * 4,)))
    graph = b.graph((b("reshape", y, shape=(features, 2, 2)),), {})
    assert graph_lines(graph) == ["F_ = x.shape[0]", "return F.relu(x.reshape(4 * F_)).reshape(F_, 2, 2)"]


def test_sizes_after_leading_dimensions_are_counted_from_the_end() -> None:
    x = tensor("x", REST, T, 4)
    b = body(x)
    graph = b.graph((b("index", x, items=("...", ("slice", None, T // 2, None), ("slice", None, None, None))),), {})
    assert graph_lines(graph) == ["return x[..., : x.shape[-2] // 2, :]"]
    assert function_of(graph_lines(graph), "x")(torch.zeros(2, 3, 6, 4)).shape == (2, 3, 3, 4)


def test_a_list_of_modules_is_a_loop() -> None:
    tokens = tensor("tokens", B, dtype="i64")
    b = body(tokens)
    kind = TensorType("float", (B, Size.of(4)))
    table = b.parameter("embed.weight", TensorType("float", (Size.of(9), Size.of(4))))
    embedded = b("embedding", tokens, table, layer="embed")
    result = b.call("blocks", embedded, types=(kind,), op="call_list")
    lines = graph_lines(b.graph((b.linear("head", result, 4, 9),), {}))
    assert lines == [
        "x = self.embed(tokens)",
        "for block in self.blocks:",
        "    x = block(x)  # [B, 4]",
        "return self.head(x)",
    ]


def test_tracked_values_follow_the_loss() -> None:
    logits, mu = tensor("batch.logits", B, 4), tensor("batch.mu", B, 4)
    b = body(logits, mu, owner="")
    out = b.call("model", logits, types=(logits.type,), name="out")
    nll = b("div", b("sum", out), Scalar(B, "batch.logits.shape[0]"), name="nll")
    kl = b("mean", b("pow", mu, 2), name="kl")
    b.tracked["kl"] = kl
    graph = b.graph((b("add", nll, kl),), {})
    lines = block_lines(graph)
    assert lines == [
        "out = model(batch.logits)  # [B, 4]",
        "nll = out.sum() / batch.logits.shape[0]  # []",
        "kl = (batch.mu**2).mean()  # []",
        'return nll + kl, {"kl": kl}',
    ]
    batch = SimpleNamespace(logits=torch.randn(5, 4), mu=torch.randn(5, 4))
    loss, tracked = function_of(lines, "model", "batch")(nn.Tanh(), batch)
    assert torch.allclose(loss, batch.logits.tanh().sum() / 5 + (batch.mu**2).mean())
    assert torch.equal(tracked["kl"], (batch.mu**2).mean())


def test_calls_too_long_for_a_line_have_a_line_an_argument_in_the_order_written() -> None:
    names = ["anchor", "positive", "negative"]
    fields = [tensor(f"batch.{name}_with_a_long_name", B, 4) for name in names]
    b = body(*fields, owner="")
    outputs = [b.call("model", f, types=(f.type,)) for f in fields]
    lines = block_lines(b.graph((b("triplet_margin_loss", *outputs, margin=0.5),), {}))
    assert lines == [
        "return F.triplet_margin_loss(",
        *(f"    model(batch.{name}_with_a_long_name)," for name in names),
        "    margin=0.5,",
        ")",
    ]


def test_groups_call_kernels() -> None:
    x, a = tensor("x", B, param("dim")), tensor("a", B, param("dim"))
    b = body(x, a)
    weight = b.parameter("norm.0.weight", TensorType("float", (param("dim"),)))
    h = b("add", x, a, name="h")
    scale = b("rsqrt", b("add", b("mean", b("pow", h, 2), dim=-1, keepdim=True), Scalar(1e-6, "self.eps")))
    graph = fuse(b.graph((h, b("mul", b("mul", h, scale), weight)), {}))
    (node,) = graph.nodes
    assert node.group is not None
    assert graph_lines(graph) == [f"return kernels.{node.group.name}(x, a, self.norm[0].weight, self.eps)"]


def test_references_read_sizes_from_shapes_and_draw_from_the_seed() -> None:
    x, w = tensor("x", B, param("dim")), tensor("w", param("dim"))
    b = body(x, w)
    rate = Scalar(None, "self.p if self.training else 0.0")
    h = b("dropout", b("layer_norm", x, w, normalized_shape=(param("dim"),)), rate, layer="drop")
    graph = b.graph((b("add", h, b("randn_like", x)),), {})
    assert reference_lines(graph, {x: "x", w: "weight"}, {rate: "p"}) == [
        "return random.dropout(F.layer_norm(x, (x.shape[-1],), weight), p, seed) + random.randn_like(x, seed + 1)"
    ]
