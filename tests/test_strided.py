"""How views lie in what they are views of, against the strides and offsets of PyTorch's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from tdsl.compiler.ir import Value
from tdsl.compiler.ops.strided import Strided, strided
from tdsl.compiler.size import Symbol
from tests.helpers import built, graph_of

SIZES = {"B": 2, "T": 5, "D": 12, "H": 3}

X = "float[B, T, 3 * D]"
VIEWS = {
    "x.chunk(3, dim=-1)[1]": lambda x: x.chunk(3, dim=-1)[1],
    "x.split([D, 2 * D], dim=-1)[1]": lambda x: x.split([12, 24], dim=-1)[1],
    "x.chunk(3, -1)[2].view(B, T, H, D / H).transpose(1, 2)": lambda x: x[..., 24:].view(2, 5, 3, 4).transpose(1, 2),
    'rearrange(x, "b t (n h d) -> n b h t d", n=3, h=H)[1]': lambda x: x.view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)[1],
    'rearrange(x, "b t (h n d) -> n b h t d", n=3, h=H).unbind(0)[2]': lambda x: x.view(2, 5, 3, 3, 4).permute(
        3, 0, 2, 1, 4
    )[2],
    "x[:, :, D:]": lambda x: x[:, :, 12:],
    "x[..., D:2 * D]": lambda x: x[..., 12:24],
    "x[1]": lambda x: x[1],
    "x[..., -1]": lambda x: x[..., -1],
    "x[0, ..., 2:7]": lambda x: x[0, ..., 2:7],
    "x.narrow(-1, D, 4)": lambda x: x.narrow(-1, 12, 4),
    "x.select(-1, 3)": lambda x: x.select(-1, 3),
    "x.select(0, -1)": lambda x: x.select(0, -1),
    "x.unflatten(-1, [3, H, -1]).permute(0, 3, 2, 1, 4)": lambda x: x.view(2, 5, 3, 3, 4).permute(0, 3, 2, 1, 4),
    "x.mT": lambda x: x.mT,
    "x.reshape(B, 1, T, 3 * D)": lambda x: x.reshape(2, 1, 5, 36),
}


def _lie(text: str) -> tuple[Value, Strided]:
    body = f"y = {text}\nreturn y.sum()"
    graph = graph_of(
        built(f"module M(D: int = 12, H: int = 3) {{\nforward(x: {X}) -> float[] {{\n{body}\n}}\n}}\n"), "M"
    )
    (value,) = graph.nodes[-1].values
    return value, strided(graph)(value)


def _numbers(sizes: Sequence[object]) -> list[int]:
    known: Mapping[Symbol, int] = {Symbol(name, param=name in "DH"): n for name, n in SIZES.items()}
    return [size.substitute(known).constant for size in sizes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", VIEWS)
def test_a_view_lies_as_pytorch_lays_it(text: str) -> None:
    x = torch.zeros(2, 5, 36)
    view: Tensor = VIEWS[text](x)
    _, found = _lie(text)
    assert found.source.name == "x"
    assert _numbers([dim.size for dim in found.dims]) == list(view.shape)
    steps = [n * x.stride(dim.axis) for dim, n in zip(found.dims, _numbers([dim.step for dim in found.dims]))]
    assert [a for a, n in zip(steps, view.shape) if n > 1] == [b for b, n in zip(view.stride(), view.shape) if n > 1]
    offset = sum(n * stride for n, stride in zip(_numbers(found.start), x.stride()))
    assert offset == view.storage_offset()


@pytest.mark.parametrize(
    "text", ["x.reshape(B, 3 * T, D)", "x.flatten(0, 1)", "x[..., ::2]", "x + 1", "x[[0, 1]]", "x.reshape(T, B, 3 * D)"]
)
def test_what_is_no_such_view_lies_in_itself(text: str) -> None:
    value, found = _lie(text)
    assert found.source is value
