"""Emitted modules and functions: their text, and that they compute what hand-written PyTorch does."""

from __future__ import annotations

import ast
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdsl.compiler.build.frame import GraphBuilder
from tdsl.compiler.build.unit import (
    ConstantMember,
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    ParameterIR,
    RepeatMember,
    RunIR,
    SequentialMember,
    TensorMember,
    Unit,
)
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.emit.python import block_lines, graph_lines
from tdsl.compiler.emit.reference import reference_lines
from tdsl.compiler.ir import Graph, Operand, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.ops.op import OPS, Bound
from tdsl.compiler.ops.trace import Tracer
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.size import Size, Symbol

B, T = Size.of(Symbol("B")), Size.of(Symbol("T"))
REST = Size.of(Symbol("..."))


def param(name: str) -> Size:
    return Size.of(Symbol(name, param=True))


def tensor(name: str, *shape: Size | int, dtype: str = "float") -> Value:
    return Value(TensorType(dtype, tuple(map(Size.of, shape))), name)


class Body(GraphBuilder):
    """A graph written by hand: `b("gelu", x, name="h")`."""

    def __call__(self, op: str, *operands: Operand | float, name: str = "", layer: str = "", **attrs: Any) -> Any:
        given = tuple(o if isinstance(o, (Value, Scalar)) else Scalar(o) for o in operands)
        made = self.record(op, given, attrs, None, layer)
        made = tuple(self.rename(v, n) for v, n in zip(made, name.split(), strict=False)) if name else made
        return made[0] if len(made) == 1 else made

    def call(
        self, layer: str, *values: Value, types: tuple[TensorType, ...], name: str = "", op: str = "call_module"
    ) -> Any:
        made = self.add(Bound(OPS[op], values, {}, None), types, layer)
        made = tuple(self.rename(v, n) for v, n in zip(made, name.split(), strict=False)) if name else made
        return made[0] if len(made) == 1 else made

    def linear(self, layer: str, x: Value, inputs: Size | int, outputs: Size | int, name: str = "") -> Value:
        weight = self.parameter(f"{layer}.weight", TensorType("float", (Size.of(outputs), Size.of(inputs))))
        bias = self.parameter(f"{layer}.bias", TensorType("float", (Size.of(outputs),)))
        return cast(Value, self("linear", x, weight, bias, name=name, layer=layer))


def body(*inputs: Value, owner: str = "self.") -> Body:
    return Body("forward", owner, list(inputs))


def compiled(lines: list[str], *parameters: str, **names: Any) -> Callable[..., Any]:
    """The function of these lines."""
    text = "\n".join([f"def function({', '.join(parameters)}):", *(f"    {line}" for line in lines)])
    space: dict[str, Any] = {"torch": torch, "F": F, **names}
    exec(text, space)
    return cast(Callable[..., Any], space["function"])


def module(name: str, graph: Graph, members: dict[str, Member] | None = None, **more: Any) -> ModuleIR:
    params = tuple(more.pop("params", ()))
    ties = tuple(more.pop("ties", ()))
    return ModuleIR(name, cast(Any, None), params, members or {}, ties, graph, **more)


def unit(*modules: ModuleIR, runs: dict[str, RunIR] | None = None) -> Unit:
    program = SimpleNamespace(source=SimpleNamespace(name="some/digits.model"))
    return Unit(cast(Any, program), modules, runs or {})


def executed(text: str, **names: Any) -> SimpleNamespace:
    space: dict[str, Any] = dict(names)
    exec(compile(text, "model.py", "exec"), space)
    return SimpleNamespace(**space)


def integer(name: str, default: int | None = None) -> ParameterIR:
    return ParameterIR(name, "int", default, default is None)


# Expressions ---------------------------------------------------------------------------------------------------------

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
    function = compiled(graph_lines(graph), "a", "b")
    a, b = torch.randn(50), torch.randn(50)
    assert torch.equal(function(a, b), write(a, b))


@pytest.mark.parametrize(("text", "write", "oracle"), POWERS, ids=[p[0] for p in POWERS])
def test_powers(text: str, write: Callable[[Any, Any], Any], oracle: Callable[[Tensor], Tensor]) -> None:
    graph = traced(lambda t, x: write(t, x[0]))
    (line,) = graph_lines(graph)
    assert line.removeprefix("return ").replace(" ** ", "**") == text.replace("x", "a")
    a = torch.randn(50)
    assert torch.equal(compiled([line], "a")(a), oracle(a))


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
    result = compiled([line], "x")(torch.randn(4, 5, 6))
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


# Statements ----------------------------------------------------------------------------------------------------------


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
    assert torch.equal(compiled(graph_lines(graph), "x")(value), (value * 2) * (value * 2) + (value - 1))


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
    assert torch.equal(compiled(lines, "x")(value), expected)


def test_random_draws_keep_their_order() -> None:
    x = tensor("x", B, 4)
    b = body(x)
    first, second = b("randn_like", x), b("rand_like", x, name="u")
    graph = b.graph((b("sub", b("mul", second, second), first),), {})
    value = torch.zeros(3, 4)
    torch.manual_seed(0)
    found = compiled(graph_lines(graph), "x")(value)
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
        found = compiled(lines, "x", "y")(first, second)
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
    assert compiled(graph_lines(graph), "x")(torch.zeros(5, 3, 4)).shape == (5, 12)


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
    assert compiled(graph_lines(graph), "x")(torch.zeros(2, 3, 6, 4)).shape == (2, 3, 3, 4)


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
    loss, tracked = compiled(lines, "model", "batch")(nn.Tanh(), batch)
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


# Modules -------------------------------------------------------------------------------------------------------------


def mlp() -> ModuleIR:
    x = tensor("x", B, 64)
    b = body(x)
    h = b("gelu", b.linear("up", x, 64, param("hidden")), name="h")
    rate = Scalar(None, "0.1 if self.training else 0.0")
    graph = b.graph((b.linear("down", b("dropout", h, rate), param("hidden"), param("classes")),), {})
    members: dict[str, Member] = {
        "up": LayerMember("nn.Linear", (("", 64), ("", param("hidden")))),
        "down": LayerMember("nn.Linear", (("", param("hidden")), ("", param("classes")), ("bias", False))),
    }
    params = (integer("hidden", 128), integer("classes", 10))
    return module("MLP", graph, members, params=params, doc="Two layers.")


MLP = '''\
"""Modules of digits.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Two layers."""

    def __init__(self, hidden: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.up = nn.Linear(64, hidden)
        self.down = nn.Linear(hidden, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, 64] -> [B, classes]
        h = F.gelu(self.up(x))  # [B, hidden]
        return self.down(F.dropout(h, 0.1, self.training))
'''


def test_the_text_of_a_module() -> None:
    assert model_text(unit(mlp())) == MLP
    assert model_text(unit(mlp())) == model_text(unit(mlp()))


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 32)
        self.down = nn.Linear(32, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.up(x)
        result: Tensor = self.down(F.dropout(F.gelu(hidden), 0.1, self.training))
        return result


def test_a_module_computes_what_pytorch_does() -> None:
    torch.manual_seed(0)
    hand = ByHand()
    made = executed(model_text(unit(mlp()))).MLP(hidden=32)
    made.load_state_dict(hand.state_dict())
    x = torch.randn(7, 64)
    for training in (True, False):
        results = []
        for each in (hand.train(training), made.train(training)):
            torch.manual_seed(1)
            each.zero_grad()
            loss = F.cross_entropy(each(x), torch.arange(7))
            loss.backward()
            results.append([loss.detach(), *(p.grad for p in each.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def norm_module() -> ModuleIR:
    x = tensor("x", REST, param("dim"))
    b = body(x)
    weight = b.parameter("weight", TensorType("float", (param("dim"),)))
    mean = b("mean", b("pow", x, 2), dim=-1, keepdim=True)
    scale = b("rsqrt", b("add", mean, Scalar(1e-6, "self.eps")))
    members: dict[str, Member] = {"weight": TensorMember((param("dim"),), "float", "ones", (), True)}
    params = (integer("dim"), ParameterIR("eps", "float", 1e-6, False))
    return module("RMSNorm", b.graph((b("mul", b("mul", x, scale), weight),), {}), members, params=params)


def block_module() -> ModuleIR:
    """The norm inlined: its `eps` is read through the module that has it."""
    x = tensor("x", B, param("dim"))
    b = body(x)
    weight = b.parameter("norm.weight", TensorType("float", (param("dim"),)))
    mean = b("mean", b("pow", x, 2), dim=-1, keepdim=True)
    scale = b("rsqrt", b("add", mean, Scalar(1e-5, "self.norm.eps")))
    h = b("mul", b("mul", x, scale), weight, name="h")
    graph = b.graph((b("add", x, b.linear("proj", h, param("dim"), param("dim"))),), {})
    members: dict[str, Member] = {
        "norm": ModuleMember("RMSNorm", (("", param("dim")), ("eps", 1e-5))),
        "proj": LayerMember("nn.Linear", (("", param("dim")), ("", param("dim")))),
    }
    return module("Block", graph, members, params=(integer("dim"),))


def gpt_module() -> ModuleIR:
    tokens = tensor("tokens", B, dtype="i64")
    b = body(tokens)
    kind = TensorType("float", (B, param("dim")))
    table = b.parameter("embed.weight", TensorType("float", (param("vocab"), param("dim"))))
    x = b("embedding", tokens, table, layer="embed", name="x")
    x = b.call("blocks", x, types=(kind,), name="x", op="call_list")
    graph = b.graph((b("linear", x, table, layer="head"),), {})
    members: dict[str, Member] = {
        "embed": LayerMember("nn.Embedding", (("", param("vocab")), ("", param("dim")))),
        "blocks": RepeatMember(ModuleMember("Block", (("", param("dim")),)), "i", param("layers")),
        "head": LayerMember("nn.Linear", (("", param("dim")), ("", param("vocab")), ("bias", False))),
    }
    params = (integer("vocab"), integer("dim", 8), integer("layers", 2))
    return module("GPT", graph, members, params=params, ties=[("head.weight", "embed.weight")])


class Norm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class HandBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = Norm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.proj(self.norm(x)))


class HandGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([HandBlock(8) for _ in range(2)])
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.head(x))


def test_nested_modules_lists_and_ties() -> None:
    text = model_text(unit(norm_module(), block_module(), gpt_module()))
    made, hand = executed(text).GPT(vocab=11), HandGPT()
    assert list(made.state_dict()) == list(hand.state_dict())
    assert made.head.weight is made.embed.weight
    made.load_state_dict(hand.state_dict())
    tokens = torch.tensor([1, 5, 10, 5])
    for each in (made, hand):
        F.cross_entropy(each(tokens), tokens).backward()
    pairs = zip(made.parameters(), hand.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-8) for a, b in pairs)


def test_parameters_are_kept_where_something_reads_them() -> None:
    text = model_text(unit(norm_module(), block_module(), gpt_module()))
    assert re.findall(r"self\.(\w+) = \1\b", text) == ["eps"]


def members_module() -> ModuleIR:
    """Members of every kind, one with a line that is too long."""
    elements = tuple(LayerMember("nn.Linear", (("", param("width")), ("", param("width")))) for _ in range(4))
    width = (param("width"),)
    x = tensor("x", B, param("width"))
    b = body(x)
    scale = b.parameter("scale", TensorType("float", width), False)
    graph = b.graph((b("mul", x, scale),), {})
    members: dict[str, Member] = {
        "short": ListMember(elements[:2]),
        "long": ListMember(elements),
        "net": SequentialMember((*elements, SequentialMember(elements), LayerMember("nn.ReLU", ()))),
        "steps": RepeatMember(LayerMember("nn.Linear", (("", param("i") + 1), ("", 2))), "i", 3),
        "layers": ConstantMember((1, 2.5, "a'\"b", None, True)),
        "half": ConstantMember(Scalar(None, "self.rate * 0.5")),
        "scale": TensorMember(width, "float", "constant", (("val", 0.5),), False),
        "count": TensorMember((), "i64", "zeros", (), False),
        "start": TensorMember(width, "float", "normal", (("mean", 2.0), ("std", 1e-3)), True),
        "matrix": TensorMember((*width, *width), "float", "xavier_uniform", (("gain", 2.0),), True),
        "eye": TensorMember((*width, *width), "float", "eye", (), True),
    }
    params = (integer("width", 3), ParameterIR("rate", "float", 0.5, False))
    return module("Members", graph, members, params=params)


def test_members_of_every_kind() -> None:
    made = executed(model_text(unit(members_module()))).Members()
    assert [len(made.short), len(made.long), len(made.net)] == [2, 4, 6]
    assert [step.in_features for step in made.steps] == [1, 2, 3]
    assert made.layers == (1, 2.5, "a'\"b", None, True)
    assert made.half == 0.25
    assert {name for name, _ in made.named_buffers()} == {"scale", "count"}
    assert torch.equal(made.scale, torch.full((3,), 0.5))
    assert made.count.dtype == torch.int64
    assert made.count.shape == ()
    assert (made.start - 2).abs().max() < 0.1
    assert torch.equal(made.eye, torch.eye(3))
    assert made.matrix.abs().max() <= 2
    x = torch.randn(2, 3)
    assert torch.equal(made(x), x * 0.5)


def test_what_strings_and_comments_say_is_not_imported() -> None:
    features = Size.of(Symbol("F"))
    x = tensor("x", features)
    b = body(x)
    graph = b.graph((b("add", x, 1.0),), {})
    text = model_text(unit(module("M", graph, {"a": ConstantMember("import kernels, \"math\" 'torch'")})))
    assert re.findall("^(?:import|from) .*", text, re.MULTILINE) == [
        "from __future__ import annotations",
        "from torch import Tensor, nn",
    ]


def test_parameters_that_a_loss_reads_are_kept() -> None:
    x = tensor("batch.x", B)
    b = body(x, owner="")
    loss = b.graph((b("sum", b("mul", x, Scalar(1e-6, "model.eps"))),), {})
    run = RunIR(cast(Any, None), {"model": ModuleMember("RMSNorm", ())}, loss)
    assert "self.dim" not in model_text(unit(norm_module(), runs={"run": run}))
    plain = replace(norm_module(), graph=Graph("forward", (), (), (), ()))
    assert "self.eps = eps" in model_text(unit(plain, runs={"run": run}))
    assert "self.eps = eps" not in model_text(unit(plain))


@pytest.mark.parametrize(
    "doc",
    ['Quotes """ within, or at the end"', "A backslash \\", "{{ braces }} {% raw %}", "Two\n\nparagraphs.", "w " * 99],
)
def test_documentation_is_text_and_nothing_else(doc: str) -> None:
    text = model_text(unit(module("Empty", Graph("forward", (), (), (), ()), doc=doc)))
    (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert (ast.get_docstring(found) or "").split() == doc.split()
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ["x y", "x\nimport os", "class", "", "x)", "naïve", "1x"])
def test_only_identifiers_become_names(name: str) -> None:
    x = tensor("x", B)
    b = body(x)
    graph = b.graph((b("exp", x),), {})
    with pytest.raises(ValueError, match="can't be a name"):
        model_text(unit(module(name, graph)))
    with pytest.raises(ValueError, match="can't be a name"):
        model_text(unit(module("M", graph, {name: ConstantMember(1)})))


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
def test_emitted_modules_are_ruff_clean(tmp_path: Path) -> None:
    modules = (mlp(), norm_module(), block_module(), gpt_module(), members_module())
    fused = unit(*modules).map_graphs(fuse)
    (tmp_path / "model.py").write_text(model_text(fused), encoding="utf-8")
    (tmp_path / "kernels.py").write_text("", encoding="utf-8")
    config = Path(__file__).resolve().parent.parent / "pyproject.toml"
    ruff = str(Path(sys.executable).parent / "ruff")
    command = [ruff, "check", "--no-cache", "--config", str(config), "model.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
