"""A bias of attention: where its blocks lie, and the kernel of its gradient, a sum over what it is broadcast to.

Sums are in a fixed order, one program for each block of the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tdsl.compiler.emit.render import layout
from tdsl.compiler.structured.attention_seen import Sight, joined

BLOCKS = {"queries": "BLOCK_T", "keys": "BLOCK_S"}
FIRST = {"queries": "first_query", "keys": "first_key"}


@dataclass(frozen=True)
class BiasText:
    """Where a bias begins for a batch and a head, and the statements that load its block."""

    base: str
    load: tuple[str, ...]


@dataclass(frozen=True)
class BiasGradient:
    """The kernel of a bias's gradient.

    `programs` is how many there are, `place` what part of it a program has, `loops` over what it sums, `within` what
    the innermost begins with, `inside` how many columns that is indented by.
    """

    programs: str
    place: tuple[str, ...]
    shape: str
    loops: tuple[str, ...]
    inside: int
    within: tuple[str, ...]
    seen: str
    sum: str
    store: tuple[str, ...]


def bias_text(dims: Sequence[str]) -> BiasText:
    """How kernels read a bias whose dimensions are these: `batch`, `head`, `queries`, `keys`, or "" where broadcast."""
    places, inside = _places("bias", dims)
    if not places:
        return BiasText(_base("bias", dims), ("bias = tl.load(bias_base).to(tl.float32)",))
    load = "bias = tl.load(bias_base + places, mask=inside, other=0.0).to(tl.float32)"
    return BiasText(_base("bias", dims), (f"places = {places}", f"inside = {inside}", load))


def _base(name: str, dims: Sequence[str]) -> str:
    terms = [f"tl.cast({d}, tl.int64) * {name}_strides[{i}]" for i, d in enumerate(dims) if d in ("batch", "head")]
    return " + ".join([f"{name}_ptr", *terms])


def _places(name: str, dims: Sequence[str]) -> tuple[str, str]:
    """Where a block lies from its base on, and what of it is within; "" where it has neither queries nor keys."""
    along = [(i, d) for i, d in enumerate(dims) if d in BLOCKS]
    places = " + ".join(f"{d}.to(tl.int64) * {name}_strides[{i}]" for i, d in along)
    return places, joined([f"({d} < n_{d})" for _, d in along], " & ") if along else ""


def bias_gradient(dims: Sequence[str], sight: Sight) -> BiasGradient:
    """The kernel of the gradient of a bias with these dimensions."""
    loops = _loops(dims, sight)
    total = "d_scores"
    for axis, d in enumerate(BLOCKS):
        total = total if d in dims else f"tl.sum({total}, axis={axis}, keep_dims=True)"
    return BiasGradient(
        programs=" * ".join(_count(d) for d in ("batch", "head", "queries", "keys") if d in dims) or "1",
        place=tuple(_place(dims, sight)),
        shape=f"[{', '.join(block if d in dims else '1' for d, block in BLOCKS.items())}]",
        loops=tuple(loops),
        inside=4 + 4 * len(loops),
        within=tuple(_index(d) for d in BLOCKS if d not in dims),
        seen=joined(["(queries < n_queries)", "(keys < n_keys)", *sight.each()], " & "),
        sum=total,
        store=tuple(_store(dims)),
    )


def _count(dim: str) -> str:
    return f"triton.cdiv(n_{dim}, tile.{dim})" if dim in BLOCKS else "n_batch" if dim == "batch" else "n_heads"


def _index(dim: str) -> str:
    """The statement that numbers the queries or keys of a block."""
    if dim == "queries":
        return "queries = first_query + tl.arange(0, BLOCK_T)[:, None]"
    return "keys = first_key + tl.arange(0, BLOCK_S)[None, :]"


def _place(dims: Sequence[str], sight: Sight) -> list[str]:
    """A program's part of the gradient: which keys, queries, head and batch are its."""
    counts = {"keys": "tl.cdiv(n_keys, BLOCK_S)", "queries": "tl.cdiv(n_queries, BLOCK_T)", "head": "n_heads"}
    mine = [d for d in ("keys", "queries", "head", "batch") if d in dims]
    lines, rest = [], "tl.program_id(0)"
    for d in mine[:-1]:
        lines += [f"program = {rest}", _part(d, f"program % {counts[d]}")]
        rest = f"program // {counts[d]}"
    lines += [_part(d, rest) for d in mine[-1:]]
    lines += [_index(d) for d in BLOCKS if d in dims]
    return lines + ([f"some = {sight.some()}"] if _is_skipped(dims, sight) else [])


def _part(dim: str, number: str) -> str:
    return f"{FIRST[dim]} = {number} * {BLOCKS[dim]}" if dim in BLOCKS else f"{dim} = {number}"


def _is_skipped(dims: Sequence[str], sight: Sight) -> bool:
    """Whether blocks of which nothing is seen can do without the sums over batches or heads."""
    return set(BLOCKS) <= set(dims) and not {"batch", "head"} <= set(dims) and bool(sight.some())


def _loops(dims: Sequence[str], sight: Sight) -> list[str]:
    """The loops over the dimensions that the bias lacks, the outermost first."""
    walks: list[tuple[str, tuple[str, ...]]] = []
    for d, count in (("batch", "n_batch"), ("head", "n_heads")):
        if d not in dims:
            skipped = not walks and _is_skipped(dims, sight)
            walks.append((d, (f"tl.where(some, {count}, 0)" if skipped else count,)))
    if "queries" not in dims:
        bounds = sight.queries("first_key", "first_key + BLOCK_S - 1") if "keys" in dims else ("0", "n_queries")
        walks.append(("first_query", (*bounds, "BLOCK_T")))
    if "keys" not in dims:
        walks.append(("first_key", (*sight.keys("first_query", "first_query + BLOCK_T - 1"), "BLOCK_S")))
    return [
        f"{'    ' * i}{layout(f'for {name} in range', bounds, ':', 4 + 4 * i)}"
        for i, (name, bounds) in enumerate(walks)
    ]


def _store(dims: Sequence[str]) -> list[str]:
    places, inside = _places("d_bias", dims)
    base = _base("d_bias", dims)
    if not places:
        return [f"d_bias_base = {base}", "tl.store(d_bias_base + tl.zeros([1, 1], tl.int32), d_bias)"]
    store = f"tl.store(d_bias_base + places, d_bias, mask={inside})"
    return [f"d_bias_base = {base}", f"places = {places}", store]
