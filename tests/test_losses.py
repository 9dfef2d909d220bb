"""Every loss of the language against `torch.nn.functional`: values, and gradients of inputs, targets and weights."""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers import compiled, emitted, mistakes, written
from tests.running import loaded

NAMES = set(
    """
    mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss binary_cross_entropy
    binary_cross_entropy_with_logits kl_div triplet_margin_loss margin_ranking_loss cosine_embedding_loss
    hinge_embedding_loss multi_margin_loss gaussian_nll_loss poisson_nll_loss ctc_loss
    """.split()
)
SIZES = {"B": 4, "C": 5, "T": 3, "D": 7}


@dataclass(frozen=True)
class Case:
    """A call, and its tensors by name: a type and how the numbers are drawn."""

    call: str
    inputs: dict[str, str]
    result: str = "float[]"

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]


def unreduced(name: str, inputs: dict[str, str], shape: str, *options: str) -> list[Case]:
    """A loss with each of these options, reduced in each way."""
    given = ", ".join(inputs)
    found = [Case(f"{name}({', '.join([given, *filter(None, [o])])})", inputs) for o in ("", *options)]
    for option in ("", *options):
        for reduction in ("sum", "none"):
            arguments = ", ".join(filter(None, [given, option, f'reduction="{reduction}"']))
            found.append(Case(f"{name}({arguments})", inputs, f"float{shape}" if reduction == "none" else "float[]"))
    return found


PAIR = {"x": "normal [B, D]", "y": "normal [B, D]"}
WEIGHTED = {**PAIR, "w": "uniform [B, D]"}
CHANCES = {"x": "uniform [B, D]", "y": "uniform [B, D]"}
SCORES = {"x": "normal [B, C]", "y": "classes [B]"}
PIXELS = {"x": "normal [B, C, T, D]", "y": "classes [B, T, D]"}
WEIGHTS = {"w": "weights [C]"}
LOGS = {"x": "logs [B, D]", "y": "logs [B, D]"}
SIGNED = {"x": "normal [B]", "y": "normal [B]", "s": "signs [B]"}
ROWS = {"x": "normal [B, D]", "y": "normal [B, D]", "z": "normal [B, D]"}
WORDS = {"x": "logs [9, B, C]", "y": "letters [B, T]", "n": "nines [B]", "m": "lengths [B]"}


def _weighted(name: str) -> list[Case]:
    return unreduced(f"{name}", PAIR, "[B, D]") + [
        Case(f'{name}(x, y, weight=w, reduction="{r}")', WEIGHTED, "float[B, D]" if r == "none" else "float[]")
        for r in ("mean", "sum", "none")
    ]


CASES = [
    *_weighted("mse_loss"),
    *_weighted("l1_loss"),
    *_weighted("huber_loss"),
    *unreduced("huber_loss", PAIR, "[B, D]", "delta=0.3"),
    *unreduced("smooth_l1_loss", PAIR, "[B, D]", "beta=0.3", "beta=2.0"),
    *unreduced("cross_entropy", SCORES, "[B]", "ignore_index=2", "label_smoothing=0.2"),
    *unreduced("cross_entropy", PIXELS, "[B, T, D]", "ignore_index=2", "label_smoothing=0.2"),
    *unreduced("cross_entropy", {**SCORES, **WEIGHTS}, "[B]", "ignore_index=1, label_smoothing=0.1"),
    *unreduced("cross_entropy", {"x": "normal [B, C]", "y": "shares [B, C]"}, "[B]", "label_smoothing=0.2"),
    *unreduced("cross_entropy", {"x": "normal [C]", "y": "classes []"}, "[]"),
    *unreduced("nll_loss", {**SCORES, "x": "logs [B, C]"}, "[B]", "ignore_index=2"),
    *unreduced("nll_loss", {**PIXELS, **WEIGHTS}, "[B, T, D]", "ignore_index=0"),
    *unreduced("binary_cross_entropy", CHANCES, "[B, D]"),
    *unreduced("binary_cross_entropy", {**CHANCES, "w": "weights [B, 1]"}, "[B, D]"),
    *unreduced("binary_cross_entropy_with_logits", {**CHANCES, "x": "normal [B, D]"}, "[B, D]"),
    *unreduced("binary_cross_entropy_with_logits", {**PAIR, "w": "weights [D]"}, "[B, D]"),
    Case("binary_cross_entropy_with_logits(x, y, pos_weight=w)", {**CHANCES, "w": "weights [D]"}),
    *unreduced("kl_div", {"x": "logs [B, D]", "y": "shares [B, D]"}, "[B, D]"),
    *(
        Case(f'kl_div(x, y, log_target=true, reduction="{r}")', LOGS, "float[B, D]" if r == "none" else "float[]")
        for r in ("mean", "sum", "none", "batchmean")
    ),
    Case('kl_div(x, y, reduction="batchmean")', {"x": "logs [B, D]", "y": "shares [B, D]"}),
    *unreduced("triplet_margin_loss", ROWS, "[B]", "margin=0.5, p=1.0", "swap=true", "eps=1e-3"),
    *unreduced("margin_ranking_loss", SIGNED, "[B]", "margin=0.5"),
    *unreduced("cosine_embedding_loss", {**PAIR, "s": "signs [B]"}, "[B]", "margin=0.5"),
    Case("cosine_embedding_loss(x, y, s)", {"x": "normal [D]", "y": "normal [D]", "s": "signs []"}),
    *unreduced("hinge_embedding_loss", {"x": "uniform [B, D]", "s": "signs [B, D]"}, "[B, D]", "margin=0.5"),
    *unreduced("multi_margin_loss", SCORES, "[B]", "p=2", "margin=0.5"),
    Case("multi_margin_loss(x, y, p=2, margin=0.5, weight=w)", {**SCORES, **WEIGHTS}),
    Case("multi_margin_loss(x, y)", {"x": "normal [C]", "y": "classes []"}),
    *unreduced("gaussian_nll_loss", {**PAIR, "v": "uniform [B, D]"}, "[B, D]", "full=true", "eps=0.5"),
    *unreduced("gaussian_nll_loss", {**PAIR, "v": "uniform [B]"}, "[B, D]"),
    *unreduced("gaussian_nll_loss", {**PAIR, "v": "uniform [B, 1]"}, "[B, D]"),
    *unreduced("poisson_nll_loss", CHANCES, "[B, D]", "log_input=false", "full=true", "log_input=false, eps=1e-2"),
    *unreduced("ctc_loss", WORDS, "[B]", "blank=4", "zero_infinity=true"),
    Case("ctc_loss(x, y, [9, 8], [3, 2])", {"x": "logs [9, 2, C]", "y": "letters [2, T]"}),
    Case("ctc_loss(x, y, n, m)", {"x": "logs [9, C]", "y": "letters [2]", "n": "nines []", "m": "lengths []"}),
]


def drawn(kind: str, shape: list[int]) -> Tensor:
    if kind in ("normal", "uniform", "logs", "shares"):
        found = torch.rand(shape) * 0.8 + 0.1 if kind == "uniform" else torch.randn(shape)
        found = found.log_softmax(-1) if kind == "logs" else found.softmax(-1) if kind == "shares" else found
        return found.requires_grad_()
    if kind == "weights":  # of classes and elements: PyTorch has no gradient for them
        return torch.rand(shape) + 0.1
    if kind == "signs":
        return torch.randint(0, 2, shape) * 2.0 - 1.0
    fixed = {"nines": 9, "lengths": 2}
    if kind in fixed:
        return torch.full(shape, fixed[kind])
    return torch.randint(1 if kind == "letters" else 0, 4 if kind == "letters" else 5, shape)


def tensors(case: Case) -> dict[str, Tensor]:
    torch.manual_seed(5)
    found = {}
    for name, text in case.inputs.items():
        kind, _, shape = text.partition(" ")
        found[name] = drawn(kind, eval(shape, dict(SIZES)))
    return found


def module(name: str, call: str, inputs: dict[str, str], result: str) -> str:
    whole = ("classes", "letters", "nines", "lengths")
    types = {n: (("int" if t.split()[0] in whole else "float") + t.partition(" ")[2]) for n, t in inputs.items()}
    given = ", ".join(f"{n}: {t}" for n, t in types.items())
    return f"module {name}() {{\n    forward({given}) -> {result} {{\n        return {call}\n    }}\n}}\n"


@cache
def program() -> ModuleType:
    text = "".join(module(f"C{i}", c.call, c.inputs, c.result) for i, c in enumerate(CASES))
    return loaded(written(emitted(compiled(text)), Path(tempfile.mkdtemp())))


def python(call: str) -> str:
    return "F." + re.sub(r"\b(true|false)\b", lambda word: word[0].capitalize(), call)


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{i}-{c.call}" for i, c in enumerate(CASES)])
def test_a_loss_is_that_of_pytorch(index: int) -> None:
    case = CASES[index]
    mine, theirs = tensors(case), tensors(case)
    found = getattr(program(), f"C{index}")()(*mine.values())
    expected = eval(python(case.call), {"F": F, **theirs})
    torch.testing.assert_close(found, expected)
    torch.manual_seed(6)
    weight = torch.randn(expected.shape)
    for value in (found, expected):
        (value * weight).sum().backward()
    for name, right in theirs.items():
        assert (mine[name].grad is None) == (right.grad is None), name
        if right.grad is not None:
            torch.testing.assert_close(mine[name].grad, right.grad)


def test_every_loss_is_tested_in_several_forms() -> None:
    forms = [case.name for case in CASES]
    assert set(forms) == NAMES
    assert min(forms.count(name) for name in NAMES) > 2


# What is refused: the call, its inputs, the code, and words of the message.
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("mse_loss(x, y)", {"x": "normal [B, 1]", "y": "normal [B]"}, "E203", "shapes do not match in `mse_loss`"),
    ("l1_loss(x, y)", {"x": "normal [B]", "y": "classes [B]"}, "E205", "floating-point"),
    ('mse_loss(x, y, reduction="average")', PAIR, "E202", "`reduction` of `mse_loss` is one of mean, sum, none"),
    ('mse_loss(x, y, reduction="batchmean")', PAIR, "E202", "`reduction`"),
    ("mse_loss(x, y, weight=w)", {**PAIR, "w": "weights [D]"}, "E203", "`weight` of `mse_loss`"),
    ("mse_loss(x, y, delta=1.0)", PAIR, "E202", "no argument `delta`"),
    ("cross_entropy(x, y)", {"x": "normal [B, C]", "y": "classes [T]"}, "E203", "shapes do not match"),
    ("cross_entropy(x, y)", {"x": "normal [B, T, C]", "y": "classes [B, T]"}, "E203", "shapes do not match"),
    ("cross_entropy(x, y)", {"x": "normal [B, C]", "y": "normal [B]"}, "E205", "classes as integers"),
    ("cross_entropy(x, y, w)", {**SCORES, "w": "weights [B]"}, "E203", "one number a class"),
    ("cross_entropy(x, y, label_smoothing=1.5)", SCORES, "E202", "between 0 and 1"),
    ("cross_entropy(x, y, ignore_index=0)", {"x": "normal [B, C]", "y": "shares [B, C]"}, "E202", "`ignore_index`"),
    ("nll_loss(x, y)", {"x": "normal [B, C]", "y": "shares [B, C]"}, "E205", "classes as integers"),
    ("binary_cross_entropy(x, y, w)", {**CHANCES, "w": "weights [T, B, D]"}, "E203", "more than the input"),
    ("triplet_margin_loss(x, y, z, margin=-1.0)", ROWS, "E202", "greater than 0"),
    ("margin_ranking_loss(x, y, s)", {**SIGNED, "s": "signs [B, 1]"}, "E203", "shapes do not match"),
    ("cosine_embedding_loss(x, y, s)", {**PAIR, "s": "signs [B, D]"}, "E203", "shapes do not match"),
    ("multi_margin_loss(x, y, p=3)", SCORES, "E202", "`p`"),
    ("multi_margin_loss(x, y)", PIXELS, "E203", "class scores"),
    ("gaussian_nll_loss(x, y, v)", {**PAIR, "v": "uniform [D, B]"}, "E203", "`var`"),
    ("ctc_loss(x, y, n, m)", {**WORDS, "n": "nines [B, 1]"}, "E203", "`input_lengths`"),
    ("ctc_loss(x, y, n, m, blank=9)", {**WORDS, "x": "logs [9, B, 5]"}, "E204", "`blank`"),
    ("ctc_loss(x, y, n, m)", {**WORDS, "y": "letters [C, T]"}, "E203", "targets are [N, S]"),
]


@pytest.mark.parametrize(("call", "inputs", "code", "words"), WRONG)
def test_what_pytorch_refuses_or_warns_of_is_an_error(call: str, inputs: dict[str, str], code: str, words: str) -> None:
    (error,) = mistakes(module("M", call, inputs, "float[]"))
    assert error.code == code
    assert words in f"{error.message} {error.label} {error.help}"
    assert error.span is not None
    assert error.span.text in call


def test_a_number_stands_for_the_variance() -> None:
    inputs = {**PAIR}
    text = module("M", "gaussian_nll_loss(x, y, 0.25)", inputs, "float[]")
    found = loaded(written(emitted(compiled(text)), Path(tempfile.mkdtemp()))).M()
    given = tensors(Case("", inputs))
    x, y = given.values()
    expected = (0.5 * (math.log(0.25) + (x - y) ** 2 / 0.25)).mean()
    torch.testing.assert_close(found(x, y), expected)
