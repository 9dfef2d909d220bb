"""Index arithmetic: where the elements of a tensor lie that lacks some of the rows' or columns' dimensions.

A tensor `[B, 1, D]` in rows `B, T` and columns `D` is read at `rows // inner * N_COLS + cols`, `inner` being `T`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tdsl.compiler.kernel import Run, Space

# The longest line of index arithmetic, less its indentation.
READABLE = 104


@dataclass(frozen=True)
class Index:
    """`text`, of a kernel's `rows` and `cols` (or `offsets`), and the numbers that it needs: a name, and its text where
    the kernel is launched, in terms of the full `shape`. `lines`, which several tensors may share, stand before it."""

    text: str
    numbers: tuple[tuple[str, str], ...]
    lines: tuple[str, ...] = ()


def index(name: str, runs: Sequence[Run], space: Space) -> Index:
    """The index of a contiguous tensor that has the dimensions `runs` of the space."""
    terms: list[str] = []
    numbers: list[tuple[str, str]] = []
    for i, run in enumerate(runs):
        base, first, last = _segment(run, space)
        text = base
        if run.last < last:
            text += f" // {_new(f'{name}_inner', _count(run.last, last, space), numbers)}"
        if run.first > first:
            text += f" % {_new(f'{name}_count', _count(run.first, run.last, space), numbers)}"
        later = runs[i + 1 :]
        if later:
            text += f" * {_stride(name, later, space, numbers)}"
        terms.append(text)
    return Index(" + ".join(terms), tuple(numbers))


def stepped(name: str, piece: str, space: Space) -> Index:
    """The index of a piece of wider rows, which are a step apart; `piece` is what it is called at the launch."""
    step, place = f"{name}_stride", f"{name}_offsets"
    number = (step, f"{piece}.stride({-1 - len(space.trail)})")
    return Index(place, (number,), (f"{place} = rows * {step} + cols",))


def moved(name: str, view: str, space: Space) -> Index:
    """The index of a tensor whose rows' dimensions lie in another order; `view` is what it is called at the launch."""
    rows, rank = len(space.lead), len(space.shape)
    terms: list[str] = []
    numbers: list[tuple[str, str]] = []
    for i in range(rows):
        text = "rows"
        if i + 1 < rows:
            text += f" // {_new(f'{name}_inner', _count(i + 1, rows, space), numbers)}"
        if i:
            text += f" % {_new(f'{name}_count', _count(i, i + 1, space), numbers)}"
        terms.append(f"{text} * {_new(f'{name}_stride', f'{view}.stride({i - rank})', numbers)}")
    first, *rest = terms
    lines = [f"{name}_rows = {first}", *(f"{name}_rows += {term}" for term in rest)]
    together = f"{name}_rows = {' + '.join(terms)}"
    lines = [together] if len(together) <= READABLE else lines
    return Index(f"{name}_offsets", tuple(numbers), (*lines, f"{name}_offsets = {name}_rows + cols"))


def _segment(run: Run, space: Space) -> tuple[str, int, int]:
    """What counts the dimensions of a run, and which those are."""
    rows, rank = len(space.lead), len(space.shape)
    if space.flat:
        return "offsets", 0, rank
    return ("rows", 0, rows) if run.last <= rows else ("cols", rows, rank)


def _stride(name: str, later: Sequence[Run], space: Space, numbers: list[tuple[str, str]]) -> str:
    """How many elements the runs that follow have."""
    rows, rank = len(space.lead), len(space.shape)
    if not space.flat and later == (Run(rows, rank),):
        return "N_COLS"
    text = " * ".join(_count(r.first, r.last, space) for r in later)
    return _new(f"{name}_stride", text, numbers)


def _count(first: int, last: int, space: Space) -> str:
    """The number of elements of these dimensions; counted from the end, since the first may be several."""
    rank = len(space.shape)
    if last == first + 1:
        return f"shape[{first - rank}]"
    start = first - rank if first else ""
    return f"shape[{start}:{last - rank if last < rank else ''}].numel()"


def _new(wish: str, text: str, numbers: list[tuple[str, str]]) -> str:
    """The name of a number; the same one for the same text."""
    for name, known in numbers:
        if known == text and name.startswith(wish):
            return name
    taken = {name for name, _ in numbers}
    name = next(n for n in _numbered(wish) if n not in taken)
    numbers.append((name, text))
    return name


def _numbered(wish: str) -> Iterator[str]:
    yield wish
    number = 2
    while True:
        yield f"{wish}_{number}"
        number += 1
