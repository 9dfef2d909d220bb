"""Indexing: what PyTorch yields for every mixture of integers, slices, `...`, new axes and integer tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.expressions import agree, checked, compiled, pairs, refused

CALLS = pairs("""
    x[0]
    x[-1]
    x[-1, 2]
    t[B - 1, T - 1]
    t[0, -T]
    x[:]
    x[:, 1:]
    x[:, :-1]
    x[1:, ::2]
    x[0:1]
    t[:, 1:]
    t[:, :-1]
    t[:, ::2]
    t[:, 1::3]
    t[:, : T // 2]
    t[:, T // 2 :]
    t[:, -1:]
    t[:, T // 2]
    t[:, 0:T]
    t[:, : T - 1]
    q[:, T : 3 * T]
    q[:, T:-1]
    q[:, -2:]
    q[:, T::2]
    x[:, 2:7:3]
    x[:, 5:2]
    x[:, 9:]
    x[:, -20:3]
    x[:, 3:20]
    c[-3:-1, 1:100:2]
    t[..., 0]
    t[0, ...]
    t[0, ..., 1:3]
    t[..., :4]
    s[...]
    x[none] === x[None]
    x[..., none] === x[..., None]
    t[:, none, :, 0:4] === t[:, None, :, 0:4]
    t[none, 0, none] === t[None, 0, None]
    c[j]
    c[w] === c[w.long()]
    c[z]
    c[k]
    c[:, j]
    c[..., j]
    c[j, 0]
    c[0, j]
    c[j, j]
    c[j[:, none], w] === c[j[:, None], w.long()]
    grid[j, :, j]
    grid[:, j, :]
    grid[:, j, j]
    grid[j, none, j] === grid[j, None, j]
    grid[:, j, none, j] === grid[:, j, None, j]
    grid[..., j, none] === grid[..., j, None]
    grid[0, :, j]
    grid[j, 1:3, 0]
    grid[z, :, j]
    grid[:, z, :, none] === grid[:, z, :, None]
    grid[j, ..., 2:]
    grid[:, 1:4:2, j]
    grid[:, [0, 2]]
    grid[[0, 1, 2], j]
    grid[:, k] === grid[:, k]
    image[:, j, :, j]
    x[:, j]
    t[:, j, none, 0] === t[:, j, None, 0]
    t[n * 0, :, j[0:1]] === t[n * 0, :, j[0:1]]
    c[j % 5] === c[j % 5]
    c[:, x[:, 0:2].argmax(dim=1)] === c[:, x[:, 0:2].argmax(dim=1)]
    x[arange(B), n] === x[torch.arange(B), n]
    (x + 1)[0, j] === (x + 1)[0, j]
""")
# Places of two are within every dimension that they index above.
SMALL = ({"B": 3, "T": 5, "H": 4}, {"B": 2, "T": 2, "H": 1})


@pytest.mark.parametrize(("text", "oracle"), CALLS)
def test_values_are_pytorchs(text: str, oracle: str, tmp_path: Path) -> None:
    agree(text, oracle, tmp_path, sizes=SMALL)


REFUSED = {
    "x[8, 0, 0]": "E204",
    "x[:, 8]": "E204",
    "x[:, -9]": "E204",
    "t[:, T]": "E204",
    "s[0]": "E204",
    "t[..., 0, ...]": "E204",
    "x[0.5]": "E201",
    "x[true]": "E201",
    'x["a"]': "E201",
    "x[:, ::-1]": "E204",
    "x[:, ::0]": "E204",
    "x[:, ::T]": "E208",
    "x[:, 0.5:]": "E201",
    "t[:, 2:]": "E208",
    "t[:, :3]": "E208",
    "t[:, -3:]": "E208",
    "t[:, :B]": "E208",
    "c[:T]": "E208",
    "x[m]": "E206",
    "x[x]": "E205",
    "c[j, tensor([0, 1])]": "E203",
    "x[n.to(i16)]": "E205",
    "c[[0, 5]]": "E204",
}


@pytest.mark.parametrize(("text", "code"), REFUSED.items())
def test_what_pytorch_refuses_or_might_clamp_is_refused(text: str, code: str) -> None:
    assert refused(text).code == code


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("t[:, 2:]", "2 <= T"),
        ("t[:, :3]", "3 <= T"),
        ("t[:, -3:]", "3 <= T"),
        ("t[:, :B]", "B <= T"),
        ("c[:T]", "T <= 5"),
        ("t[:, 1:-1]", "1 <= T - 1"),
    ],
)
def test_what_a_slice_needs_can_be_stated(text: str, fact: str, tmp_path: Path) -> None:
    mistake = refused(text)
    assert mistake.help == f"state it: `assume {fact}`"
    assert mistake.span is not None
    assert mistake.span.text == text
    agree(text, text, tmp_path, f"assume {fact}", [{"B": 3, "T": 5, "H": 4}, {"B": 2, "T": 3, "H": 1}])


def test_cures() -> None:
    assert refused("x[m]").help == "choose with `where(mask, x, other)`"
    assert refused("x[:, ::-1]").help == "turn the dimension around with `flip`"
    assert refused("x[x]").help == "convert with `.int()`"


def test_bounds_are_proved_from_the_sizes_of_a_module() -> None:
    for text in ("q[:, : 4 * T // 2]", "q[:, T // 2 : T]", "image[:, :, H:]", "q[:, 4 * T - 1]", "t[:, (T - 1) // 2]"):
        assert not checked(text)[1], text


def test_what_is_emitted_reads_well(tmp_path: Path) -> None:
    for text, line in {
        "c[:, j]": "return c[:, j]",
        "c[j[:, none], w]": "return c[j[:, None], w]",
        "grid[[0, 2]]": "return grid[[0, 2]]",
        "t[:, : T // 2]": "return t[:, : t.shape[1] // 2]",
        "(x + 1)[0, j]": "return (x + 1)[0, j]",
    }.items():
        assert line in compiled(text, tmp_path).text
