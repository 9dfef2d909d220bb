"""Ops that rearrange tensors: values, shapes and dtypes are PyTorch's, also for sizes that only the run knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.expressions import agree, checked, compiled, pairs, refused

CALLS = pairs("""
    x.reshape(-1)
    x.reshape(B, 2, 4)
    x.reshape((B, -1, 2))
    x.reshape(2, -1)  === x.reshape(2, -1)
    t.reshape(B * T, 8)
    t.reshape(-1, 8)
    s.reshape(())
    s.reshape(1, 1)
    reshape(c, [7, 5]) === c.reshape(7, 5)
    c.T.view(35) === c.T.reshape(35)
    x.view(B, 4, 2)
    t.flatten()
    t.flatten(1)
    flatten(t, 0, 1) === t.flatten(0, 1)
    t.flatten(start_dim=-2)
    s.flatten()
    x.unflatten(1, (2, 4))
    x.unflatten(-1, [2, -1]) === x.unflatten(-1, (2, -1))
    q.unflatten(1, (4, T))
    q.unflatten(dim=1, sizes=(-1, 2, 2))
    t.transpose(0, -1)
    t.transpose(dim0=1, dim1=2)
    t.permute(2, 0, 1)
    permute(t, (1, -1, 0)) === t.permute(1, -1, 0)
    t.movedim(0, 2)
    t.movedim((0, 1), (-1, 0))
    movedim(image, [2, 3], [0, 1]) === image.movedim([2, 3], [0, 1])
    t.T === t.mT
    t.mT
    c.t()
    v.t()
    x.squeeze(1) === x.squeeze(1)
    y.squeeze(1)
    y.squeeze(dim=-1)
    grid[0:1].squeeze() === grid[0:1].squeeze()
    grid[0:1, 0:1].squeeze((0, 1)) === grid[0:1, 0:1].squeeze((0, 1))
    x.unsqueeze(0)
    x.unsqueeze(dim=-1)
    y.expand(B, 8)
    y.expand(-1, 8)
    y.expand((T, B, 8)) === y.expand(T, B, 8)
    expand(v, B, -1) === v.expand(B, -1)
    y.expand_as(x)
    c.view_as(d) === c.reshape(5, 7)
    x.reshape_as(x.T) === x.reshape_as(x.mT)
    c.T.contiguous() === c.mT.contiguous()
    v.repeat(2) === v.repeat(2)
    v.repeat(B, 2)
    x.repeat((2, 1, 3)) === x.repeat(2, 1, 3)
    tile(v, (2,)) === v.tile(2)
    x.tile(2) === x.tile(2)
    x.tile(2, 1, T)
    v.repeat_interleave(3)
    x.repeat_interleave(2, dim=0)
    repeat_interleave(t, T, 1) === t.repeat_interleave(T, 1)
    v[0:3].repeat_interleave(tensor([2, 2, 2]), output_size=6) === v[0:3].repeat_interleave(torch.tensor([2, 2, 2]))
    cat([x, x]) === torch.cat([x, x])
    cat((x, y), dim=-1) === torch.cat([x, y], -1)
    cat([t, t[:, 0:1]], 1) === torch.cat([t, t[:, 0:1]], 1)
    cat([n, n.float()]) === torch.cat([n, n.float()])
    cat([x]) === torch.cat([x])
    stack([x, x]) === torch.stack([x, x])
    stack((v, v, v), dim=-1) === torch.stack([v, v, v], -1)
    stack([s, s]) === torch.stack([s, s])
    x.split(4, dim=1) === x.split(4, 1)
    c.split(2) === c.split(2)
    c.split(3, dim=1) === c.split(3, 1)
    split(c, [1, 4]) === c.split([1, 4])
    split(q, [T, 3 * T], dim=1) === q.split([T, 3 * T], 1)
    q.split(T, dim=1) === q.split(T, 1)
    q.split(2 * T, dim=-1) === q.split(2 * T, -1)
    c.split((2, 2, 3), -1) === c.split((2, 2, 3), -1)
    x.chunk(2, dim=1) === x.chunk(2, 1)
    c.chunk(2) === c.chunk(2)
    c.chunk(4, dim=1) === c.chunk(4, 1)
    c.chunk(4) === c.chunk(4)
    q.chunk(4, dim=1) === q.chunk(4, 1)
    x.chunk(1) === x.chunk(1)
    j.unbind() === j.unbind()
    x.unbind(dim=1) === x.unbind(1)
    x.narrow(1, 2, 3)
    x.narrow(dim=-1, start=-3, length=2)
    q.narrow(1, T, 2 * T)
    x.narrow(1, z, 2) === x.narrow(1, z, 2)
    x.select(1, 3)
    t.select(dim=1, index=-1)
    t.select(1, T - 1)
    x.roll(1) === x.roll(1)
    x.roll(-2, dims=1)
    t.roll((1, 2), (0, 1))
    roll(t, shifts=T, dims=1) === t.roll(T, 1)
    x.flip(0)
    t.flip(0, -1)
    flip(t, [1]) === t.flip(1)
    flip(t, dims=(1, 2)) === t.flip(1, 2)
    pad(x, (1, 2)) === F.pad(x, (1, 2))
    pad(x, [1, 2, 0, 3], value=-1.0) === F.pad(x, (1, 2, 0, 3), value=-1.0)
    pad(x, (-1, -2)) === F.pad(x, (-1, -2))
    pad(t, (0, 0, T, 1)) === F.pad(t, (0, 0, T, 1))
    pad(t, (0, 0, -1, 1)) === F.pad(t, (0, 0, -1, 1))
    pad(n, (1, 1), value=7) === F.pad(n, (1, 1), value=7)
    pad(x, (2, 3), mode="reflect") === F.pad(x, (2, 3), mode="reflect")
    pad(image, (1, 1, 1, 1), "replicate") === F.pad(image, (1, 1, 1, 1), "replicate")
    pad(t, (2, 2), mode="circular") === F.pad(t, (2, 2), mode="circular")
    image.pad((1, 1), mode="constant") === F.pad(image, (1, 1))
    masked_fill(x, m, 0.0) === x.masked_fill(m, 0.0)
    x.masked_fill(m[0], s) === x.masked_fill(m[0], s)
    where(m, x, 0.0) === torch.where(m, x, 0.0)
    where(m, 1.0, y) === torch.where(m, 1.0, y)
    x.gather(1, k)
    t.gather(1, k[:, :, none] * 0) === t.gather(1, k[:, :, None] * 0)
    gather(c, 0, tensor([[0, 1], [4, 2]])) === c.gather(0, torch.tensor([[0, 1], [4, 2]]))
    c.gather(dim=-1, index=tensor([[6], [0], [3]])) === c.gather(-1, torch.tensor([[6], [0], [3]]))
    x.scatter(1, k[:, 0:1], 5.0) === x.scatter(1, k[:, 0:1], 5.0)
    x.scatter(1, k[:, 0:1], y) === x.scatter(1, k[:, 0:1], y)
    x.scatter(dim=1, index=k[:, 0:1], value=2) === x.scatter(1, k[:, 0:1], 2)
    x.scatter(1, k[:, 0:1], src=y) === x.scatter(1, k[:, 0:1], y)
    x.scatter(1, k[:, 0:1], y, reduce="add") === x.scatter(1, k[:, 0:1], y, reduce="add")
    x.index_select(1, j) === x.index_select(1, j)
    index_select(c, 0, w) === c.index_select(0, w)
    c.index_select(-1, z) === c.index_select(-1, z)
    zeros(x.shape) + x.size(1) * x.shape[-1] === torch.zeros(B, 8) + 64
    zeros(x.size()) === torch.zeros(B, 8)
    zeros(t.numel()) === torch.zeros(t.numel())
    zeros(x.ndim, size(t, 1)) === torch.zeros(2, T)
    x |> size(0) |> arange === torch.arange(B)
""")


@pytest.mark.parametrize(("text", "oracle"), CALLS)
def test_values_are_pytorchs(text: str, oracle: str, tmp_path: Path) -> None:
    agree(text, oracle, tmp_path)


REFUSED = {
    "x.reshape(7)": "E203",
    "x.reshape(B, 3)": "E203",
    "x.reshape(-1, -1)": "E208",
    "x.reshape(3, -1)": "E208",
    "x.reshape(-2, 4)": "E203",
    "x.reshape()": "E202",
    "x.view_as(c)": "E203",
    "x.flatten(1, 0)": "E204",
    "x.unflatten(1, (3, -1))": "E203",
    "x.unflatten(1, (3, 3))": "E203",
    "x.unflatten(2, (2, 4))": "E204",
    "x.transpose(0, 2)": "E204",
    "x.permute(0)": "E204",
    "x.permute(0, 0)": "E204",
    "t.movedim((0, 1), (0,))": "E204",
    "t.movedim((0, 0), (0, 1))": "E204",
    "v.T": "E204",
    "t.t()": "E204",
    "x.squeeze(0)": "E208",
    "x.unsqueeze(3)": "E204",
    "x.expand(B)": "E203",
    "x.expand(2, 8)": "E203",
    "v.expand(-1, 8)": "E203",
    "x.repeat(2)": "E203",
    "x.repeat(2, -1)": "E203",
    "x.repeat_interleave(1.5)": "E202",
    "v.repeat_interleave(j)": "E203",
    "v[0:3].repeat_interleave(j)": "E208",
    "cat([x, t])": "E203",
    "cat([x, c])": "E203",
    "cat([s, s])": "E203",
    "cat([])": "E202",
    "cat(x, 2)": "E204",
    "stack([x, y])": "E203",
    "stack([x, 1.0])": "E202",
    "x.split(0)": "E203",
    "x.split([3, 4], dim=1)": "E203",
    "t.split(2, dim=1)": "E208",
    "x.chunk(0)": "E208",
    "t.chunk(2, dim=1)": "E208",
    "s.unbind()": "E204",
    "x.unbind()": "E208",
    "x.narrow(1, 7, 2)": "E204",
    "x.narrow(1, 0, 9)": "E204",
    "t.narrow(1, 0, 2)": "E208",
    "x.narrow(1, s, 2)": "E205",
    "x.select(1, 8)": "E204",
    "x.select(1, -9)": "E204",
    "t.select(1, T)": "E204",
    "x.roll((1, 2))": "E202",
    "x.roll((1, 2), (0,))": "E202",
    "x.flip(0, 0)": "E204",
    "x.flip()": "E202",
    "pad(x, (1,))": "E203",
    "pad(x, (1, 1, 1, 1, 1, 1))": "E203",
    "pad(x, (-5, -4))": "E204",
    'pad(x, (8, 0), mode="reflect")': "E204",
    'pad(t, (9, 0), mode="circular")': "E204",
    'pad(v, (1, 1), mode="reflect")': "E203",
    'pad(x, (1, 1), mode="mirror")': "E202",
    'pad(n, (1, 1), mode="reflect")': "E203",
    "gather(c, 0, j)": "E203",
    "gather(c, 0, c)": "E205",
    "gather(c, 2, c.int())": "E204",
    "gather(c, 0, zeros(5, 8, dtype=int))": "E203",
    "x.scatter(1, k[:, 0:1])": "E202",
    "x.scatter(1, k[:, 0:1], n.unsqueeze(1))": "E205",
    'x.scatter(1, k[:, 0:1], y, reduce="mean")': "E202",
    "x.index_select(0, k)": "E205",
    "x.index_select(0, v)": "E205",
    "x.size(2)": "E204",
    "x.masked_fill(x, 0.0)": "E205",
}


@pytest.mark.parametrize(("text", "code"), REFUSED.items())
def test_what_pytorch_refuses_is_refused(text: str, code: str) -> None:
    assert refused(text).code == code


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("t.chunk(2, dim=1)", "T % 2 == 0"),
        ("t.reshape(B, -1, 3)", "(8 * T) % 3 == 0"),
        ("t.narrow(1, 0, 2)", "2 <= T"),
        ("pad(t, (0, 0, -2, 0))", "0 <= T - 2"),
        ("x.gather(1, zeros(T, 3, dtype=int))", "T <= B"),
    ],
)
def test_what_is_open_is_cured_by_stating_it(text: str, fact: str) -> None:
    assert refused(text).help == f"state it: `assume {fact}`"
    assert not checked(text, f"assume {fact}")[1]


def test_what_is_emitted_reads_well(tmp_path: Path) -> None:
    for text, line in {
        "t.reshape(B, -1)": "return t.reshape(x.shape[0], -1)",
        "t.split([1, T - 1], dim=1)": "return t.split((1, t.shape[1] - 1), dim=1)",
        "t.transpose(1, 2)": "return t.transpose(1, 2)",
        "t.unflatten(-1, (2, 4))": "return t.unflatten(-1, (2, 4))",
        "y.expand(-1, 8)": "return y.expand(-1, 8)",
        "x.roll(1, dims=0)": "return x.roll(1, dims=0)",
        "x.narrow(1, 0, 4)": "return x.narrow(1, 0, 4)",
        'pad(x, (1, 1), mode="reflect")': 'return F.pad(x, (1, 1), mode="reflect")',
    }.items():
        assert line in compiled(text, tmp_path).text
