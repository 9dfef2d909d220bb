"""What a program asks of its tensors: sizes, ranks, dtypes; and what stands where a type has `...`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tdsl.compiler.build.program import build
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.pipeline import run
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.resolve import load
from tests.expressions import agree, pairs, refused
from tests.helpers import UNFUSED, built

CALLS = pairs("""
    x * x.shape[0] === x * B
    x * x.size(-1) === x * 8
    x * size(x, 0) === x * B
    x + x.ndim === x + 2
    x.reshape(x.numel()) === x.reshape(-1)
    zeros(x.shape, dtype=x.dtype) === torch.zeros(B, 8)
    n.to(x.dtype) === n.float()
    t.reshape(t.shape[0] * t.shape[1], -1) === t.reshape(B * T, 8)
    x * (T / 2.0) === x * (T / 2.0)
    x * (-9.5 / size(q, 1)) === x * (-9.5 / (4 * T))
    x * T ** 0.5 === x * T ** 0.5
""")


@pytest.mark.parametrize(("text", "oracle"), CALLS)
def test_values_are_pytorchs(text: str, oracle: str, tmp_path: Path) -> None:
    agree(text, oracle, tmp_path)


def test_what_there_is_not() -> None:
    assert refused("zeros(x.shape[2])").code == "E125"
    assert refused("zeros(x.size(2))").code == "E204"


def module(body: str, header: str = "forward(x: [..., 8], y: [B, 4])", result: str = "[..., 8]") -> list[Diagnostic]:
    source = f"const WIDTH = 8\nmodule M() {{\n    {header} -> {result} {{\n        {body}\n    }}\n}}\n"
    program, reporter = load("net.model", text=source)
    if program is not None:
        build(program, reporter)
    return reporter.diagnostics


def test_sizes_are_unpacked(tmp_path: Path) -> None:
    unit = built(
        "module M() {\n    forward(x: [B, T, 8]) -> [T, B, 8] {\n        b, t, c = x.shape\n"
        "        return x.reshape(t, b, c)\n    }\n}\n"
    )
    space: dict[str, type[torch.nn.Module]] = {}
    exec(model_text(run(unit, UNFUSED)), space)
    x = torch.randn(2, 3, 8)
    assert torch.equal(space["M"]()(x), x.reshape(3, 2, 8))


def test_sizes_of_a_signature_may_be_constants_and_stand_in_any_order() -> None:
    assert not module("return y", "forward(x: [B, 2 * T], y: [B, WIDTH], z: [T])", "[B, 8]")
    (mistake,) = module("return y", "forward(x: [B, 2 * S], y: [B, WIDTH])", "[B, 8]")
    assert mistake.code == "E110"


OPEN = {
    "x[..., 0]": None,
    "x[..., 1:3]": None,
    "x.transpose(-1, -2)": "E208",
    "x.T": "E208",
    "x[0]": "E208",
    "x[:, 0]": "E208",
    "x.reshape(-1, 8)": "E208",
    "x.flatten(0, 1)": "E208",
    "x.flatten()": "E208",
    "x.unflatten(-1, (2, 4))": None,
    "x.unsqueeze(-1)": None,
    "x.unsqueeze(0)": None,
    "x.unsqueeze(1)": "E208",
    "x.sum(dim=0)": "E208",
    "x.sum(dim=-1)": None,
    "x.expand(3, 8)": "E208",
    "x.repeat(2, 2)": "E208",
    "x.tile(2)": "E208",
    "pad(x, (1, 1))": None,
    "pad(x, (1, 1, 1, 1))": "E208",
    "x.flip(-1)": None,
    "x.roll(1, dims=0)": "E208",
    "x.size(0) * x": "E208",
    "x.size(-1) * x": None,
    "x.shape[0] * x": "E208",
    'rearrange(x, "b d -> d b")': "E208",
    'rearrange(x, "... (h d) -> ... h d", h=2)': None,
    'rearrange(x, "... (h d) -> ... d h", h=2)': None,
    'rearrange(x, "... d -> d ...")': "E208",
    'rearrange(x, "... d -> (...) d")': "E208",
    'reduce(x, "... d -> ...", "mean")': None,
    'reduce(x, "... d -> d", "mean")': "E208",
    'einsum("...d, bd -> ...b", x, y.repeat(1, 2))': None,
    'einsum("ad, bd -> ab", x, y.repeat(1, 2))': "E208",
}


@pytest.mark.parametrize(("text", "code"), OPEN.items())
def test_dimensions_that_are_not_known_are_not_counted(text: str, code: str | None) -> None:
    found = module(f"z = {text}\n        return x")
    assert [d.code for d in found if d.severity == "error"] == ([code] if code else [])


def test_patterns_keep_the_dimensions_that_are_not_known(tmp_path: Path) -> None:
    unit = built(
        "module M(heads: int = 2) {\n    forward(x: [..., 8]) -> [..., heads, 1] {\n"
        '        a = rearrange(x, "... (h d) -> ... d 1 h", h=heads)\n'
        '        return reduce(a, "... d 1 h -> ... h 1", "mean")\n    }\n}\n'
    )
    space: dict[str, type[torch.nn.Module]] = {}
    exec(model_text(run(unit, UNFUSED)), space)
    for shape in ((8,), (3, 8), (2, 1, 3, 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(space["M"]()(x), x.reshape(*shape[:-1], 2, 4).mean(-1, keepdim=True))
