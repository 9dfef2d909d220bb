"""How a view lies in the tensor that it is a view of: each of its dimensions as steps along one of the source's.

`x.chunk(3, dim=-1)[1]` of x [B, T, 3 * D] begins at D along the last dimension, and has sizes (B, T, D) in steps of one
along each. Split into heads and transposed, [B, H, T, D / H], it still begins there, and its dimension of heads steps
D / H along the source's last dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tdsl.compiler.ir import Graph, Node, Scalar, Shape, Value
from tdsl.compiler.ops.infer import ONE, REST
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.ops.shape import several
from tdsl.compiler.size import Size, product

ZERO = Size.of(0)


@dataclass(frozen=True)
class Dim:
    """`size` steps of `step` along the source's dimension `axis`."""

    axis: int
    step: Size
    size: Size


@dataclass(frozen=True)
class Strided:
    """A view of `source`, which begins at `start` (0 where there is none) along each of its dimensions."""

    source: Value
    dims: tuple[Dim, ...]
    start: tuple[Size, ...]


def strided(graph: Graph) -> Callable[[Value], Strided]:
    """How the values of a graph lie in what they are views of.

    What is no view, or none that is understood, lies in itself.
    """
    makers = graph.producers()
    found: dict[Value, Strided] = {}

    def lie(value: Value) -> Strided:
        if value not in found:
            found[value] = _lie(value, makers.get(value), lie)
        return found[value]

    return lie


def _lie(value: Value, maker: Node | None, lie: Callable[[Value], Strided]) -> Strided:
    if maker is not None and maker.op.kind is Kind.VIEW and maker.op.name in _RULES and len(maker.values) == 1:
        given = lie(maker.values[0])
        if len(given.dims) == len(maker.values[0].type.shape):
            known = _RULES[maker.op.name](maker, given, maker.outputs.index(value))
            if known is not None:
                return known
    shape = value.type.shape
    if REST in shape:
        return Strided(value, (), ())
    return Strided(value, tuple(Dim(i, ONE, size) for i, size in enumerate(shape)), (ZERO,) * len(shape))


# Parts ---------------------------------------------------------------------------------------------------------------


def _from(given: Strided, dim: int, first: Size, size: Size | None) -> Strided:
    """From `first` on along a dimension: `size` of it, or the one alone, without the dimension."""
    at = given.dims[dim]
    start = list(given.start)
    start[at.axis] = start[at.axis] + first * at.step
    kept = () if size is None else (replace(at, size=size),)
    return replace(given, dims=(*given.dims[:dim], *kept, *given.dims[dim + 1 :]), start=tuple(start))


def _dim(node: Node, given: Strided, name: str = "dim") -> int:
    dim = node.attrs[name]
    assert isinstance(dim, int)
    return dim % len(given.dims)


def _piece(node: Node, given: Strided, index: int) -> Strided:
    """Of `chunk` and `split`: pieces one after another."""
    dim = _dim(node, given)
    sizes = [v.type.shape[dim] for v in node.outputs]
    return _from(given, dim, sum(sizes[:index], ZERO), sizes[index])


def _unbind(node: Node, given: Strided, index: int) -> Strided:
    return _from(given, _dim(node, given), Size.of(index), None)


def _select(node: Node, given: Strided, index: int) -> Strided | None:
    dim = _dim(node, given)
    first = _first(node.attrs["index"], given.dims[dim].size)
    return None if first is None else _from(given, dim, first, None)


def _narrow(node: Node, given: Strided, index: int) -> Strided | None:
    dim, start = _dim(node, given), node.inputs[1]
    first = _first(start.value, given.dims[dim].size) if isinstance(start, Scalar) else None
    return None if first is None else _from(given, dim, first, node.output.type.shape[dim])


def _first(index: Any, size: Size) -> Size | None:
    """An index counted from the front; None where it is no size."""
    if isinstance(index, bool) or not isinstance(index, (int, Size)):
        return None
    first = Size.of(index)
    return size + first if (first.constant or 0) < 0 else first


def _index(node: Node, given: Strided, index: int) -> Strided | None:
    """Integers and slices without a step; `...` among them."""
    items = list(several(node.attrs["items"]))
    if "..." in items:
        at = items.index("...")
        items[at : at + 1] = [("slice", None, None, None)] * (len(given.dims) - len(items) + 1)
    found: Strided | None = given
    place = 0
    for item in items:
        if found is None:
            return None
        found, kept = _item(item, found, place, node.output.type.shape)
        place += kept
    return found


def _item(item: Any, given: Strided, place: int, shape: Shape) -> tuple[Strided | None, int]:
    """One item of an index, at a dimension of what those before it have left, and how many it leaves there."""
    if not isinstance(item, tuple):
        first = _first(item, given.dims[place].size)
        return (None if first is None else _from(given, place, first, None)), 0
    if item[0] != "slice" or item[3] not in (None, 1):
        return None, 1
    first = _first(item[1] or 0, given.dims[place].size)
    return (None if first is None else _from(given, place, first, shape[place])), 1


# Other shapes and orders ---------------------------------------------------------------------------------------------


def _reshape(node: Node, given: Strided, index: int) -> Strided | None:
    """One dimension split into several, the others as they are; ones may come and go."""
    before = [dim for dim in given.dims if dim.size != ONE]
    after = [size for size in node.output.type.shape if size != ONE]
    front = _equal([dim.size for dim in before], after)
    back = _equal([dim.size for dim in before[front:]][::-1], after[front:][::-1])
    middle, parts = before[front : len(before) - back], after[front : len(after) - back]
    if len(middle) > 1 or bool(middle) != bool(parts):
        return None
    split = [
        replace(middle[0], step=middle[0].step * product(tuple(parts[i + 1 :])), size=s) for i, s in enumerate(parts)
    ]
    dims = iter([*before[:front], *split, *before[len(before) - back :]])
    ones = (Dim(0, ZERO, ONE) if size == ONE else next(dims) for size in node.output.type.shape)
    return replace(given, dims=tuple(ones))


def _equal(left: Sequence[Size], right: Sequence[Size]) -> int:
    """How many sizes at the beginning are the same, whatever the arguments of a module."""
    pairs = enumerate(zip(left, right))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def _order(given: Strided, order: Sequence[int]) -> Strided:
    return replace(given, dims=tuple(given.dims[i] for i in order))


def _transpose(node: Node, given: Strided, index: int) -> Strided:
    order = list(range(len(given.dims)))
    i, j = _dim(node, given, "dim0"), _dim(node, given, "dim1")
    order[i], order[j] = order[j], order[i]
    return _order(given, order)


def _permute(node: Node, given: Strided, index: int) -> Strided:
    return _order(given, [dim % len(given.dims) for dim in several(node.attrs["dims"])])


def _swap_last(node: Node, given: Strided, index: int) -> Strided:
    return replace(given, dims=(*given.dims[:-2], given.dims[-1], given.dims[-2]))


_RULES: Mapping[str, Callable[[Node, Strided, int], Strided | None]] = {
    "chunk": _piece,
    "split": _piece,
    "unbind": _unbind,
    "select": _select,
    "narrow": _narrow,
    "index": _index,
    "reshape": _reshape,
    "view": _reshape,
    "unflatten": _reshape,
    "transpose": _transpose,
    "permute": _permute,
    "swap_last": _swap_last,
}
