"""Calls of layers: several inputs and results, sizes that `_` takes, parameters read and shared, and what is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tdsl.compiler import inspect
from tdsl.compiler.build.unit import ModuleMember, Unit
from tests.helpers import compiled, emitted, mistakes, written
from tests.running import loaded


def module(members: str, body: str, types: str = "x: float[B, T, 8]", result: str = "float[B, T, 8]") -> str:
    lines = "\n".join(f"    {line}" for line in members.split("; "))
    inside = "\n".join(f"        {line}" for line in body.split("; "))
    return f"module M() {{\n{lines}\n\n    forward({types}) -> {result} {{\n{inside}\n    }}\n}}\n"


def made(text: str) -> tuple[Any, str, Unit]:
    unit = compiled(text)
    files = emitted(unit)
    return loaded(written(files, Path(tempfile.mkdtemp()))).M(), files["model.py"], unit


# Several inputs and results ------------------------------------------------------------------------------------------


def test_a_state_is_handed_on() -> None:
    model, text, _ = made(
        module(
            "a = LSTM(8, 8, batch_first=true); b = GRU(8, 8, batch_first=true)",
            "y, state = a(x); y, state = a(y, state); z, h = b(y, state[0]); z, h = b(z, h); return z",
        )
    )
    assert "y, (h_n, c_n) = self.a(x)" in text
    assert "self.a(y, (h_n, c_n))" in text
    x = torch.randn(3, 5, 8)
    y, state = model.a(x)
    y, (h, _) = model.a(y, state)
    z, h = model.b(y, h)
    torch.testing.assert_close(model(x), model.b(z, h)[0])


def test_what_is_not_used_has_no_name() -> None:
    _, text, _ = made(module("a = LSTM(8, 8, batch_first=true)", "y, state = a(x); return y"))
    assert "y, _ = self.a(x)" in text
    _, text, _ = made(module("a = LSTM(8, 8, batch_first=true)", "return a(x)[0]"))
    assert "_ = self.a(x)" in text


def test_a_state_may_be_made_of_tensors() -> None:
    model, text, _ = made(
        module("a = LSTM(8, 8, batch_first=true)", "y, state = a(x, (h, c)); return y, state[1]",
               "x: float[B, T, 8], h: float[1, B, 8], c: float[1, B, 8]", "(float[B, T, 8], float[1, B, 8])")
    )  # fmt: skip
    assert "self.a(x, (h, c))" in text
    x, h, c = torch.randn(3, 5, 8), torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    expected, (_, cell) = model.a(x, (h, c))
    torch.testing.assert_close(model(x, h, c), (expected, cell))


def test_none_is_no_state() -> None:
    _, text, _ = made(module("a = GRU(8, 8, batch_first=true)", "y, h = a(x, none); return y"))
    assert "self.a(x)" in text


def test_attention_weights_may_be_left_out() -> None:
    members = "attn = MultiheadAttention(8, 2, batch_first=true)"
    _, text, _ = made(module(members, "y, w = attn(x, x, x, need_weights=false); return y"))
    assert "_ = self.attn(x, x, x, need_weights=False)" in text


def test_a_pipe_gives_the_first_input() -> None:
    model, _, _ = made(module("bi = Bilinear(8, 8, 8)", "return x |> bi(x * 2.0)"))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(model(x), model.bi(x, x * 2))


def test_a_parameter_is_an_input_like_any_other() -> None:
    """The layer has its own parameters, and is given this one."""
    model, text, _ = made(module("bi = Bilinear(8, 8, 8); param w: [8] = ones()", "return bi(x, w.expand(B, T, 8))"))
    assert "self.bi(x, self.w.expand(" in text
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(model(x), model.bi(x, torch.ones(3, 5, 8)))


# Sizes, parameters ---------------------------------------------------------------------------------------------------


def test_sizes_are_taken_from_every_input() -> None:
    members = "up = Linear(_, 6); bi = Bilinear(_, _, 8); rnn = RNN(_, 8, batch_first=true); norm = BatchNorm1d(_)"
    body = "h = bi(up(x), x); y, s = rnn(h); return norm(y.transpose(1, 2)).transpose(1, 2)"
    _, text, _ = made(module(members, body))
    for made_by in ("nn.Linear(8, 6)", "nn.Bilinear(6, 8, 8)", "nn.RNN(8, 8, batch_first=True)", "nn.BatchNorm1d(8)"):
        assert made_by in text


def test_the_number_of_layers_may_be_a_parameter() -> None:
    text = """
module Reader(dim: int, layers: int = 3) {
    rnn = LSTM(dim, dim, num_layers=layers, batch_first=true, bidirectional=true)

    forward(x: float[B, T, dim]) -> float[B, T, 2 * dim] {
        y, state = rnn(x)
        return y
    }
}

module M(layers: int = 2) {
    reader = Reader(8, layers)

    forward(x: float[B, T, 8]) -> float[B, T, 16] { return reader(x) }
}
"""
    model, emitted_text, unit = made(text)
    assert "nn.LSTM(dim, dim, num_layers=layers, batch_first=True, bidirectional=True)" in emitted_text
    assert model(torch.randn(3, 5, 8)).shape == (3, 5, 16)
    found = {p.path: p.shape for p in inspect.parameters(unit, ModuleMember("M", ()))}
    assert found == {n: tuple(p.shape) for n, p in model.named_parameters()}


def test_parameters_of_layers_are_read_by_their_names() -> None:
    members = "rnn = GRU(8, 8, batch_first=true); attn = MultiheadAttention(8, 2, batch_first=true)"
    body = "y, h = rnn(x); a, w = attn(y, y, y); return a @ rnn.weight_hh_l0[:8] @ attn.out_proj.weight"
    model, text, _ = made(module(members, body))
    assert "self.attn.out_proj.weight" in text
    x = torch.randn(3, 5, 8)
    y, _ = model.rnn(x)
    expected = model.attn(y, y, y)[0] @ model.rnn.weight_hh_l0[:8] @ model.attn.out_proj.weight
    torch.testing.assert_close(model(x), expected)


def test_the_graph_has_every_parameter_of_a_layer() -> None:
    members = "attn = MultiheadAttention(8, 2, batch_first=true); rnn = RNN(8, 8, num_layers=2, batch_first=true)"
    model, _, unit = made(module(members, "y, w = attn(x, x, x); z, h = rnn(y); return z"))
    assert {p.path for p in unit.modules[0].graph.params} == {n for n, _ in model.named_parameters()}


def test_a_recurrent_weight_is_shared() -> None:
    model, _, unit = made(
        module("a = RNN(8, 8, batch_first=true); b = RNN(8, 8, batch_first=true, weight_hh_l0=a.weight_hh_l0)",
               "y, h = a(x); z, h = b(y, h); return z")
    )  # fmt: skip
    assert model.b.weight_hh_l0 is model.a.weight_hh_l0
    model(torch.randn(3, 5, 8)).sum().backward()
    assert model.a.weight_hh_l0.grad is not None
    paths = [p.path for p in inspect.parameters(unit, ModuleMember("M", ()))]
    assert paths == [n for n, _ in model.named_parameters()]


def test_only_given_arguments_are_written() -> None:
    _, text, _ = made(module("pool = MaxPool1d(3, padding=1, stride=1)", "return pool(x)"))
    assert "nn.MaxPool1d(3, padding=1, stride=1)" in text


def test_two_calls_of_a_norm_are_two() -> None:
    """Each counts its batch."""
    model, _, _ = made(
        module("norm = BatchNorm1d(5, momentum=none)", "return norm(x) + norm(x)", "x: float[B, 5]", "[B, 5]")
    )
    model(torch.randn(4, 5))
    assert int(model.norm.num_batches_tracked) == 2


def test_a_chain_of_pools_is_proved() -> None:
    """Halving twice is a quarter, whatever the size."""
    text = module(
        "a = Conv2d(3, 8, 3, padding=1); b = Conv2d(8, 8, 3, stride=2, padding=1); p = MaxPool2d(2); "
        "up = Upsample(scale_factor=4); back = ConvTranspose2d(8, 3, 2, stride=2)",
        "h = p(a(x)); y = b(h); return back(y)", "x: float[B, 3, 4 * K, 4 * K]", "float[B, 3, 2 * K, 2 * K]"
    )  # fmt: skip
    (error,) = mistakes(text)
    assert error.code == "E110"  # a size is bound by its name alone
    text = text.replace("4 * K, 4 * K", "H, W").replace(
        "2 * K, 2 * K", "(H // 2 - 1) // 2 * 2 + 2, (W // 2 - 1) // 2 * 2 + 2"
    )
    model, _, _ = made(text)
    assert model(torch.randn(2, 3, 12, 20)).shape == (2, 3, 6, 10)


def test_a_loop_over_recurrent_layers() -> None:
    members = "rnns = [GRU(8, 8, batch_first=true) for i in range(3)]"
    model, _, _ = made(module(members, "for rnn in rnns { x, h = rnn(x) }; return x"))
    x = y = torch.randn(3, 5, 8)
    for rnn in model.rnns:
        y, _ = rnn(y)
    torch.testing.assert_close(model(x), y)


def test_identity_stands_for_any_layer() -> None:
    text = """
module Block(norm: module = LayerNorm) {
    norm = norm(8, eps=1e-3)

    forward(x: float[B, 8]) -> float[B, 8] { return norm(x) }
}

module M() {
    a = Block()
    b = Block(norm=Identity)

    forward(x: float[B, 8]) -> float[B, 8] { return b(a(x)) }
}
"""
    model, emitted_text, _ = made(text)
    assert "nn.Identity()" in emitted_text
    x = torch.randn(3, 8)
    torch.testing.assert_close(model(x), nn.functional.layer_norm(x, (8,), eps=1e-3))


def test_running_numbers_are_read() -> None:
    text = module("norm = BatchNorm1d(5)", "y = norm(x); return y - norm.running_mean", "x: float[B, 5]", "[B, 5]")
    model, _, unit = made(text)
    x = torch.randn(4, 5) + 3
    y = model(x)
    torch.testing.assert_close(y, (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() - 0.1 * x.mean(0))
    assert [p.path for p in inspect.parameters(unit, ModuleMember("M", ()))] == ["norm.weight", "norm.bias"]
    members = "norm = BatchNorm1d(5, track_running_stats=false)"
    (error,) = mistakes(module(members, "return x - norm.running_mean", "x: float[B, 5]", "[B, 5]"))
    assert (error.code, "has no `running_mean`" in error.message) == ("E201", True)


def test_what_is_assumed_proves_a_division() -> None:
    body = "assume C % 4 == 0; assume H % 2 == 0; return down(shuffle(x))"
    members = "shuffle = PixelShuffle(2); down = PixelUnshuffle(2)"
    model, _, _ = made(module(members, body, "x: float[B, C, H, W]", "float[B, C, H, W]"))
    x = torch.randn(2, 8, 6, 5)
    torch.testing.assert_close(model(x), x)
    (error,) = mistakes(module(members, "return shuffle(x)", "x: float[B, C, H, W]", "float[B, C, H, W]"))
    assert (error.code, error.help) == ("E208", "state it: `assume C % 4 == 0`")


def test_a_module_that_nothing_makes_may_leave_sizes_open() -> None:
    text = """
module Reader(dim: int, hidden: int, layers: int, groups: int, heads: int) {
    rnn  = GRU(dim, hidden, num_layers=layers, batch_first=true)
    conv = Conv1d(hidden, hidden, 3, padding=1, groups=groups)
    attn = MultiheadAttention(hidden, heads, batch_first=true)

    forward(x: float[B, T, dim]) -> (float[B, hidden, T], float[layers, B, hidden]) {
        assume hidden % groups == 0
        y, h = rnn(x)
        a, w = attn(y, y, y)
        return conv(a.T), h
    }
}
"""
    files = emitted(compiled(text))
    reader = loaded(written(files, Path(tempfile.mkdtemp()))).Reader(6, 8, layers=3, groups=4, heads=2)
    assert [tuple(t.shape) for t in reader(torch.randn(2, 5, 6))] == [(2, 8, 5), (3, 2, 8)]
    (error,) = mistakes(text.replace("assume hidden % groups == 0", ""))
    assert (error.code, error.help) == ("E208", "state it: `assume hidden % groups == 0`")


# What is refused -----------------------------------------------------------------------------------------------------

IMAGE = "x: float[B, 3, H, W]"
WRONG = [
    # members, body, inputs, code, what is said, what is under the caret
    ("c = Conv2d(4, 8, 3)", "return c(x)", IMAGE, "E203", "channels do not match", "c(x)"),
    ("c = Conv2d(3, 8, 3)", "return c(x)", "x: float[B, 3]", "E203", "[N, channels, height, width]", "c(x)"),
    ("c = Conv2d(3, 8, 3)", "return c(x)", "x: int[B, 3, H, W]", "E205", "floating-point", "c(x)"),
    ("c = Conv2d(3, 8, 3)", "return c(x)", "x: float[B, 3, 2, 9]", "E203", "larger than its input", "c(x)"),
    ("c = Conv2d(3, 8, 3, groups=2)", "return c(x)", IMAGE, "E203", "divide into groups", "Conv2d(3, 8, 3, groups=2)"),
    ("c = Conv2d(3, 8, (3, 3, 3))", "return c(x)", IMAGE, "E202", "`kernel_size`", "Conv2d(3, 8, (3, 3, 3))"),
    ('c = Conv2d(3, 8, 3, padding="full")', "return c(x)", IMAGE, "E202", '"same" or "valid"', "c(x)"),
    ('c = Conv2d(3, 8, 3, 2, "same")', "return c(x)", IMAGE, "E202", "stride of 1", "c(x)"),
    ("c = Conv2d(3, 8, 3, 0)", "return c(x)", IMAGE, "E202", "`stride` of", "c(x)"),
    ('c = Conv2d(3, 8, 3, padding_mode="wrap")', "return c(x)", IMAGE, "E202", "zeros, reflect", 'Conv2d(3, 8, 3, padding_mode="wrap")'),
    ("c = ConvTranspose2d(3, 8, 3, output_padding=1)", "return c(x)", IMAGE, "E202", "less than its stride", "c(x)"),
    ("p = MaxPool2d(2, padding=2)", "return p(x)", IMAGE, "E202", "at most half", "p(x)"),
    ("p = AdaptiveAvgPool2d((1, 2, 3))", "return p(x)", IMAGE, "E202", "`output_size`", "p(x)"),
    ("n = BatchNorm2d(4)", "return n(x)", IMAGE, "E203", "num", "n(x)"),
    ("n = BatchNorm2d(4, affine=false)", "return n(x)", IMAGE, "E203", "made for `num_features` = 4", "n(x)"),
    ("n = BatchNorm1d(3)", "return n(x)", IMAGE, "E203", "2 or 3 dimensions", "n(x)"),
    ("n = GroupNorm(2, 3)", "return n(x)", IMAGE, "E203", "3 into 2", "GroupNorm(2, 3)"),
    ("n = InstanceNorm2d(5)", "return n(x)", IMAGE, "E203", "made for `num_features` = 5", "n(x)"),
    ("u = Upsample()", "return u(x)", IMAGE, "E202", "either `size` or `scale_factor`", "u(x)"),
    ('u = Upsample(scale_factor=2, mode="linear")', "return u(x)", IMAGE, "E203", 'mode="bilinear"', "u(x)"),
    ("u = Upsample(scale_factor=2, align_corners=true)", "return u(x)", IMAGE, "E202", "`align_corners`", "u(x)"),
    ("u = Upsample(scale_factor=0.3)", "return u(x)", IMAGE, "E208", "give the `size`", "u(x)"),
    ("s = PixelShuffle(2)", "return s(x)", IMAGE, "E203", "divide evenly", "s(x)"),
    ("r = ReLU(inplace=true)", "return r(x)", IMAGE, "E202", "leave `inplace` out", "ReLU(inplace=true)"),
    ("e = Embedding(10, 4, padding_idx=10)", "return e(x)", "x: int[B]", "E204", "outside the 10 rows", "Embedding(10, 4, padding_idx=10)"),
    ("e = Embedding(10, 4, sparse=true)", "return e(x)", "x: int[B]", "E206", "leave `sparse` out", "Embedding(10, 4, sparse=true)"),
    ("e = Embedding(10, 4)", "return e(x)", "x: float[B]", "E205", "looks up integers", "e(x)"),
    ("e = EmbeddingBag(10, 4)", "return e(x)", "x: int[B]", "E202", "`offsets`", "e(x)"),
    ("l = LSTM(8, 4)", "return l(x)", IMAGE, "E203", "float[T, N, input_size]", "l(x)"),
    ("l = LSTM(7, 4)", "return l(x)[0]", "x: float[T, B, 8]", "E203", "width 7", "l(x)"),
    ("l = LSTM(8, 4, dropout=0.5)", "return l(x)[0]", "x: float[T, B, 8]", "E202", "only one", "LSTM(8, 4, dropout=0.5)"),
    ("l = LSTM(8, 4, proj_size=4)", "return l(x)[0]", "x: float[T, B, 8]", "E202", "smaller than", "LSTM(8, 4, proj_size=4)"),
    ("l = LSTM(8, 4)", "return l(x, x)[0]", "x: float[T, B, 8]", "E202", "(h_0, c_0)", "x"),
    ("l = GRU(8, 0)", "return l(x)[0]", "x: float[T, B, 8]", "E202", "`hidden_size`", "GRU(8, 0)"),
    ("l = GRU(8, 4, 1000000000)", "return l(x)[0]", "x: float[T, B, 8]", "E209", "1,000 layers", "GRU(8, 4, 1000000000)"),
    ("l = GRU(8, 4, 0)", "return l(x)[0]", "x: float[T, B, 8]", "E202", "`num_layers`", "GRU(8, 4, 0)"),
    ("a = MultiheadAttention(0, 1)", "return a(x, x, x)[0]", "x: float[T, B, 0]", "E202", "`embed_dim`", "MultiheadAttention(0, 1)"),
    ("p = AvgPool2d(2, divisor_override=0)", "return p(x)", IMAGE, "E202", "is not 0", "p(x)"),
    ("u = Upsample(scale_factor=inf)", "return u(x)", IMAGE, "E202", "positive number", "u(x)"),
    ("u = Upsample(scale_factor=-1)", "return u(x)", IMAGE, "E202", "positive number", "u(x)"),
    ("l = GRU(8, 4)", "return l(x, x)[0]", "x: float[T, B, 8]", "E203", "float[1, B, 4] here", "l(x, x)"),
    ("e = Embedding(9, 8); l = Linear(8, 7, weight=e.weight)", "return l(x)", "x: float[B, 8]", "E203", "is [7, 8]", "l(x)"),
    ("l = GRU(8, 4)", "return l.weight_ih_l1", "x: float[T, B, 8]", "E201", "weight_ih_l0", "weight_ih_l1"),
    ("a = MultiheadAttention(8, 3)", "return a(x, x, x)[0]", "x: float[T, B, 8]", "E203", "8 into 3", "MultiheadAttention(8, 3)"),
    ("a = MultiheadAttention(8, 2)", "return a(x)[0]", "x: float[T, B, 8]", "E202", "`key`", "a(x)"),
    ("a = MultiheadAttention(6, 2)", "return a(x, x, x)[0]", "x: float[T, B, 8]", "E203", "width 6", "a(x, x, x)"),
    ("a = MultiheadAttention(8, 2)", "return a(x, x, x, is_causal=true)[0]", "x: float[T, B, 8]", "E202", "only hints", "a(x, x, x, is_causal=true)"),
    ("a = MultiheadAttention(8, 2)", "return a(x, x, x, attn_mask=x)[0]", "x: float[T, B, 8]", "E203", "[T, T] or [2 * B, T, T]", "a(x, x, x, attn_mask=x)"),
    ("b = Bilinear(8, 8, 4)", "return b(x, x.sum(0))", "x: float[T, B, 8]", "E203", "before their last size", "b(x, x.sum(0))"),
    ("s = Sequential(Linear(8, 8), LSTM(8, 8))", "return s(x)", "x: float[T, B, 8]", "E201", "several values", "s(x)"),
    ("s = Sequential(Bilinear(8, 8, 8), ReLU())", "return s(x)", "x: float[T, B, 8]", "E202", "given one tensor", "s(x)"),
    ("d = Dropout(1.5)", "return d(x)", IMAGE, "E202", "between 0 and 1", "d(x)"),
    ("l = LayerNorm(6)", "return l(x)", "x: float[B, 8]", "E203", "of another shape", "l(x)"),
    ("l = Linear(6, 4)", "return l(x)", "x: float[B, 8]", "E203", "shapes do not match", "l(x)"),
    ("l = Linear(6, 4)", "return l(x, x)", "x: float[B, 6]", "E202", "too many arguments", "x"),
    ("l = GRU(8, 4)", "return l(x)[0]", "x: f64[T, B, 8]", "E205", "dtypes do not match", "l(x)"),
    ("c = Conv1d(8, 4, 1)", "return c(x)", "x: f16[B, 8, T]", "E205", "dtypes do not match", "c(x)"),
    ("a = MultiheadAttention(8, 2)", "return a(x, x.to(f64), x)[0]", "x: float[T, B, 8]", "E205", "dtypes", "a(x, x.to(f64), x)"),
    ("l = Linear(6, 4)", "return l()", "x: float[B, 6]", "E202", "needs `input`", "l()"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "body", "types", "code", "words", "caret"), WRONG)
def test_what_a_layer_refuses(members: str, body: str, types: str, code: str, words: str, caret: str) -> None:
    (error,) = mistakes(module(members, body, types, "float[B]"))
    assert error.code == code
    assert words in " ".join([error.message, error.label, *error.notes, error.help or ""])
    assert error.span is not None
    assert error.span.text == caret


@pytest.mark.parametrize(
    ("members", "body", "types"), [w[:3] for w in WRONG if "Sequential" not in w[0] and ";" not in w[0]]
)
def test_pytorch_refuses_it_too_or_says_why_not(members: str, body: str, types: str) -> None:
    """All but what is merely useless, or has no place here."""
    allowed = ("1000000000", "Embedding(10, 4, sparse", "inplace", "dropout=0.5", "InstanceNorm2d(5)", "affine=false")
    if any(word in members for word in allowed):
        return
    sizes = {"B": 4, "T": 5, "H": 9, "W": 8}
    dtype, _, shape = types.removeprefix("x: ").partition("[")
    numbers = eval(f"[{shape}", sizes)
    dtypes = {"float": torch.float32, "f64": torch.float64, "f16": torch.float16}
    x = torch.randint(0, 4, numbers) if dtype == "int" else torch.randn(numbers, dtype=dtypes[dtype])
    name, _, text = members.partition(" = ")
    python = "nn." + text.replace("true", "True").replace("false", "False")
    if "scale_factor=0.3" in text:
        return  # PyTorch knows the size when it runs

    def attempt() -> None:
        layer = eval(python, {"nn": nn, "inf": float("inf")})
        eval(
            body.removeprefix("return ").replace("true", "True"),
            {name: layer, "x": x, "f64": torch.float64, "inf": float("inf")},
        )

    with pytest.raises((RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError)):
        attempt()


@pytest.mark.parametrize(
    ("members", "body", "inputs", "cure"),
    [
        # Without `flatten`: what it makes is what the layer reads, or would be.
        (
            "l = Linear(72, 5)",
            "return l(x)",
            "x: float[B, 8, 3, 3]",
            "`flatten(1)` before it: that makes the 72 numbers",
        ),
        ("l = Linear(70, 5)", "return l(x)", "x: float[B, 8, 3, 3]", "`flatten(1)` before it: that makes 72 numbers"),
        ("l = Linear(24, 5)", "return l(x)", "x: float[B, 8, 3]", "`flatten(1)` before it: that makes the 24 numbers"),
        ("l = Linear(7, 5)", "return l(x)", "x: float[B, T, 3]", "`Linear(_, ...)` takes `in_features`"),
        ("l = BatchNorm1d(8)", "return l(x)", "x: float[B, 8, 3, 3]", "`BatchNorm2d` is of tensors of 4 dimensions"),
        ("l = Conv2d(8, 5, 3)", "return l(x)", "x: float[B, 8, 3, 3, 3]", "`Conv3d` is of tensors of 5 dimensions"),
        ("l = Conv2d(9, 5, 3)", "return l(x)", "x: float[B, 8, 3, 3]", "`Conv2d(_, ...)` takes `in_channels`"),
        ("l = Conv2d(8, 5, 3)", "return l(x)", "x: float[B, 8]", None),
    ],
)
def test_a_layer_of_another_shape_has_its_cure(members: str, body: str, inputs: str, cure: str | None) -> None:
    error = mistakes(module(members, body, inputs, "[B, 5]"))[0]
    assert error.code == "E203"
    assert error.help is None if cure is None else cure in str(error.help)


def test_a_member_of_a_member_is_its_own() -> None:
    inner = "module Inner() {\n    l = Linear(3, 3)\n    forward(x: float[B, 3]) -> float[B, 3] { return l(x) }\n}\n"
    error = mistakes(inner + module("inner = Inner()", "return inner.l(x)", "x: float[B, 3]", "[B, 3]"))[0]
    assert (error.code, error.message) == ("E201", "`l` is `Inner`'s own: it can't be used from outside")
    error = mistakes(inner + module("inner = Inner()", "return inner.m(x)", "x: float[B, 3]", "[B, 3]"))[0]
    assert error.message == "`Inner` has no `m`"
