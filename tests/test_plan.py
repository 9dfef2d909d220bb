"""Which groups share a kernel, and which must not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers import compiled, emitted
from tests.running import executed

MODULE = """
module {name}(dim: int = 6) {{
    forward(h: float[B, 3, 2 * dim]) -> float[...] {{
        {body}
    }}
}}
"""
# Two groups that differ in the piece alone.
PIECES = {
    "chunk": ("a, b = h.chunk(2, -1)\nreturn tanh(a) * a", "a, b = h.chunk(2, -1)\nreturn tanh(b) * b"),
    "unbind": ("a, b, c = h.unbind(1)\nreturn exp(b) - b", "a, b, c = h.unbind(1)\nreturn exp(c) - c"),
    "split": ("a, b = h.split([1, 2], 1)\nreturn sin(b) + b", "a, b = h.split([2, 1], 1)\nreturn sin(b) + b"),
    "row": ("return softmax(h[:, 0] * 2, -1)", "return softmax(h[:, 2] * 2, -1)"),
    "reduction": ("a, b = h.chunk(2, -1)\nreturn (a * a).mean(-1)", "a, b = h.chunk(2, -1)\nreturn (b * b).mean(-1)"),
}
BY_HAND = {
    "chunk": [lambda h: torch.tanh(h[..., :6]) * h[..., :6], lambda h: torch.tanh(h[..., 6:]) * h[..., 6:]],
    "unbind": [lambda h: h[:, 1].exp() - h[:, 1], lambda h: h[:, 2].exp() - h[:, 2]],
    "split": [lambda h: h[:, 1:].sin() + h[:, 1:], lambda h: h[:, 2:].sin() + h[:, 2:]],
    "row": [lambda h: (2 * h[:, 0]).softmax(-1), lambda h: (2 * h[:, 2]).softmax(-1)],
    "reduction": [lambda h: h[..., :6].square().mean(-1), lambda h: h[..., 6:].square().mean(-1)],
}
RESULTS = {
    "chunk": ("[B, 3, dim]",) * 2,
    "unbind": ("[B, 2 * dim]",) * 2,
    "split": ("[B, 2, 2 * dim]", "[B, 1, 2 * dim]"),
    "row": ("[B, 2 * dim]",) * 2,
    "reduction": ("[B, 3]",) * 2,
}


def program(kind: str) -> str:
    made = zip(("First", "Second"), PIECES[kind], RESULTS[kind])
    return "".join(MODULE.format(name=name, body=body).replace("[...]", result) for name, body, result in made)


@pytest.mark.parametrize("kind", PIECES)
def test_groups_that_cut_different_pieces_have_kernels_of_their_own(kind: str, tmp_path: Path) -> None:
    space = executed(program(kind), tmp_path)
    h = torch.randn(4, 3, 12)
    for name, by_hand in zip(("First", "Second"), BY_HAND[kind]):
        torch.testing.assert_close(getattr(space, name)()(h), by_hand(h), msg=name)


def test_groups_that_cut_the_same_piece_share_a_kernel() -> None:
    text = "".join(
        MODULE.format(name=name, body=PIECES["chunk"][1]).replace("[...]", RESULTS["chunk"][1]) for name in ("A", "B")
    )
    assert emitted(compiled(text))["kernels.py"].count("(torch.autograd.Function)") == 1


def test_a_vector_is_of_the_columns_where_there_are_as_many_rows() -> None:
    text = """module Square(D: int = 2, K: int = 2) {
    param weight: [D] = ones()
    forward(x: float[K, D]) -> float[K, D] { return where(x > weight, x, weight * 0.5) }
}"""
    kernels = emitted(compiled(text))["kernels.py"]
    assert "_ptr + cols" in kernels
    assert "_ptr + rows" not in kernels
