"""What a call of PyTorch costs: bytes from its tensors, and what its backward keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import prod

from tdsl.compiler.explain import products
from tdsl.compiler.explain.kernels import Use, node_flops
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Node, Value
from tdsl.compiler.ops.op import Kind

# What has the memory of its input. A `reshape` that has to copy is not told from one that need not.
ALIASES = ("identity", "detach", "requires_grad")
# Reads as much of its first table as it yields, at the places that the others say.
LOOKUPS = {"embedding": 1, "embedding_bag": 1, "gather": 0, "index_select": 0, "index_by": 0}
# Moves elements and computes none.
CASTS = (
    *("cast", "type_as", "to_float", "to_double", "to_half", "to_bfloat16", "to_long", "to_bool", "contiguous"),
    "channels_last",
    *("upcast", "downcast"),
)
ARRANGED = ("flip", "roll", "tril", "triu", "cat", "stack", "tile", "repeat", "pad", "pixel_shuffle", "pixel_unshuffle")
CREATED = ("tensor", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "eye", "one_hot")
MOVEMENT = {*CASTS, *ARRANGED, *CREATED, *LOOKUPS, "repeat_interleave", "scatter"}
# Whose backward needs nothing of what they read: they are linear in it.
LINEAR = {*CASTS, *ARRANGED, "interpolate", "rope", "cumsum", "sum", "mean", "add", "sub", "neg"}
# Whose backward reads the result, not what it was made from.
BY_RESULT = {"softmax", "log_softmax", "exp", "exp2", "sqrt", "rsqrt", "sigmoid", "tanh", "relu", "reciprocal"}


def is_view(node: Node) -> bool:
    """Whether it moves nothing: its results have the memory of its first input."""
    return node.op.kind is Kind.VIEW or node.op.name in ALIASES


def library_use(node: Node, measure: Measure, needed: Collection[Value]) -> Use:
    """A call that reads each of its tensors once and writes each of its results once."""
    forward = products.flops(node, measure)
    flops = _elementwise(node, measure) if forward is None else forward
    inputs = list(dict.fromkeys(node.values))
    wanted = [v for v in inputs if v in needed]
    copies = _copies(node, measure)
    moved = _reads(node, inputs, measure) + _bytes(node.outputs, measure) + 2 * copies
    if not wanted:
        return Use(Cost(moved, flops=flops))
    keeps = kept(node, inputs)
    more = _MORE.get(node.op.name, _nothing)(node, measure)
    results = [v for v in node.outputs if v.type.is_float]
    back = _bytes([*keeps, *results], measure) + more + copies + _bytes(wanted, measure)
    cost = Cost(
        forward=moved + more,
        backward=back,
        flops=flops,
        flops_backward=flops if forward is None else products.flops_backward(node, flops, needed),
        kept=more + copies,
    )
    return Use(cost, tuple(keeps))


def kept(node: Node, inputs: Iterable[Value]) -> list[Value]:
    """The tensors that the backward reads again: most often what was read; of a look-up, where."""
    name = node.op.name
    if name in LINEAR:
        return []
    if name in BY_RESULT:
        return list(node.outputs)
    if name in LOOKUPS or name == "scatter":
        return [v for v in inputs if not v.type.is_float]
    if name in ("cross_entropy", "nll_loss"):
        return list(inputs)[1:]
    if name == "attention" and products.has_own_kernel(node):
        return [*inputs, *node.outputs]
    return list(inputs)


def _elementwise(node: Node, measure: Measure) -> int:
    """An element at a time; of what reduces, of the larger side."""
    if is_view(node) or node.op.name in MOVEMENT or not node.outputs:
        return 0
    if node.op.kind is not Kind.LIBRARY:
        return node_flops(node, measure)
    return int(node.op.flops * max(map(measure.elements, (*node.values[:1], node.outputs[0]))))


def _reads(node: Node, inputs: list[Value], measure: Measure) -> int:
    table = LOOKUPS.get(node.op.name)
    if table is None or table >= len(inputs):
        return _bytes(inputs, measure)
    found = inputs[table]
    return _bytes((v for v in inputs if v is not found), measure) + _bytes(node.outputs[:1], measure)


def _copies(node: Node, measure: Measure) -> int:
    """Bytes of the low-precision copies that a layer makes of its float32 parameters where it is called."""
    low = any(v.type.dtype == "float" and not measure.in_full(v) for v in node.values)
    if not node.layer or not low or measure.width == 4:
        return 0
    full = (v for v in dict.fromkeys(node.values) if v.type.dtype == "f32" or measure.in_full(v))
    return measure.width * sum(map(measure.elements, full))


def _bytes(values: Iterable[Value], measure: Measure) -> int:
    return sum(map(measure.bytes, dict.fromkeys(values)))


# What a backward keeps that is neither read nor yielded -------------------------------------------------------------


def _nothing(node: Node, measure: Measure) -> int:
    return 0


def _attention(node: Node, measure: Measure) -> int:
    """The logarithms of the sums, a number a query; written out in PyTorch, the scores, and those before a cap."""
    if products.has_own_kernel(node):
        q = measure.sizes.shape(node.values[0].type.shape)
        return 4 * measure.elements(node.values[0]) // max(q[-1], 1)
    return products.scores(node, measure) * measure.of("float") * (1 + (node.attrs["softcap"] is not None))


def _log_probabilities(node: Node, measure: Measure) -> int:
    return measure.bytes(node.values[0])


def _places(node: Node, measure: Measure) -> int:
    """Where each maximum was."""
    return 8 * measure.elements(node.outputs[0])


def _angles(node: Node, measure: Measure) -> int:
    """A cosine and a sine for each pair of each position."""
    *_, length, width = measure.sizes.shape(node.values[0].type.shape)
    return length * width * measure.of(node.values[0].type.dtype)


def _projections(node: Node, measure: Measure) -> int:
    """Of `MultiheadAttention` its projections, what is attended to, and the weights where they are told."""
    query, key = (measure.bytes(v) for v in node.values[:2])
    return 2 * (query + key) + (measure.bytes(node.outputs[1]) if node.attrs["need_weights"] else 0)


def _gates(node: Node, measure: Measure) -> int:
    """Of a recurrent layer the gates of each position."""
    shape = measure.sizes.shape(node.values[0].type.shape)
    rows = sum(measure.sizes.number(v.type.shape[0]) for v in node.values if v.name.startswith("weight_ih"))
    return prod(shape[:-1]) * rows * measure.of(node.values[0].type.dtype)


_MORE: Mapping[str, Callable[[Node, Measure], int]] = {
    "attention": _attention,
    "cross_entropy": _log_probabilities,
    "rope": _angles,
    "multihead_attention": _projections,
    **dict.fromkeys(("lstm", "gru", "rnn"), _gates),
    **{f"{kind}max_pool{n}d": _places for kind in ("", "adaptive_") for n in (1, 2, 3)},
}
