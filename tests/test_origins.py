"""Shapes that do not match are told with what made them."""

from __future__ import annotations

import pytest

from tests.test_build import built, mistakes

ORIGINS = """module Res(d: int = 64) {
    pool = MaxPool2d(2)
    conv = Conv2d(d, 32, 3, padding=1)
    up   = Linear(64, 32)
    forward(x: float[B, d, H, W], z: float[B, T, 64]) -> float[B, d, H, W] {
        %s
    }
}
"""


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("return x + pool(x)", "`pool` halves the last two dimensions (net.model:2:12)"),
        ("return x + relu(pool(x) * 2)", "`pool` halves the last two dimensions (net.model:2:12)"),
        ("return x - conv(x)", "`conv` turns dimension 1 from d into 32 (net.model:3:12)"),
        ("w = z + gelu(up(z))\n        return x", "`up` turns the last dimension from 64 into 32 (net.model:4:12)"),
        (
            "w = cat([z, up(z)], dim=1)\n        return x",
            "`up` turns the last dimension from 64 into 32 (net.model:4:12)",
        ),
        ("w = z + z.T\n        return x", "`.T` turns the last two dimensions from T, 64 into 64, T (net.model:6:17)"),
        ("w = z + z.sum(dim=1)\n        return x", "`sum` makes float[B, 64] of float[B, T, 64] (net.model:6:17)"),
        ("return pool(x)", "`pool` halves the last two dimensions (net.model:2:12)"),
    ],
)
def test_a_mismatch_tells_what_made_it(body: str, note: str) -> None:
    (found,) = mistakes(ORIGINS % body)
    assert found.code in ("E203", "E207")
    assert note in found.notes


@pytest.mark.parametrize("body", ["x @ x", "x + x.T", "cat([x, x.T], dim=0)"])
def test_sizes_that_may_be_equal_can_be_stated_so(body: str) -> None:
    """And with that the program is right."""
    text = "module M() {\n    forward(x: float[B, H, W]) -> float[B, H, W] {\n%s        y = " + body
    text += "\n        return x\n    }\n}\n"
    (found,) = mistakes(text % "")
    assert (found.code, found.help) == ("E203", "where they are equal, state it: `assume H == W`")
    built(text % "        assume H == W\n")


def test_a_call_tells_which_input_bound_a_size() -> None:
    text = """fn f(x: float[B, C], y: float[B, C]) -> float[B, C] { return x + y }
module M() {
    l = Linear(4, 8)
    forward(x: float[B, 4]) -> float[B, 4] { return f(x, l(x)) }
}
"""
    (found,) = mistakes(text)
    assert found.label == "float[B, 8] where float[B, 4] is expected"
    assert found.notes == (
        "`y` of `f` is declared float[B, C]",
        "`C` is 4 there, as `x` has it",
        "`l` turns the last dimension from 4 into 8 (net.model:3:9)",
    )
