"""`assume`: what it lets be proved, that the emitted code checks it, and how an error asks for it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch

from tdsl.compiler.ir import Assumption
from tdsl.compiler.ops.infer import knowing, known, quotient, same
from tdsl.compiler.size import Size, Symbol
from tests.helpers import built, mistakes
from tests.running import executed, source

B, H, T, W = (Size.of(Symbol(name)) for name in "BHTW")
DIM, HEADS = (Size.of(Symbol(name, param=True)) for name in ("dim", "heads"))


def fact(left: Size, op: str, right: Size | int) -> Assumption:
    return Assumption(left, op, Size.of(right))


@pytest.mark.parametrize(
    ("assumed", "left", "right"),
    [
        ([fact(H, "==", W)], B * H * H, B * H * W),
        ([fact(H, "==", 2 * W)], H // 2, W),
        ([fact(H, "==", W), fact(W, "==", T)], H + T, 2 * W),
        ([fact(H + 1, "==", W)], W - 1, H),
        ([fact(B * T, "==", W)], W * 2, 2 * B * T),
        ([fact(H * W, "==", 64)], B * H * W, 64 * B),
        ([fact(T % 4, "==", 0)], T // 4 * 2, T // 2),
        ([fact(T % 4, "==", 0), fact(T % 6, "==", 0)], T // 12 * 12, T),
        ([fact(T % 3, "==", 1)], T // 3 * 3 + 1, T),
        ([fact((T + 1) % 3, "==", 0)], (T + 1) // 3 * 3, T + 1),
        ([fact(2 * T % 4, "==", 0)], T // 2 * 2, T),
        ([fact(DIM % HEADS, "==", 0)], HEADS * (DIM // HEADS), DIM),
        ([fact(DIM % HEADS, "==", 0), fact(DIM % 2, "==", 0)], 2 * (DIM // 2), DIM),
        ([fact(H % 2, "==", 0), fact(H, "==", W)], W // 2 + H // 2, H),
        ([fact(H, "==", 28)], H // 4, Size.of(7)),
    ],
)
def test_what_is_stated_is_used(assumed: list[Assumption], left: Size, right: Size) -> None:
    assert not same(left, right)
    with knowing({}, assumed):
        assert same(left, right)
    assert not same(left, right)


def test_what_is_not_stated_is_not_concluded() -> None:
    with knowing({}, [fact(T % 4, "==", 0), fact(H, "<=", W)]):
        assert not same(T // 8 * 8, T)
        assert not same(H, W)
        assert quotient(T, Size.of(8)) is None
        assert known(T) is None
    with knowing({}, [fact(T % 4, "==", 0)]):
        assert quotient(T * B, Size.of(2)) == T * B // 2


def _term(rng: random.Random, sizes: list[Size], depth: int) -> Size:
    if depth == 0:
        return rng.choice([*sizes, Size.of(rng.randint(-3, 5))])
    a = _term(rng, sizes, depth - 1)
    match rng.randrange(5):
        case 0:
            return a + _term(rng, sizes, depth - 1)
        case 1:
            return a * rng.randint(-2, 3)
        case 2:
            return a % rng.choice([2, 3, 4])
        case _:
            return a // rng.choice([2, 2, 3, 4])


@pytest.mark.parametrize("seed", range(12))
def test_equality_of_quotients_is_decided(seed: int) -> None:
    """Two sizes made of sums and constant quotients are proved equal exactly where they agree everywhere."""
    rng = random.Random(seed)
    pairs = [(_term(rng, [H], 3), _term(rng, [H], 3)) for _ in range(20)]
    pairs += [(a, a // 2 + (a + 1) // 2) for a, _ in pairs] + [(a // 2 // 3, a // 6) for a, _ in pairs]
    for left, right in pairs:
        values = [
            (left.substitute({Symbol("H"): h}).constant, right.substitute({Symbol("H"): h}).constant)
            for h in itertools.chain(range(144), (10**6 + 7,))
        ]
        if left.modulus() <= 144 and right.modulus() <= 144:
            assert same(left, right) == all(a == b for a, b in values), (left, right)


CONVOLUTIONS = """
module Down() {
    conv = Conv2d(3, 8, 3, stride=2, padding=1)
    forward(x: float[B, 3, H, W]) -> float[B, 8, (H + 1) // 2, (W + 1) // 2] { return conv(x) }
}
module Net() {
    first  = Conv2d(3, 8, 3, padding=1)
    second = Conv2d(8, 8, 3, stride=2, padding=1)
    pool   = MaxPool2d(2)
    skip   = Conv2d(8, 8, 1, stride=4)
    forward(x: float[B, 3, H, W]) -> float[B, 8, H // 4, W // 4] {
        assume H % 4 == 0 and W % 4 == 0
        h = first(x)
        return pool(second(h)) + skip(h) + pool(pool(h))
    }
}
"""


def test_convolutions_and_pooling_meet(tmp_path: Path) -> None:
    model = executed(CONVOLUTIONS, tmp_path).Net()
    assert model(torch.randn(2, 3, 8, 12)).shape == (2, 8, 2, 3)
    with pytest.raises(ValueError, match=r"assumed H % 4 == 0: H is 9"):
        model(torch.randn(2, 3, 9, 12))


SQUARE = """
fn halves(y: float[B, D]) -> float[B, D] {
    assume D % 2 == 0
    a, b = y.chunk(2, dim=-1)
    return cat([b, a], dim=-1)
}
module M(dim: int, heads: int) {
    size = dim / heads
    proj = Linear(dim, heads * size)
    forward(x: float[B, T, dim], y: float[B, dim, S]) -> float[B, T, T] {
        assume dim % heads == 0
        assume S == T and T <= 64
        if training { assume B >= 2 }
        z = proj(x).reshape(B * T, dim)
        return halves(z).reshape(B, T, dim) @ y + x @ y
    }
}
"""


def test_what_is_assumed_is_checked(tmp_path: Path) -> None:
    made = executed(SQUARE, tmp_path).M
    model = made(6, 3)
    assert model(torch.randn(2, 5, 6), torch.randn(2, 6, 5)).shape == (2, 5, 5)
    with pytest.raises(ValueError, match=r"^assumed S == T: S is 4, T is 5$"):
        model(torch.randn(2, 5, 6), torch.randn(2, 6, 4))
    with pytest.raises(ValueError, match=r"^assumed T <= 64: T is 65$"):
        model(torch.randn(2, 65, 6), torch.randn(2, 6, 65))
    with pytest.raises(ValueError, match=r"^assumed dim % heads == 0: dim is 6, heads is 4$"):
        made(6, 4)(torch.randn(2, 5, 6), torch.randn(2, 6, 5))
    with pytest.raises(ValueError, match=r"^assumed B >= 2: B is 1$"):
        model(torch.randn(1, 5, 6), torch.randn(1, 6, 5))
    assert model.eval()(torch.randn(1, 5, 6), torch.randn(1, 6, 5)).shape == (1, 5, 5)


def test_the_text_of_a_check() -> None:
    text = "module M() {\n forward(x: float[B, H, W]) -> float[B, H, H] {\n assume H == W\n return x @ x\n }\n}\n"
    assert source(text, "M") == (
        'H, W = x.shape[1:]\nif H != W:\n    raise ValueError(f"assumed H == W: H is {H}, W is {W}")\nreturn x @ x\n'
    ).replace("H, W = x.shape[1:]", "_, H, W = x.shape")


def test_what_is_assumed_holds_at_every_use() -> None:
    """A module that is used with sizes that break it is refused where that is known."""
    text = SQUARE + "module Net() {\n m = M(6, 4)\n}\n"
    (found,) = [d for d in mistakes(text) if "does not hold" in d.message]
    assert (found.code, found.message) == ("E208", "`dim % heads == 0` does not hold")
    assert found.label == "2 == 0"


UNKNOWN = "module M(dim: int, heads: int) {\n%s\n    forward(x: float[B, T, dim]) -> %s {\n%s\n    }\n}\n"


@pytest.mark.parametrize(
    ("member", "result", "body", "help"),
    [
        ("    size = dim / heads", "float[B, T, dim]", "return x", "state it: `assume dim % heads == 0`"),
        ("", "float[B, T / 4, 4, dim]", "return x.reshape(B, T / 4, 4, dim)", "state it: `assume T % 4 == 0`"),
        ("", "float[B, 2, dim]", "return x.reshape(B, 2, -1, dim).sum(dim=2)", "state it: `assume T % 2 == 0`"),
        (
            "",
            "float[B, T, dim]",
            "a, b = x.chunk(2, dim=-1)\nreturn cat([b, a], dim=-1)",
            "state it: `assume dim % 2 == 0`",
        ),
    ],
)
def test_an_error_says_what_to_state(member: str, result: str, body: str, help: str) -> None:
    """And stating it is the cure."""
    found = mistakes(UNKNOWN % (member, result, body))
    assert found[0].code == "E208"
    assert help in (found[0].help or "")
    stated = help.partition("`")[2].rstrip("`")
    built(UNKNOWN % (member, result, f"{stated}\n{body}"))


@pytest.mark.parametrize(
    ("statement", "code", "message", "caret"),
    [
        ("assume x.sum() > 0", "E201", "`assume` compares sizes", "x.sum()"),
        ("assume B", "E201", "`assume` takes a comparison of sizes", "B"),
        ("assume 3 == 4", "E208", "`3 == 4` does not hold", "3 == 4"),
        ("assume dim == 9", "E208", "`dim == 9` does not hold", "dim == 9"),
        ("assume B % 2 == 0 and C == 1", "E110", "unknown name `C`", "C"),
    ],
)
def test_mistakes(statement: str, code: str, message: str, caret: str) -> None:
    text = f"module M(dim: int = 8) {{\n forward(x: float[B, dim]) -> float[B, dim] {{\n  {statement}\n  return x\n }}\n}}\n"
    (found,) = mistakes(text)
    assert (found.code, found.message) == (code, message)
    assert found.span is not None
    assert (found.span.text, found.span.line) == (caret, 3)
