"""Shape and dtype rules, and each op's PyTorch text, against PyTorch: what runs has the type that was inferred."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tdsl.compiler.build.expr import LOGICAL, OPERATORS
from tdsl.compiler.build.program import build
from tdsl.compiler.emit.text import Text, op_text
from tdsl.compiler.ir import INTS, Attr, Graph, Node, Operand, TensorType, Value
from tdsl.compiler.ops import OPS
from tdsl.compiler.ops.op import INTERNAL
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.resolve import load
from tdsl.runtime import nn_functions
from tests.test_pointwise_ops import FORMS

DTYPES = {
    "float": torch.float32,
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
# What emitted text may name.
SPACE = {"torch": torch, "F": F, "math": math, "nn_functions": nn_functions, "self": SimpleNamespace(training=True)}
SIZES = {"B": 3, "T": 5, "H": 9, "W": 8}
INPUTS = """
    x: float[B, 8], y: float[B, 1], v: float[8], s: float[], t: float[B, T, 8], n: int[B], k: int[B, T], m: bool[B,
    8], d: f64[B, 8], h: f16[B, 8], e: f16[], j: i32[B], c: u8[B], image: float[B, 6, H, W], weight: float[4, 8]
"""


def elaborate(text: str) -> tuple[Graph | None, list[Diagnostic]]:
    inputs = " ".join(INPUTS.split())
    source = f"module M() {{\n  forward({inputs}) -> [B] {{\n    r = {text}\n    return n.float()\n  }}\n}}\n"
    program, reporter = load("net.model", text=source)
    unit = build(program, reporter) if program is not None else None
    return (unit.modules[0].graph if unit else None), reporter.diagnostics


class Run:
    """Computes a graph in PyTorch for concrete sizes, holding each result against its inferred type."""

    def __init__(self, graph: Graph, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.values: dict[Value, torch.Tensor] = {v: self.tensor(v.type) for v in graph.inputs}
        for node in graph.nodes:
            self.node(node)

    def number(self, size: Size) -> int:
        found = size.substitute({Symbol(name): value for name, value in self.sizes.items()}).constant
        assert found is not None, str(size)
        return found

    def tensor(self, type: TensorType) -> torch.Tensor:
        shape, dtype = [self.number(s) for s in type.shape], DTYPES[type.dtype]
        if dtype == torch.bool:
            return torch.rand(shape) < 0.5
        if type.dtype in INTS:
            return torch.randint(0, 3, shape, dtype=dtype)
        return torch.rand(shape).to(dtype)

    def attr(self, attr: Attr) -> Attr:
        if isinstance(attr, tuple):
            return tuple(self.attr(a) for a in attr)
        return self.number(attr) if isinstance(attr, Size) else attr

    def operand(self, operand: Operand, given: dict[str, torch.Tensor]) -> Text:
        if isinstance(operand, Value):
            name = f"a{len(given)}"
            given[name] = self.values[operand]
            return Text(name)
        if operand.text.endswith("if self.training else 0.0"):
            return Text("0.3")
        return Text(repr(self.attr(operand.value)))

    def node(self, node: Node) -> None:
        given: dict[str, torch.Tensor] = {}
        operands = [self.operand(o, given) for o in node.inputs]
        attrs = {name: self.attr(a) for name, a in node.attrs.items() if name != "device"}
        text = op_text(node, operands, {**attrs, **({"device": None} if "device" in node.attrs else {})}).text
        found = eval(text, {**SPACE, **given})
        results = found if isinstance(found, (tuple, list)) else (found,)
        assert len(results) == len(node.outputs), text
        for value, result in zip(node.outputs, results):
            expected = (tuple(self.number(s) for s in value.type.shape), DTYPES[value.type.dtype])
            assert (tuple(result.shape), result.dtype) == expected, f"{text}: {value.type}"
            self.values[value] = result


UNARY = (
    "neg abs sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan tanh erf sigmoid "
    "floor ceil square"
)
ACTIVATIONS = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish hardtanh hardsigmoid hardswish softplus softsign logsigmoid"
)
REDUCTIONS = "sum mean amax amin var std norm argmax argmin"
LOSSES = "mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy binary_cross_entropy_with_logits"


def calls(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(";")]


def words(text: str) -> list[str]:
    return text.split()


CALLS = [
    *(f"{name}(x)" for name in words(UNARY + " " + ACTIVATIONS)),
    *(f"{name}({x})" for name in words("exp log sqrt sin tanh erf sigmoid") for x in ("n", "m", "h")),
    *(f"x {sign} {b}" for sign in words("+ - * /") for b in words("x y v s 2 0.5 n[:,none] d h")),
    *(
        f"{a} {sign} {b}"
        for sign in words("+ * /")
        for a in words("n m[:,0] c j h[:,0] e 2")
        for b in words("n h[:,0] s")
    ),
    *(f"x {sign} {b}" for sign in words("== != < <= > >=") for b in words("y 0 d")),
    *(f"{name}({args})" for name in words(REDUCTIONS) for args in ("x", "t, dim=-1", "t, dim=1, keepdim=true")),
    *(f"{name}(x, v.expand(B, 8))" for name in words(LOSSES)),
    *(f'{name}(x, v.expand(B, 8), reduction="{r}")' for name in words(LOSSES) for r in words("sum none")),
    *calls("""
    x ** 2; x ** 0.5; 2 ** x; n ** 2; n ** 2.0; x ** s; h ** 2.0;
    m and m; m or (x > 0); not m; isnan(x); maximum(x, y); minimum(x, d); lerp(x, v, 0.3); lerp(x, v, y);
    where(m, x, y); where(m, x, 0.0); where(m, 1, 2); where(m, n.view(B, 1), x); where(m, h, 2.0); clamp(x, min=0.1);
    clamp(x, max=y); clamp(n, 0, 1); clamp(n, 0.5, 1); masked_fill(x, m, 0.0); x.masked_fill(m, 1); t.sum(dim=(0, 2));
    t.mean(dim=(1, 2), keepdim=true); n.sum(); m.sum(dim=0); var(x, dim=1, correction=0); norm(x, p=1, dim=-1);
    norm(x, dim=-1, keepdim=true); logsumexp(t, dim=-1); j.sum(); amax(n); amax(c, dim=0); softmax(t, dim=-1);
    log_softmax(t, dim=1); softmax(h, dim=0); layer_norm(t, 8); layer_norm(t, [8], v, v); layer_norm(x, 8, eps=1e-6);
    rms_norm(x, 8); rms_norm(t, [8], v, 1e-6); dropout(x, 0.5); x.dropout(); rand_like(x); randn_like(h);
    x.reshape(-1); t.reshape(B * T, 8); t.reshape(B, -1); t.view(B, T, 2, 4); t.flatten(); t.flatten(1);
    t.flatten(0, 1); image.flatten(-2, -1); s.flatten(); y.squeeze(1); y[0].squeeze(); y.squeeze(-1); x.squeeze(1);
    x.unsqueeze(1); x.unsqueeze(-1); t.transpose(1, 2); t.permute(2, 0, 1); t.permute(-1, 0, 1); t.T; x.T;
    y.expand(B, 8); y.expand(-1, 8); v.expand(T, B, 8); x.chunk(2, dim=-1); x.chunk(4, 1); cat([x, x]);
    cat([x, y], dim=-1); cat([t, t], 1); stack([x, x]); stack([v, v, v], dim=-1); cat([n, j]); cat([h, d]); x[0];
    x[-1, 2]; x[:, 1:]; x[:, :-1]; x[1:, ::2]; t[..., 0]; t[:, none, :, 0:4]; t[0, ..., 1:3]; x[:, 2:7:3]; t[:, -1];
    x[none]; t[..., none]; x @ x.T; x @ v; v @ v; t @ t.T; t @ v; x.T @ x; matmul(t, x.T); bmm(t, t.T);
    linear(x, weight); linear(t, weight, v[0:4]); embedding(n, weight); embedding(k, weight, padding_idx=0);
    conv2d(image, image[:, :, 0:1, 0:1].expand(-1, -1, 3, 3)); max_pool2d(image, 2); max_pool2d(image, 3, stride=2, padding=1);
    max_pool2d(image, (2, 3)); max_pool2d(image, 2, dilation=2); avg_pool2d(image, 3, 2);
    avg_pool2d(image, 2, padding=1); adaptive_avg_pool2d(image, 1); adaptive_avg_pool2d(image, (2, 3)); detach(x);
    cast(x, bf16); x.to(i32); x.int(); m.float(); n.bool(); attention(image, image, image);
    attention(image, image, image, causal=true, scale=0.1); attention(image, image[:, 0:2], image[:, 0:2]);
    tensor(1.5); tensor([1, 2]); tensor([[1.0], [2.0]]); tensor(true); cross_entropy(x, n); cross_entropy(x, x);
    cross_entropy(x, n, reduction="none"); cross_entropy(x, n, v, label_smoothing=0.1); cross_entropy(t.T, k);
    cross_entropy(v, n[0]); nll_loss(x, n, ignore_index=0); poisson_nll_loss(x, x);
    triplet_margin_loss(x, x, x, margin=0.5, p=2); triplet_margin_loss(x, y, x, reduction="none");
    mse_loss(x[:, 0], d[:, 0])
    """),
    *calls("""
    zeros(2, B); ones((T,), dtype=bool); full((2, T), 1.5); arange(T); arange(0, T, 2); linspace(0, 1, 5); eye(3, T);
    tril(x); triu(t, 1); rand(2, B); randn((T,)); randint(0, 9, (B, 2)); zeros_like(n); ones_like(x, dtype=bf16);
    full_like(x, 2); one_hot(n, 9); reshape_as(x, x.T); view_as(x, x.T); x.unflatten(1, (2, -1)); y.expand_as(x);
    x.contiguous(); t.movedim(0, -1); x.t(); x.flip(0, 1); x.roll(2, dims=1); x.split(3, dim=1); x.unbind(1);
    x.narrow(1, 2, 3); x.select(1, -1); tile(x, (2, 1)); x.repeat(2, 1, T); x.repeat_interleave(2, 1);
    pad(image, (1, 2, -1, 1)); pad(x, (1, 1), mode="circular"); x.gather(1, n.unsqueeze(1));
    x.scatter(1, n.unsqueeze(1), 0.0); t.index_select(2, n); t[:, 0, n % 8]; t[n * 0, none, :, n]; x[:, [0, 3]];
    x.chunk(3, dim=1); einsum("b i, b j -> i j", x, x); mm(x, x.T); dot(v, v); outer(v, n);
    rearrange(t, "b t d -> t b d");
    reduce(t, "b t d -> b", "max"); repeat(x, "b d -> b n d", n=2); zeros(size(x, 0), t.numel())
    """),
    *calls("""
    conv1d(t.T, ones(4, 8, 1)); conv2d(image, ones(4, 3, 3, 2), groups=2, stride=2, padding=(1, 0));
    conv2d(image, ones(6, 1, 3, 3), groups=6, padding="same", dilation=(2, 1)); conv2d(image[0], ones(4, 6, 1, 1));
    conv3d(image[:, none], ones(4, 1, 2, 2, 2), v[0:4], 2, "valid"); conv_transpose1d(t.T, ones(8, 4, 3), stride=2);
    conv_transpose2d(image, ones(6, 2, 3, 3), none, 2, 1, 1, 3); conv_transpose3d(image[:, none], ones(1, 4, 2, 2, 2));
    max_pool1d(t, 2); max_pool1d(t, 3, 2, 1, ceil_mode=true); max_pool2d(image, 2, return_indices=true);
    max_pool3d(image[:, none], 2, ceil_mode=true); avg_pool1d(t, 2, padding=1, ceil_mode=true); avg_pool1d(x, 2);
    avg_pool2d(image, 3, 2, ceil_mode=true, count_include_pad=false, divisor_override=2); avg_pool3d(image, 2);
    adaptive_avg_pool1d(t, 3); adaptive_avg_pool2d(image, (none, 2)); adaptive_avg_pool3d(image, 2);
    adaptive_max_pool1d(t, 3, return_indices=true); adaptive_max_pool2d(image, [2, none]);
    adaptive_max_pool3d(image, (2, 1, 3)); group_norm(image, 3); group_norm(x, 2, v, v, 1e-3);
    batch_norm(image, none, none, training=true); batch_norm(x, v, v, v, v); instance_norm(image);
    instance_norm(t, use_input_stats=true, eps=1e-3); local_response_norm(image, 3, 0.1, 0.5, 2.0);
    embedding_bag(k, weight); embedding_bag(n, weight, n * 0, mode="sum"); bilinear(x, x, ones(5, 8, 8));
    bilinear(t, t[..., 0:4], ones(5, 8, 4), v[0:5]); interpolate(image, 5); interpolate(image, (2, 7), mode="bicubic");
    interpolate(image, scale_factor=2); interpolate(image, scale_factor=(0.5, 1.5), mode="bilinear");
    interpolate(t, scale_factor=3, mode="linear", align_corners=true); interpolate(image, 3, mode="bilinear",
    antialias=true); pixel_shuffle(image[:, 0:4], 2); pixel_unshuffle(image, 1); dropout1d(t, 0.2); dropout2d(image);
    dropout3d(image[:, none], p=0.1); attention(image, image, image, window=2, softcap=1.5);
    attention(image, image, image, causal=true, bias=image[:, :, :, 0:1]); margin_ranking_loss(x, d, x);
    attention(image, image, image, dropout_p=0.1); cosine_embedding_loss(x, x, x[:, 0]); hinge_embedding_loss(x, v);
    multi_margin_loss(x, n, p=2); gaussian_nll_loss(x, x, x[:, 0] + 1.0, full=true, reduction="none");
    gaussian_nll_loss(x, x, 0.5); kl_div(x, x, reduction="batchmean"); huber_loss(x, x, delta=0.5, weight=x);
    ctc_loss(log_softmax(t.transpose(0, 1), -1), k + 1, n * 0 + 1, n * 0 + 1, reduction="none");
    normalize(x); normalize(t, p=1, dim=(1, 2)); cosine_similarity(x, x); cosine_similarity(t, v, dim=-1, eps=1e-3);
    ctc_loss(log_softmax(v.expand(9, 8), -1), n[0:1] + 1, [9], [1])
    """),
]


@pytest.mark.parametrize("text", CALLS)
def test_what_runs_has_the_type_that_was_inferred(text: str) -> None:
    graph, diagnostics = elaborate(text)
    assert graph is not None, diagnostics
    for sizes in (SIZES, {"B": 1, "T": 1, "H": 4, "W": 11}):
        Run(graph, sizes)


# PyTorch raises for each of these, or yields another shape where B is 1; so the check raises.
WRONG = [
    *calls("""
    x + t; x * n; x @ x; v @ x.T @ v; t @ x; x @ d; m @ m; s @ x; x.reshape(7); x.reshape(B, 3); x.reshape();
    x.view(-1, -1); x.squeeze(2); x.unsqueeze(4); t.transpose(0, 3); t.permute(0, 1); t.permute(0, 1, 1); v.T;
    x.expand(B); x.expand(B, 9); x.expand(); cat([x, t]); cat([x, v]); stack([x, y]); x[0, 0, 0]; x[:, 8]; x[:, -9];
    softmax(x, dim=2); softmax(n, dim=0); layer_norm(x, 7); layer_norm(x, 8, y); linear(y, weight); linear(x, v);
    linear(x, weight, v); linear(n, weight); embedding(x, weight); embedding(n, v); conv2d(x, weight);
    conv2d(image, t); max_pool2d(x, 2); mean(n); var(n); gelu(n); dropout(n); x.sum(dim=2); x.sum(dim=(0, 5));
    cross_entropy(x, v); cross_entropy(x, k); cross_entropy(n, n); cross_entropy(x, n, y);
    cross_entropy(x, x, ignore_index=1); nll_loss(x, x); mse_loss(x, x, reduction="men"); binary_cross_entropy(n, n);
    triplet_margin_loss(x, t, x);
    binary_cross_entropy(x, x, n.float()); argmax(m); where(m, x, t); not 1.x;
    y.squeeze(); x.squeeze(0); t.chunk(3, dim=1); x.chunk(0);
    attention(x, x, x); attention(image, image[..., 0:2], image); rope(v); x.flatten(1, 0)
    """),
]


@pytest.mark.parametrize("text", WRONG)
def test_what_pytorch_would_refuse_is_a_located_error(text: str) -> None:
    graph, diagnostics = elaborate(text)
    assert graph is None
    assert diagnostics
    assert all(d.span is not None for d in diagnostics)


def test_losses_take_shapes_that_agree() -> None:
    """PyTorch broadcasts them with a warning; here it is an error, since it is nearly always a mistake."""
    for text in ("mse_loss(x, y)", "l1_loss(x, v)", "binary_cross_entropy_with_logits(x, s)"):
        graph, diagnostics = elaborate(text)
        assert graph is None
        assert diagnostics[0].code == "E203"


def test_every_op_is_held_against_pytorch() -> None:
    """Operators stand for their ops; `rope`, `alibi` and `grad` have no one counterpart in PyTorch."""
    named = {name for name in OPS for text in (*CALLS, *FORMS) if f"{name}(" in text or f".{name}(" in text}
    elsewhere = {*OPERATORS.values(), *LOGICAL.values(), "logical_not", "neg", "mm", "rope", "alibi", "grad"}
    assert set(OPS) - named - elsewhere - INTERNAL == set()
