"""Batch norms folded into convolutions: which ones can be, and that a model so evaluated computes the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import ModuleMember
from tdsl.compiler.folding import foldable
from tdsl.compiler.passes.place_casts import place_casts
from tdsl.runtime.batch_norm import Folded
from tdsl.runtime.folding import fold
from tests.helpers import ROOT, built, compiled, python, tdsl
from tests.running import executed

BLOCK = """
module Block(c: int = 4) {
    conv = Conv2d(c, c, 3, padding=1)
    norm = BatchNorm2d(c)
    BODY
}
"""
SHAPE = "forward(x: float[B, c, H, W]) -> float[B, c, H, W]"


def block(body: str, members: str = "") -> str:
    return BLOCK.replace("BODY", f"{members}\n    {SHAPE} {{ {body} }}")


def pairs(text: str, model: str = "Block") -> list[tuple[str, str]]:
    """Those of a class, before and after the passes, and in lower precision: they must not differ."""
    found = []
    fused = compiled(text)
    for unit in (built(text), fused, pipeline.distinct(place_casts(fused, "bf16"))):
        each = foldable(unit, {"model": ModuleMember(model, ())}).get("Block", [])
        found.append([(pair.layer, pair.norm) for pair in each])
    assert found[0] == found[1] == found[2]
    return found[0]


CONV = [("conv", "norm")]


@pytest.mark.parametrize(
    ("body", "members", "expected"),
    [
        ("return norm(conv(x))", "", CONV),
        ("return relu(norm(conv(x)))", "", CONV),
        ("return relu(x + norm(conv(x)))", "", CONV),
        ("y = conv(x)\n return relu(norm(y)) * sigmoid(norm2(y))", "norm2 = BatchNorm2d(c)", []),
        ("y = conv(x)\n return y + norm(y)", "", []),
        ("return conv(norm(x))", "", []),
        ("return norm(conv(norm(conv(x))))", "", []),
        ("return norm(other(conv(x)))", "other = Conv2d(c, c, 1)", [("other", "norm")]),
        ("return relu(norm(conv(x))) + other(x)", "other = conv", []),
        ("return norm(conv(x)) * conv.weight.mean()", "", []),
        ("return norm(conv(x)) + norm.bias.sum()", "", []),
        ("return norm(conv(x)) + norm.running_mean.sum()", "", []),
        ("return norm(conv(x)) + other(x)", "other = Conv2d(c, c, 3, padding=1, weight=conv.weight)", []),
        ("if training { y = norm(conv(x)) } else { y = conv(x) }\n return y", "", []),
        ("return norm(pool(conv(x)))", "pool = MaxPool2d(1)", []),
        (
            "return body(norm(conv(x)))",
            "body = Sequential(Conv2d(c, c, 1), BatchNorm2d(c), ReLU())",
            [*CONV, ("body.0", "body.1")],
        ),
        ("return body(x)", "body = Sequential(Conv2d(c, c, 1), BatchNorm2d(c), MaxPool2d(1))", [("body.0", "body.1")]),
        ("return body(x) + body[0](x)", "body = Sequential(Conv2d(c, c, 1), BatchNorm2d(c), MaxPool2d(1))", []),
        ("return body(x) + x * body[0].weight.sum()", "body = Sequential(Conv2d(c, c, 1), BatchNorm2d(c))", []),
        (
            "return x |> blocks",
            "blocks = [Sequential(Conv2d(c, c, 1), BatchNorm2d(c), Tanh()) for i in range(2)]",
            [("blocks.*.0", "blocks.*.1")],
        ),
        (
            "return x |> blocks",
            "blocks = [Sequential(Conv2d(c, c, 1), Sequential(Conv2d(c, c, 1), BatchNorm2d(c)))]",
            [("blocks.0.1.0", "blocks.0.1.1")],
        ),
        ("return norm(convs[0](convs[1](x)))", "convs = [Conv2d(c, c, 1) for i in range(2)]", [("convs.0", "norm")]),
        ("return norm(convs[0](x)) + (x |> convs)", "convs = [Conv2d(c, c, 1) for i in range(2)]", []),
    ],
)
def test_which_are_folded(body: str, members: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(block(body, members)) == expected


@pytest.mark.parametrize(("member", "expected"), [("block = Block(c)", CONV), ("", [])])
def test_classes_that_a_model_is_not_made_of_are_left_out(member: str, expected: list[tuple[str, str]]) -> None:
    body = "return block(block(x))" if member else "return x"
    text = block("return norm(conv(x))") + f"module Outer(c: int = 4) {{\n    {member}\n    {SHAPE} {{ {body} }}\n}}\n"
    assert pairs(text, "Outer") == expected


# At run time ---------------------------------------------------------------------------------------------------------

MODEL = """
module Block(i: int, o: int) {
    conv = Conv2d(i, o, 3, padding=1, padding_mode="reflect", groups=2)
    norm = BatchNorm2d(o)
    forward(x: float[B, i, H, W]) -> float[B, o, H, W] { return relu(norm(conv(x))) }
}

module Net(c: int = 4) {
    stem   = Block(c, 6)
    deep   = [Sequential(Conv2d(6, 6, 1, bias=false), BatchNorm2d(6, affine=false), Tanh()) for i in range(2)]
    last   = Sequential(Conv2d(6, 8, 3, stride=2), BatchNorm2d(8), ReLU())
    flat   = Conv1d(8, 8, 1)
    normed = BatchNorm1d(8)
    own    = BatchNorm2d(8, track_running_stats=false)
    before = Conv2d(8, 8, 1)
    forward(x: float[B, c, H, W]) -> float[B, 8, N] {
        y = own(before(last(stem(x) |> deep)))
        return relu(normed(flat(y.flatten(2))) + y.flatten(2))
    }
}
"""
MODEL = MODEL.replace("float[B, 8, N]", "float[B, 8, ((H - 1) // 2) * ((W - 1) // 2)]")


def model(folder: Path) -> tuple[Any, dict[type[nn.Module], list[tuple[str, str]]]]:
    """A model whose norms have seen batches, in float64, and the pairs that are told of it."""
    space = executed(MODEL, folder)
    torch.manual_seed(0)
    made = space.Net().double()
    for norm in made.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    for _ in range(3):
        made(torch.randn(4, 4, 9, 9, dtype=torch.float64) * 2 + 1)
    found = foldable(compiled(MODEL), {"model": ModuleMember("Net", ())})
    return made, {getattr(space, name): [(p.layer, p.norm) for p in each] for name, each in found.items()}


def test_a_folded_model_computes_the_same(tmp_path: Path) -> None:
    made, told = model(tmp_path)
    made.eval()
    x = torch.randn(5, 4, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        before = made(x)
        fold(told, made)
        after = made(x)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    assert [name for name, m in made.named_modules() if isinstance(m, Folded)] == [
        "stem.norm", "deep.0.1", "deep.1.1", "last.1", "normed"
    ]  # fmt: skip
    assert isinstance(made.own, nn.BatchNorm2d)  # which keeps no statistics


def test_float32_parameters_are_folded_in_float64(tmp_path: Path) -> None:
    made, told = model(tmp_path)
    single = made.float().eval()
    x = torch.randn(5, 4, 9, 9)
    with torch.no_grad():
        exact = made.double()(x.double())
        fold(told, single.float())
        torch.testing.assert_close(single(x).double(), exact, rtol=2e-5, atol=2e-5)
    assert all(p.dtype == torch.float32 for p in single.parameters())


def test_a_norm_that_trains_stays(tmp_path: Path) -> None:
    made, told = model(tmp_path)
    names = sorted(made.state_dict())
    fold(told, made.train())
    assert sorted(made.state_dict()) == names


def test_kinds_of_memory_stay(tmp_path: Path) -> None:
    made, told = model(tmp_path)
    made = made.to(memory_format=torch.channels_last).eval()
    fold(told, made)
    assert made.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)


# A run ---------------------------------------------------------------------------------------------------------------


def test_an_evaluation_with_folded_norms_finds_the_same(tmp_path: Path) -> None:
    """As one whose script does not fold: of a run in lower precision, with channels last."""
    program = (ROOT / "tests" / "golden" / "residual_images.model").read_text()
    (tmp_path / "p.model").write_text(program.replace("tf32       = true", "precision = bf16"))
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "examples" / "data" / "digits.csv", tmp_path / "data")
    out = tmp_path / "run"
    ran = tdsl("train", tmp_path / "p.model", "--out", out, "--device", "cpu", "--steps", "5")
    assert ran.returncode == 0, ran.stderr
    found = evaluated(out, tmp_path / "p.model")
    script = out / "emitted" / "evaluate.py"
    text = script.read_text()
    assert "    fold(FOLDED, model)\n" in text
    script.write_text(text.replace("    fold(FOLDED, model)\n", ""))
    ran = python(script, "--out", out, "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    wanted = json.loads((out / "metrics.json").read_text())
    assert found["parameters"] == wanted["parameters"] == 9690
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-2)


def evaluated(out: Path, program: Path) -> dict[str, Any]:
    ran = tdsl("evaluate", program, "--out", out, "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found
