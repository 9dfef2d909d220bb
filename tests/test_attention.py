"""`attention`, `rope` and `alibi` against formulas written out here, and PyTorch's own where it has one."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler.pipeline import PASSES
from tdsl.runtime import nn_functions
from tests.helpers import UNFUSED, compiled, emitted, mistakes, written
from tests.running import loaded

TYPES = "q: float[B, 4, T, 6], k: float[B, {0}, S, 6], v: float[B, {0}, S, 8]"


def module(call: str, groups: int = 4, more: str = "", result: str = "float[B, 4, T, 8]", params: str = "") -> str:
    inputs = TYPES.format(groups) + (f", {more}" if more else "")
    return f"module M({params}) {{\n    forward({inputs}) -> {result} {{\n        return {call}\n    }}\n}}\n"


def made(text: str, passes: tuple[Any, ...] = PASSES) -> tuple[Any, str]:
    files = emitted(compiled(text, passes))
    return loaded(written(files, Path(tempfile.mkdtemp()))).M(), files["model.py"]


def tensors(groups: int = 4, queries: int = 5, keys: int = 7) -> list[Tensor]:
    torch.manual_seed(1)
    shapes = ((2, 4, queries, 6), (2, groups, keys, 6), (2, groups, keys, 8))
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def by_hand(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """One query at a time, over the keys that it sees."""
    found = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    per = q.shape[1] // k.shape[1]
    for b, h, i in itertools.product(range(q.shape[0]), range(q.shape[1]), range(q.shape[2])):
        seen = [
            j for j in range(k.shape[2]) if (not causal or j <= i) and (window is None or i - window < j < i + window)
        ]
        if not seen:
            continue
        scores = torch.stack([q[b, h, i] @ k[b, h // per, j] for j in seen]) * (scale or 1 / math.sqrt(q.shape[3]))
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if bias is not None:
            scores = scores + bias.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])[b, h, i, seen]
        found[b, h, i] = scores.softmax(0) @ v[b, h // per, seen]
    return found


OPTIONS = ["", "causal=true", "window=2", "causal=true, window=3", "softcap=1.5", "scale=0.3", "causal=true, scale=2.0",
           "causal=true, window=2, softcap=0.5, scale=1.0", "window=1", "causal=true, softcap=2.0"]  # fmt: skip


def python(options: str) -> dict[str, Any]:
    found: dict[str, Any] = eval(f"dict({options.replace('true', 'True')})")
    return found


def agree(model: Any, given: list[Tensor], **options: Any) -> None:
    """Results and gradients, in float64."""
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in given]
    names = ["q", "k", "v", "bias"][: len(given)]
    found, right = model.double()(*given), by_hand(**dict(zip(names, copies)), **options)
    torch.testing.assert_close(found, right)
    weight = torch.randn_like(right)
    for value in (found, right):
        (value * weight).sum().backward()
    for mine, theirs in zip(given, copies):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_attention_is_its_formula(options: str, groups: int) -> None:
    call = f"attention(q, k, v{', ' if options else ''}{options})"
    model, _ = made(module(call, groups))
    agree(model, tensors(groups), **python(options))


@pytest.mark.parametrize("shape", ["[B, 4, T, S]", "[4, T, S]", "[T, S]", "[1, 4, 1, S]", "[S]"])
@pytest.mark.parametrize("options", ["", "causal=true", "softcap=1.0", "window=2"])
def test_a_bias_is_added_to_the_scores(shape: str, options: str) -> None:
    call = f"attention(q, k, v, bias=bias{', ' if options else ''}{options})"
    model, text = made(module(call, more=f"bias: float{shape}"))
    assert ("F.scaled_dot_product_attention(q, k, v, attn_mask=bias)" in text) == (not options)
    sizes = eval(shape, {"B": 2, "T": 5, "S": 7})
    bias = torch.randn(sizes, dtype=torch.float64).requires_grad_()
    agree(model, [*tensors(), bias], **python(options))


def test_a_query_that_sees_nothing_yields_zeros_and_no_nan() -> None:
    model, _ = made(module("attention(q, k, v, window=2)"))
    agree(model, tensors(queries=9, keys=3), window=2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("attention(q, k, v)", "F.scaled_dot_product_attention(q, k, v)"),
        ("attention(q, k, v, causal=true)", "F.scaled_dot_product_attention(q, k, v, is_causal=True)"),
        (
            "attention(q, k, v, dropout_p=0.1)",
            "F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)",
        ),
        ("attention(q, k, v, true, 4)", "kernels.attention(q, k, v)"),
        ("attention(q, k, v, scale=s, window=w)", "kernels.attention(q, k, v, self.s, self.w)"),
    ],
)
def test_pytorch_s_own_is_called_where_it_has_what_is_asked_for(call: str, text: str) -> None:
    _, emitted_text = made(module(call, params="w: int = 3, s: float = 0.5"))
    assert f"return {text}\n" in emitted_text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("attention(q, k, v, true, 4)", "nn_functions.attention(q, k, v, causal=True, window=4)"),
        ("attention(q, k, v, scale=s, window=w)", "nn_functions.attention(q, k, v, window=self.w, scale=self.s)"),
    ],
)
def test_unfused_the_rest_is_written_out(call: str, text: str) -> None:
    _, emitted_text = made(module(call, params="w: int = 3, s: float = 0.5"), UNFUSED)
    assert f"return {text}\n" in emitted_text


def test_a_long_call_has_a_line_an_argument() -> None:
    call = "attention(q, k, v, causal=true, window=4, softcap=5.0, scale=0.125, bias=alibi(4, T, S), dropout_p=0.1)"
    _, text = made(module(call), UNFUSED)
    lines = ["return nn_functions.attention(", "    q,", "    k,", "    v,",
             "    bias=nn_functions.alibi(4, q.shape[2], S=k.shape[2], device=q.device),", "    causal=True,",
             "    window=4,", "    softcap=5.0,", "    scale=0.125,", "    dropout_p=0.1 if self.training else 0.0,", ")"]  # fmt: skip
    assert "\n".join(f"        {line}" for line in lines) in text


def test_grouped_heads_are_pytorch_s() -> None:
    model, text = made(module("attention(q, k, v, causal=true)", 2))
    assert "enable_gqa=True" in text
    q, k, v = (t.float() for t in tensors(2))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(model(q, k, v), expected)


@pytest.mark.parametrize("options", ["", ", window=3"])
def test_dropout_holds_in_training_alone(options: str) -> None:
    model, _ = made(module(f"attention(q, k, v, dropout_p=0.5{options})"))
    plain, _ = made(module(f"attention(q, k, v{options})"))
    given = [t.float() for t in tensors()]
    torch.testing.assert_close(model.eval()(*given), plain(*given))
    model.train()
    assert not torch.equal(model(*given), model(*given))
    torch.manual_seed(0)
    mean = torch.stack([model(*given) for _ in range(600)]).mean(0)
    assert (mean - plain(*given)).abs().max() < 0.35


def test_two_equal_calls_drop_apart() -> None:
    twice = "attention(q, k, v, dropout_p=0.5) - attention(q, k, v, dropout_p=0.5)"
    model, _ = made(module(twice))
    assert model(*(t.float() for t in tensors())).abs().max() > 0


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16])
def test_alibi_has_the_slopes_of_the_paper(heads: int) -> None:
    bias = nn_functions.alibi(heads, 4, 6)
    assert bias.shape == (heads, 4, 6)
    slopes = -bias[:, 0, 1]
    if heads & (heads - 1) == 0:
        torch.testing.assert_close(slopes, torch.tensor([2.0 ** (-8 * i / heads) for i in range(1, heads + 1)]))
    assert torch.all(slopes > 0)
    assert len(set(slopes.tolist())) == heads
    distance = (torch.arange(6) - torch.arange(4)[:, None]).abs()
    torch.testing.assert_close(bias, -slopes[:, None, None] * distance)


def test_alibi_of_twelve_heads_is_that_of_its_authors() -> None:
    """Those of 8 heads, then every other one of 16."""
    eight = [2.0**-i for i in range(1, 9)]
    more = [2.0 ** (-0.5 * i) for i in (1, 3, 5, 7)]
    torch.testing.assert_close(-nn_functions.alibi(12, 1, 2)[:, 0, 1], torch.tensor(eight + more))


def test_rope_turns_pairs_by_position() -> None:
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    found = nn_functions.rope(x, base=100.0, offset=2)
    for position, i in itertools.product(range(5), range(4)):
        angle = (position + 2) / 100.0 ** (2 * i / 8)
        a, b = x[..., position, i], x[..., position, i + 4]
        torch.testing.assert_close(
            found[..., position, i], a * math.cos(angle) - b * math.sin(angle), atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            found[..., position, i + 4], a * math.sin(angle) + b * math.cos(angle), atol=1e-5, rtol=1e-5
        )


WRONG = [
    ("attention(q, k, v, window=0)", "", "E202", "at least 1"),
    ("attention(q, v, k)", "", "E203", "widths of q and k"),
    ("attention(q, k, v, bias=bias)", "bias: bool[T, S]", "E205", "added to the scores"),
    ("attention(q, k, v, bias=bias)", "bias: float[3, 1, 1, 1]", "E203", "`bias of attention`"),
    ("attention(q, k, v, bias=bias)", "bias: float[2, B, 4, T, S]", "E203", "more than the scores"),
    ("attention(q, x, x)", "x: float[B, 3, S, 6]", "E203", "no multiple"),
    ("attention(x, x, x)", "x: float[B, T, 6]", "E203", "`q` of `attention` is float[B, heads, T, D]"),
    ("attention(q, k, v, dropout_p=1.5)", "", "E202", "between 0 and 1"),
    ("rope(x)", "x: float[B, T, 5]", "E203", "odd last size"),
    ("rope(x)", "x: int[B, T, 4]", "E205", "floating-point"),
    ("rope(x)", "x: float[B, T, D]", "E208", "assume D % 2 == 0"),
]


@pytest.mark.parametrize(("call", "more", "code", "words"), WRONG)
def test_what_does_not_fit_is_an_error(call: str, more: str, code: str, words: str) -> None:
    (error,) = mistakes(module(call, more=more))
    assert error.code == code
    assert words in f"{error.message} {error.label} {error.help}"
    assert error.span is not None
    assert error.span.text == call
