"""Where the rows of a batch are in the result of an op that leaves each by itself: a rule an op, or a kind of op.

A rule returns the dimension, one for each result where they differ, or None where rows meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from tdsl.compiler.ir import TensorType, Value
from tdsl.compiler.row_states import Place, Rows
from tdsl.compiler.size import Size, Symbol

Found = int | tuple[int, ...] | None
Rule = Callable[[Place], Found]
# Ops that change how elements are kept and nothing else.
SAME = frozenset(
    ["cast", "detach", "identity", "contiguous", "requires_grad", "to_bfloat16", "to_bool", "to_double", "to_float",
     "to_half", "to_long", "type_as", "zeros_like", "ones_like", "full_like"]
)  # fmt: skip


def row_of(type: TensorType, symbols: frozenset[Symbol]) -> int | None:
    """The one dimension that the number of rows is in."""
    found = [i for i, size in enumerate(type.shape) if not symbols.isdisjoint(size.symbols())]
    return found[0] if len(found) == 1 else None


def axes_of(place: Place, name: str) -> tuple[int, ...]:
    """The dimensions that an attribute names; all where it names none."""
    rank = len(_type(place, 0).shape)
    value = place.node.attrs.get(name)
    given = value if isinstance(value, tuple) else (value,) if value is not None else ()
    return tuple(each % max(rank, 1) for each in given if isinstance(each, int)) or tuple(range(rank))


def _type(place: Place, index: int) -> TensorType:
    operand = place.node.inputs[index]
    return operand.type if isinstance(operand, Value) else TensorType("float", ())


def _dim(place: Place, index: int = 0) -> int | None:
    state = place.given[index] if index < len(place.given) else None
    return state.dim if isinstance(state, Rows) else None


def _rank(place: Place) -> int:
    return len(place.node.outputs[0].type.shape)


def _from_right(place: Place, among: Sequence[int] | None = None) -> int | None:
    """Where rows are counted from the last dimension, if every operand with rows has them there."""
    found: set[int] = set()
    for i in range(len(place.given)) if among is None else among:
        dim = _dim(place, i)
        if dim is not None:
            found.add(len(_type(place, i).shape) - 1 - dim)
    return found.pop() if len(found) == 1 else None


def _aligned(place: Place) -> Found:
    at = _from_right(place)
    return None if at is None else _rank(place) - 1 - at


def _others_free(place: Place) -> bool:
    return all(_dim(place, i) is None for i in range(1, len(place.given)))


def _along(place: Place, name: str = "dim") -> Found:
    """Ops along dimensions: rows are left alone where theirs is none of them."""
    dim, touched = _dim(place), axes_of(place, name)
    if dim is None or dim in touched or any(_dim(place, i) not in (None, dim) for i in range(1, len(place.given))):
        return None
    gone = len(_type(place, 0).shape) - _rank(place)
    return dim - (sum(each < dim for each in touched) if gone > 0 else 0)


def _named(name: str) -> Rule:
    return lambda place: _along(place, name)


def _trailing(count: int, every: bool = False) -> Rule:
    """Ops over so many last dimensions of the first operand, the others parameters (`every`: operands alike)."""

    def rule(place: Place) -> Found:
        at = _from_right(place)
        return at if at is None else _rank(place) - 1 - at if at >= count and (every or _others_free(place)) else None

    return rule


def _first(place: Place) -> Found:
    """Ops whose first dimension is that of rows, by what they are for."""
    return 0 if _dim(place) == 0 and _others_free(place) and len(_type(place, 0).shape) > 1 else None


def _normalised(place: Place) -> Found:
    over = place.node.attrs["normalized_shape"]
    count = len(over) if isinstance(over, tuple) else 1
    return _trailing(count)(place)


def _kept(place: Place) -> Found:
    """Views that move dimensions, and put in or leave out those of one."""
    return row_of(place.node.outputs[0].type, place.symbols)


def _padded(place: Place) -> Found:
    pads = place.node.attrs["pad"]
    return _trailing((len(pads) + 1) // 2)(place) if isinstance(pads, tuple) else None


def _embedding(place: Place) -> Found:
    return _dim(place) if _dim(place, 1) is None else None


def _hot(place: Place) -> Found:
    return _dim(place)


# Shapes ---------------------------------------------------------------------------------------------------------------


def _reshaped(place: Place) -> Found:
    """Rows stay blocks of memory where as much as before stands in front of them."""
    dim, out = _dim(place), place.node.outputs[0].type
    row = row_of(out, place.symbols)
    if dim is None or row is None:
        return None
    before, after = _type(place, 0).shape, out.shape
    if _product(before[:dim]) != _product(after[:row]):
        return None
    return row if (dim == 0 and _is_multiple(after[row], place.symbols)) or before[dim] == after[row] else None


def _product(sizes: Sequence[Size]) -> Size:
    return prod(sizes, start=Size.of(1))


def _is_multiple(size: Size, symbols: frozenset[Symbol]) -> bool:
    return all(any(atom in symbols for atom, _ in monomial) for monomial, _ in size.terms)


def _repeated(place: Place) -> Found:
    dim, out = _dim(place), place.node.outputs[0].type.shape
    if dim is None or not _others_free(place):
        return None
    row = dim + len(out) - len(_type(place, 0).shape)
    return row if out[row] == _type(place, 0).shape[dim] else None


def _interleaved(place: Place) -> Found:
    return _dim(place) if place.node.attrs["dim"] is not None and _others_free(place) else None


def _joined(place: Place) -> Found:
    dims = {dim for i in range(len(place.given)) if (dim := _dim(place, i)) is not None}
    row = dims.pop() if len(dims) == 1 else None
    joined = place.node.attrs["dim"]
    if row is None or not isinstance(joined, int):
        return None
    at = joined % _rank(place)
    if place.node.op.name == "stack":
        return row + (at <= row)
    return None if at == row else row


def _indexed(place: Place) -> Found:
    """Rows are not picked from; or a table without rows is looked up by them."""
    row = row_of(place.node.outputs[0].type, place.symbols)
    dim = _dim(place)
    if dim is None:
        return row if _from_right(place) is not None else None
    return row if _others_free(place) and _is_whole(place, dim) else None


def _is_whole(place: Place, dim: int) -> bool:
    """Whether the item of an index that stands for a dimension leaves it as it is."""
    items = place.node.attrs["items"]
    assert isinstance(items, tuple)
    taken = [item for item in items if item is not None]
    if "..." in taken:
        at = taken.index("...")
        rest = len(_type(place, 0).shape) - (len(taken) - 1)
        taken[at : at + 1] = [("slice", None, None, None)] * rest
    item = taken[dim] if dim < len(taken) else ("slice", None, None, None)
    return isinstance(item, tuple) and item[0] == "slice" and item[1] in (None, 0) and item[2:] in (
        (None, None), (None, 1))  # fmt: skip


def _patterned(place: Place) -> Found:
    """`rearrange` by its pattern: the axis of rows stays the first of its group."""
    left, right = str(place.node.attrs["pattern"]).split("->")
    before, after, dim = _groups(left), _groups(right), _dim(place)
    if dim is None or "..." in left or dim >= len(before) or not before[dim]:
        return None
    axis = before[dim][0]
    return next((i for i, group in enumerate(after) if group[:1] == [axis]), None)


def _groups(text: str) -> list[list[str]]:
    found: list[list[str]] = []
    open_ = False
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word in "()":
            open_ = word == "("
            found += [[]] if open_ else []
        elif open_:
            found[-1].append(word)
        else:
            found.append([word])
    return found


# Products -------------------------------------------------------------------------------------------------------------


def _product_of(place: Place) -> Found:
    """Matrices of the batch's, or a matrix with a row for each of its rows."""
    left, right = _dim(place, 0), _dim(place, 1)
    ranks = [len(_type(place, i).shape) for i in (0, 1)]
    if left is not None and right is not None:
        at = _from_right(place)
        return _rank(place) - 1 - at if at is not None and at >= 2 else None
    if left is not None:
        return left + max(0, ranks[1] - ranks[0]) if left < ranks[0] - 1 else None
    if right is None or ranks[1] == 1 or right == ranks[1] - 2:
        return None
    return _rank(place) - (ranks[1] - right) + (ranks[0] == 1 and right < ranks[1] - 2)


def _einsum(place: Place) -> Found:
    equation = str(place.node.attrs["equation"]).replace(" ", "")
    if "." in equation or "->" not in equation:
        return None
    left, right = equation.split("->")
    terms = left.split(",")
    letters = {term[dim] for i, term in enumerate(terms) if (dim := _dim(place, i)) is not None}
    if len(letters) != 1:
        return None
    letter = letters.pop()
    return right.index(letter) if right.count(letter) == 1 and left.count(letter) == len(
        [i for i in range(len(terms)) if _dim(place, i) is not None]) else None  # fmt: skip


def _recurrent(place: Place) -> Found:
    first = 0 if place.node.attrs["batch_first"] else 1
    state = [_dim(place, i) for i in range(1, len(place.given))]
    if _dim(place) != first or len(_type(place, 0).shape) != 3 or any(each not in (None, 1) for each in state):
        return None
    return (first, *[1] * (len(place.node.outputs) - 1))


def _multihead(place: Place) -> Found:
    first = 0 if place.node.attrs["batch_first"] else 1
    dims = [_dim(place, i) for i in range(len(place.given))]
    three = all(len(_type(place, i).shape) == 3 for i in range(3))
    own = dims[:3] == [first] * 3 and dims[3] in (None, 0) and not any(each is not None for each in dims[4:])
    return (first, *[0] * (len(place.node.outputs) - 1)) if three and own else None


_ALONG = (
    "cumsum", "cumprod", "softmax", "log_softmax", "glu", "normalize", "sort", "argsort", "topk", "gather", "scatter",
    "argmax", "argmin", "cosine_similarity", "index_select", "select", "narrow", "chunk", "split", "unbind",
    "reduction", "max", "min", "median", "prod", "all", "any",
)  # fmt: skip
_ALIGNED = ("pointwise", "random", *SAME)
_KEPT = ("permute", "transpose", "movedim", "t", "swap_last", "squeeze", "unsqueeze", "expand", "expand_as")
_POOLS = ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
_FIRST = (
    "batch_norm", "batch_norm_layer", "instance_norm", "instance_norm_layer", "group_norm", "local_response_norm",
    "dropout1d", "dropout2d", "dropout3d", "prelu", "interpolate",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(_ALIGNED, _aligned),
    **dict.fromkeys(_KEPT, _kept),
    **dict.fromkeys(_FIRST, _first),
    **{f"{name}{n}d": _trailing(n + 1) for name in _POOLS for n in (1, 2, 3)},
    **dict.fromkeys(("reshape", "view", "view_as", "reshape_as", "flatten", "unflatten"), _reshaped),
    **dict.fromkeys(("repeat", "tile"), _repeated),
    **dict.fromkeys(("stack", "cat"), _joined),
    **dict.fromkeys(("index", "index_by"), _indexed),
    **dict.fromkeys(("matmul", "mm", "bmm"), _product_of),
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _trailing(3)),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalised),
    "attention": _trailing(2, every=True),
    "bilinear": _trailing(1, every=True),
    "einsum": _einsum,
    "embedding": _embedding,
    "flip": _named("dims"),
    "linear": _trailing(1),
    "multihead_attention": _multihead,
    "one_hot": _hot,
    "pad": _padded,
    "rearrange": _patterned,
    "repeat_interleave": _interleaved,
    "roll": _named("dims"),
    "rope": _trailing(2),
}
