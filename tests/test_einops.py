"""Patterns of einops, einsum and products of matrices: against plain PyTorch, for sizes that only the run knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.expressions import agree, compiled, pairs, refused

CALLS = pairs("""
    rearrange(t, "b t d -> t b d") === t.permute(1, 0, 2)
    rearrange(t, "b t d -> b d t") === t.transpose(1, 2)
    rearrange(t, "b t (h d) -> b h t d", h=2) === t.reshape(B, T, 2, 4).transpose(1, 2)
    rearrange(t, "b t (h d) -> b h t d", d=2) === t.reshape(B, T, 4, 2).transpose(1, 2)
    t.rearrange("b t (h d) -> (b h) t d", h=4) === t.reshape(B, T, 4, 2).transpose(1, 2).reshape(B * 4, T, 2)
    t |> rearrange("b t d -> (b t) d") === t.reshape(B * T, 8)
    rearrange(image, "b c (h p) w -> b (c p) h w", p=2) === image.reshape(B, 6, H, 2, 9).transpose(2, 3).reshape(B, 12, H, 9)
    rearrange(q, "b (n t) -> b t n", n=4) === q.reshape(B, 4, T).transpose(1, 2)
    rearrange(q, "b (n t) -> b t n", t=T) === q.reshape(B, 4, T).transpose(1, 2)
    rearrange(y, "b 1 -> b") === y.squeeze(1)
    rearrange(x, "b d -> b 1 d") === x.unsqueeze(1)
    rearrange(x, "b d -> 1 b 1 d 1") === x[None, :, None, :, None]
    rearrange(x, "b d -> b () d") === x.unsqueeze(1)
    rearrange(t, "b ... -> ... b") === t.permute(1, 2, 0)
    rearrange(t, "... d -> (...) d") === t.reshape(-1, 8)
    rearrange(image, "b ... w -> b w (...)") === image.permute(0, 3, 1, 2).reshape(B, 9, -1)
    rearrange(x, "... (a c) -> ... c a", a=2) === x.reshape(B, 2, 4).transpose(1, 2)
    rearrange([x, x + 1], "n b d -> b (n d)") === torch.stack([x, x + 1]).permute(1, 0, 2).reshape(B, 16)
    rearrange(s, " -> 1") === s.reshape(1)
    rearrange(tensor=v, pattern="(a b) -> b a", a=2) === v.reshape(2, 4).T
    reduce(image, "b c h w -> b c", "mean") === image.mean((2, 3))
    reduce(image, "b c h w -> b c 1 1", "mean") === image.mean((2, 3), keepdim=True)
    image.reduce("b c h w -> c", reduction="sum") === image.sum((0, 2, 3))
    reduce(image, "b c (h 2) (w 3) -> b c h w", "max") === F.max_pool2d(image, (2, 3))
    reduce(image, "b c (h p) w -> b h (c w)", "min", p=2) === image.reshape(B, 6, H, 2, 9).amin(3).transpose(1, 2).reshape(B, H, -1)
    reduce(t, "b t d -> b d", "prod") === t.prod(1)
    reduce(t, "b t d -> d", "prod") === t.prod(1).prod(0)
    reduce(x, "... -> ", "sum") === x.sum()
    reduce(t, "b ... -> b", "max") === t.amax((1, 2))
    reduce(t, "b t d -> t b d", "mean") === t.transpose(0, 1)
    reduce(m, "b d -> b", "any") === m.any(1)
    reduce(m, "b d -> 1 d", "all") === m.all(0, keepdim=True)
    repeat(x, "b d -> b n d", n=3) === x[:, None].expand(B, 3, 8)
    repeat(x, "b d -> (n b) d", n=T) === x.repeat(T, 1)
    repeat(x, "b d -> b (d n)", n=2) === x.repeat_interleave(2, 1)
    repeat(v, "d -> b t d", b=B, t=T) === v.expand(B, T, 8)
    repeat(x, "b d -> b d 2") === x[..., None].expand(B, 8, 2)
    repeat(x, "b d -> (2 b) (d 3)") === x.repeat(2, 1).repeat_interleave(3, 1)
    repeat(y, "b 1 -> b n", n=4) === y.expand(B, 4)
    x.repeat("b d -> d b n", n=2) === x.T[..., None].expand(8, B, 2)
    x.repeat(2, 1) === x.repeat(2, 1)
    repeat(x, 2, 1) === x.repeat(2, 1)
    einsum("b i, b i -> b", x, x) === (x * x).sum(1)
    einsum("bi,bi->b", x, x) === (x * x).sum(1)
    einsum("batch time width, batch width -> batch time", t, x) === torch.einsum("btd,bd->bt", t, x)
    einsum("b h t d, b h s d -> b h t s", image, image) === image @ image.mT
    einsum("btd,bsd", t, t) === torch.einsum("btd,bsd", t, t)
    einsum("...d, d -> ...", t, v) === t @ v
    einsum("b ... d, b d -> b ...", t, x) === torch.einsum("b...d,bd->b...", t, x)
    einsum("ij -> ji", c) === c.T
    einsum("ba", c) === c.T
    einsum("ij ->", c) === c.sum()
    einsum("ii", c[:, 0:5]) === torch.einsum("ii", c[:, 0:5])
    einsum("ii -> i", c[:, 0:5]) === c[:, 0:5].diagonal()
    einsum("i, j -> ij", v, v) === torch.outer(v, v)
    einsum("i, i", v, v) === v @ v
    einsum("i, -> i", v, s) === v * s
    einsum("b t d, b t d, d -> t", t, t, v) === torch.einsum("btd,btd,d->t", t, t, v)
    einsum("bd,od->bo", y.expand(-1, 8), x[0:1]) === y.expand(-1, 8) @ x[0:1].T
    einsum("b d, b e -> b d e", y, x) === y[:, :, None] * x[:, None]
    einsum("Ab, bC -> AC", c, c.T) === c @ c.T
    einsum("b i j, b j k -> b i k", t, t.T) === t @ t.mT
    x @ x.T === x @ x.mT
    x @ v
    v @ v
    t @ t.T === t @ t.mT
    v @ x.T === v @ x.mT
    matmul(t, x.T) === t @ x.mT
    mm(x, x.T) === x @ x.mT
    bmm(t, t.T) === t @ t.mT
    t.bmm(t.T) === t @ t.mT
    dot(v, v) === v @ v
    outer(v, n.float()) === torch.outer(v, n.float())
    outer(v, n) === torch.outer(v, n)
    n.outer(n) === torch.outer(n, n)
""")


@pytest.mark.parametrize(("text", "oracle"), CALLS)
def test_values_are_those_of_plain_pytorch(text: str, oracle: str, tmp_path: Path) -> None:
    agree(text, oracle, tmp_path)


# The code, and the words of the message that name what is wrong.
REFUSED = {
    'rearrange(t, "b t -> t b")': ("E203", "has 2 axes"),
    'rearrange(t, "b t d")': ("E202", "before -> after"),
    'rearrange(t, "b t d -> b t")': ("E202", "`d` is missing after the arrow"),
    'rearrange(t, "b t d -> b t d e")': ("E202", "`e` is missing before the arrow"),
    'rearrange(t, "b t t -> b t")': ("E202", "`t` is twice"),
    'rearrange(t, "b t (h d) -> b t h d")': ("E208", "axes `h` and `d`"),
    'rearrange(t, "b t (h d) -> b t h d", h=3)': ("E203", "(h d)"),
    'rearrange(t, "b (t p) d -> b t p d", p=2)': ("E208", "(t p)"),
    'rearrange(t, "b t (h d) -> b t h d", h=2, d=3)': ("E203", "axis `h d` is 6"),
    'rearrange(t, "b t (h d) -> b t h d", k=2)': ("E202", "no axis `k`"),
    'rearrange(t, "b t (h d) -> b t h d", h=2.0)': ("E202", "axis `h`"),
    'rearrange(t, "b t (h d) -> b t h d", h=0)': ("E202", "positive"),
    'rearrange(x, "b 1 -> b")': ("E203", "`1`"),
    'rearrange(x, "b d+ -> b d")': ("E202", "`+` is no axis"),
    'rearrange(x, "b d -> ... b d")': ("E202", "`...`"),
    'rearrange(x, "b c d ... -> b c d")': ("E203", "3 axes"),
    "rearrange(x)": ("E202", "needs `pattern`"),
    "rearrange(x, 3)": ("E202", "a string"),
    'rearrange(3, "b -> b")': ("E202", "a tensor"),
    'rearrange(x, "b d -> d b", 3)': ("E202", "too many"),
    'reduce(x, "b d -> b", "avg")': ("E202", "the reduction"),
    'reduce(x, "b d -> b")': ("E202", "needs `reduction`"),
    'reduce(x, "b d -> b e", "sum")': ("E202", "`e`"),
    'reduce(n, "b -> ", "mean")': ("E205", "mean"),
    'repeat(x, "b d -> b d n")': ("E208", "`n` is not given"),
    'repeat(x, "b d -> b n", n=2)': ("E202", "`d` is missing"),
    'einsum("bij,bjk->bik", x, x)': ("E203", "names b i j of a tensor with 2"),
    'einsum("ij,jk->ik", c, c)': ("E203", "axis `j`"),
    'einsum("ij,jk->ik", c)': ("E202", "2 terms for 1"),
    'einsum("ij->ik", c)': ("E202", "axis `k`"),
    'einsum("ij->ii", c)': ("E202", "axis `i` is twice"),
    'einsum("ii", c)': ("E203", "axis `i`"),
    'einsum("i1", c)': ("E202", "`1` is no axis"),
    'einsum("i...j...", c)': ("E202", "`...`"),
    'einsum("ij,ij", c, d)': ("E205", "dtypes"),
    'einsum("bd,bd", m, m)': ("E205", "booleans"),
    "einsum(c, c)": ("E202", "a string"),
    "mm(t, x)": ("E203", "two matrices"),
    "mm(x, x)": ("E203", "8 is not B"),
    "bmm(x, x)": ("E203", "two batches"),
    "bmm(t, t[0:1].T)": ("E203", "as many"),
    "dot(x, x)": ("E203", "two vectors"),
    "dot(v, v[0:4])": ("E203", "8 is not 4"),
    "outer(x, v)": ("E203", "two vectors"),
    "x @ x": ("E203", "B"),
    "c @ d.T": ("E205", "dtypes"),
    "m @ m.T": ("E205", "booleans"),
}


@pytest.mark.parametrize(("text", "code", "words"), [(t, *w) for t, w in REFUSED.items()])
def test_mistakes_name_the_axes(text: str, code: str, words: str) -> None:
    mistake = refused(text)
    assert mistake.code == code
    assert words in f"{mistake.message} {mistake.label}"


def test_cures() -> None:
    assert refused('rearrange(t, "b (t p) d -> b t p d", p=2)').help == "state it: `assume T % 2 == 0`"
    assert refused('rearrange(t, "b t d -> b t")').help == "`reduce` takes axes away"
    assert refused('rearrange(t, "b t d -> b t d e")').help == "`repeat` adds axes"
    assert refused('rearrange(t, "b t (head d) -> b t head d", haed=2)').help == "did you mean `head`?"
    assert refused('reduce(x, "b d -> b", "maen")').help == "did you mean `mean`?"


def test_what_is_emitted_is_what_a_person_writes(tmp_path: Path) -> None:
    for text, line in {
        'rearrange(c, "a b -> b a")': "return c.transpose(0, 1)",
        'rearrange(grid, "a b (h d) -> a h b d", h=2)': "return grid.reshape(4, 5, 2, 3).transpose(1, 2)",
        'reduce(image, "b c h w -> b c", "mean")': "return image.mean(dim=(2, 3))",
        'reduce(image, "b c h w -> b c 1 1", "max")': "return image.amax(dim=(2, 3), keepdim=True)",
        'repeat(grid, "a b c -> a n b c", n=2)': "return grid.unsqueeze(1).expand(-1, 2, -1, -1)",
        'einsum("b i j, b j k -> b i k", t, t.T)': 'return torch.einsum("b i j, b j k -> b i k", t, t.mT)',
        'einsum("batch t, batch -> t", k.float(), n.float())': 'torch.einsum("b t, b -> t", k.float(), n.float())',
        "mm(c, c.T)": "return torch.mm(c, c.mT)",
    }.items():
        assert line in compiled(text, tmp_path).text
