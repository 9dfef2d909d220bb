"""Symbolic sizes: what they print is what they are."""

from __future__ import annotations

import random

import pytest

from tdsl.compiler.size import Size, Symbol, product

H, W, D = (Symbol(n) for n in "HWD")


def of(symbol: Symbol) -> Size:
    return Size.of(symbol)


def test_equal_polynomials_are_equal_objects() -> None:
    h, w = of(H), of(W)
    assert (h + w) * (h + w) == h * h + 2 * h * w + w * w
    assert hash(h + w) == hash(w + h)
    assert h - h == Size.of(0)
    assert (h + 1).constant is None
    assert (h - h + 3).constant == 3


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (of(H) // 2, "H // 2"),
        (2 * of(D) + 1, "2 * D + 1"),
        ((of(H) - 2) // 2, "H // 2 - 1"),
        ((of(H) + 1) // 2, "(H + 1) // 2"),
        (4 * of(D) // 2, "2 * D"),
        (of(H) % 8, "H % 8"),
        (8 * of(H) % 8, "0"),
        (-of(H), "-H"),
        (Size.of(7) // 2, "3"),
        (product((of(H), of(W), Size.of(3))), "3 * H * W"),
    ],
)
def test_text(size: Size, text: str) -> None:
    assert str(size) == text


def _random(stream: random.Random, depth: int) -> Size:
    if depth == 0:
        return stream.choice([of(H), of(W), of(D), Size.of(stream.randint(0, 5))])
    a, b = _random(stream, depth - 1), _random(stream, depth - 1)
    operator = stream.choice("+-*/%")
    if operator in "/%":
        by = Size.of(stream.randint(1, 4))
        return a // by if operator == "/" else a % by
    return a + b if operator == "+" else a - b if operator == "-" else a * b


@pytest.mark.parametrize("seed", range(200))
def test_the_text_and_the_substitution_are_what_python_computes(seed: int) -> None:
    """`eval` of the text, with numbers for the symbols, is the substituted constant: the emitted code relies on it."""
    stream = random.Random(seed)
    size = _random(stream, 3)
    values = {s: stream.randint(1, 9) for s in (H, W, D)}
    computed = eval(str(size), {s.name: n for s, n in values.items()})
    assert size.substitute(values).constant == computed


def test_exact_division() -> None:
    assert (6 * of(H) * of(W)).exact(2 * of(H)) == 3 * of(W)
    assert (of(H) + 1).exact(of(H)) is None
    assert (of(H) + 1).exact(of(H) + 1) == Size.of(1)
