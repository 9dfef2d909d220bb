"""Attention with what PyTorch's own lacks: capped scores, windows, biases under a causal mask, linear biases.

The kernels never store a score: a program has a block of queries (in the backward of keys and values a block of keys),
walks over the blocks of the others that it sees, and brings a softmax up to date (Dao, "FlashAttention-2", 2023).
`compiler/passes/patterns/attention_kernel.py` says which calls are such; the options of a structure are

- `causal`, `grouped`: whether a query sees the keys up to itself alone, whether several heads of q share one of k;
- `window`, `softcap`, `scale`: numbers, `Scalar`s that are arguments, the text of what the sizes tell, or None;
- `dropout_p`: the rate, an argument, or None;
- `alibi`: the heads of linear biases, a number or `heads` for those of q, or None;
- `bias`: its dimensions among `batch`, `head`, `queries` and `keys`, "" where it is broadcast; `bias_grad`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Attr, Group, Node, Scalar, Structure
from tdsl.compiler.size import Size, Symbol
from tdsl.compiler.structured.attention_text import variables
from tdsl.compiler.structured.template import Case, Template, register

# Queries and keys: none, few, around a power of two, a prime, and more than a block.
LENGTHS = (0, 7, 8, 9, 13, 150)
BATCH = 2
# What stands for a size or a number that the program does not tell.
USUAL = 4


def _draws(structure: Structure) -> bool:
    return structure.options["dropout_p"] is not None


def _moved(group: Group) -> str:
    assert group.structure is not None
    read = "q, k, v and the bias" if group.structure.options["bias"] else "q, k and v"
    return f"Stores no scores: moves {read}, the result and a number a query forward, their gradients backward."


def _call(group: Group) -> Node:
    return next(node for node in group.body.nodes if node.op.name == "attention")


# Cases ---------------------------------------------------------------------------------------------------------------


def _cases(group: Group) -> Iterator[Case]:
    """Without those where all gradients are zero, as where a query sees one key: only rounding would be compared.

    Nor NaN and infinities: in a value that a query does not see they may reach its result, or not.
    """
    assert group.structure is not None
    inputs = group.body.inputs
    q, k = (group.structure.roles[role].type.shape for role in ("q", "k"))
    symbols = {s for v in inputs for size in v.type.shape for s in size.symbols()}
    seen = set()
    for length in LENGTHS:
        sizes = {s: group.body.known.get(s, USUAL) for s in symbols}
        sizes |= {s: min(length, BATCH) for s in q[0].symbols() if not s.param}
        sizes |= {s: length for s in q[2].symbols() | k[2].symbols() if not s.param}
        shapes = tuple(tuple(_number(size, sizes) for size in v.type.shape) for v in inputs)
        queries, keys = _number(q[2], sizes), _number(k[2], sizes)
        alone = keys == 1 or (queries == 1 and bool(group.structure.options["causal"]))
        if shapes in seen or alone:
            continue
        seen.add(shapes)
        dtypes = tuple("f32" if v.type.dtype == "f32" else "float" for v in inputs)
        yield Case(shapes, dtypes, tuple(_value(s, group) for s in group.scalars), finite=True)


def _number(size: Size, sizes: Mapping[Symbol, int]) -> int:
    found = size.substitute(sizes).constant
    assert found is not None, size
    return found


def _value(scalar: Scalar, group: Group) -> float:
    """What is known of a number; a tenth for a rate of dropout."""
    value = scalar.value
    if isinstance(value, Size):
        return _number(value, {s: group.body.known.get(s, USUAL) for s in value.symbols()})
    if isinstance(value, (int, float)):
        return value
    return 0.1


# Cost ----------------------------------------------------------------------------------------------------------------


def _cost(group: Group, measure: Measure) -> Cost:
    """FLOPs of the scores that are computed: two products forward; backward five and those two once more.

    The backward reads q, k, v, the bias and the gradient of the result twice: for queries, and for keys. The gradient
    of a bias takes two more products.
    """
    structure = group.structure
    assert structure is not None
    batch, heads, queries, width = measure.sizes.shape(structure.roles["q"].type.shape)
    *_, keys, v_width = measure.sizes.shape(structure.roles["v"].type.shape)
    window = _window(_call(group).attrs["window"], measure)
    scores = batch * heads * _pairs(queries, keys, bool(structure.options["causal"]), window)
    forward = 2 * scores * (width + v_width)
    backward = 2 * scores * (4 * width + 3 * v_width)
    read = sum(map(measure.bytes, group.body.inputs))
    result = measure.bytes(group.body.outputs[0])
    row = 4 * batch * heads * queries
    again = read + result + 2 * row
    differentiates = bool(structure.options["bias"] and structure.options["bias_grad"])
    return Cost(
        forward=read + result + row,
        # The rows of the result times those of its gradient, then the passes, and what they write.
        backward=2 * result + row + (2 + differentiates) * again + read,
        flops=forward,
        flops_backward=backward + differentiates * forward,
        kept=row,
    )


def _window(value: Attr, measure: Measure) -> int | None:
    """A window as a number, where the program tells it."""
    found = measure.sizes.attr(value)
    found = found.value if isinstance(found, Scalar) else found
    return found if isinstance(found, int) else None


def _pairs(queries: int, keys: int, causal: bool, window: int | None) -> int:
    """How many keys all queries see together."""
    last = _below(queries, keys, 1) if causal else queries * keys
    if window is None:
        return last
    if not causal:
        last = _below(queries, keys, window)
    return last - _below(queries, keys, 1 - window)


def _below(queries: int, keys: int, ahead: int) -> int:
    """How many keys lie before the place `ahead` of each query, those of all queries together."""
    grows = range(max(0, 1 - ahead), min(queries, max(0, keys - ahead)))
    grown = sum((grows.start + ahead, grows.stop - 1 + ahead)) * len(grows) // 2 if grows else 0
    return grown + keys * max(0, queries - max(0, keys - ahead))


ATTENTION = register(
    Template(
        "attention",
        variables,
        _moved,
        _cases,
        _cost,
        keeps=("q", "k", "v", "bias", "results"),
        draws=_draws,
        native=True,
    )
)
