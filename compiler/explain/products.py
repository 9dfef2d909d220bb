"""FLOPs of what is more than elements: products, convolutions, attention. A multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod

from tdsl.compiler.explain.sizes import Measure, Numbers
from tdsl.compiler.ir import Node, Value
from tdsl.compiler.ops.einsum import DOTS, parse
from tdsl.compiler.ops.op import Bound

# A backward has a product as large as the forward's for each operand whose gradient is needed. That of attention has
# five for the forward's two: the scores are computed again.
ATTENTION_BACKWARD = 2.5


def flops(node: Node, measure: Measure) -> int | None:
    """Forward FLOPs of a product; None for what is none."""
    count = _COUNTS.get(node.op.name)
    return None if count is None else count(node, measure)


def flops_backward(node: Node, forward: int, needed: Collection[Value]) -> int:
    """Of a product, some of whose operands need a gradient. A bias is added: its gradient is no product."""
    name = node.op.name
    if name == "attention":
        return int(forward * ATTENTION_BACKWARD)
    if name in _OF_WEIGHTS:
        return forward * (1 + (node.values[0] in needed))
    names = [arg.name for arg in node.op.signature if arg.is_operand]
    bias = node.inputs[names.index("bias")] if "bias" in names else None
    return forward * sum(v in needed for v in node.values if v is not bias)


def _shape(node: Node, index: int, measure: Measure) -> Numbers:
    value = node.inputs[index]
    return measure.sizes.shape(value.type.shape) if isinstance(value, Value) else ()


def _out(node: Node, measure: Measure) -> int:
    return measure.elements(node.outputs[0])


def _linear(node: Node, measure: Measure) -> int:
    return 2 * _out(node, measure) * _shape(node, 1, measure)[-1]


def _matmul(node: Node, measure: Measure) -> int:
    return 2 * _out(node, measure) * _shape(node, 0, measure)[-1]


def _outer(node: Node, measure: Measure) -> int:
    return _out(node, measure)


def _einsum(node: Node, measure: Measure) -> int:
    """As if all of it were computed at once: an upper bound for more than two operands."""
    found = Bound(node.op, node.inputs, node.attrs, node.span)
    terms, _ = parse(str(node.attrs["equation"]), found)
    axes: dict[object, int] = {}
    for term, value in zip(terms, node.values):
        shape = list(measure.sizes.shape(value.type.shape))
        names: list[object] = []
        for axis in term:
            many = len(shape) - len(term) + 1
            names += [(DOTS, many - i) for i in range(many)] if axis == DOTS else [axis]
        for name, size in zip(names, shape):
            axes[name] = max(size, axes.get(name, 1))
    return max(len(terms), 1) * prod(axes.values())


def _conv(node: Node, measure: Measure) -> int:
    weight = _shape(node, 1, measure)
    return 2 * _out(node, measure) * prod(weight[1:])


def _conv_transpose(node: Node, measure: Measure) -> int:
    weight = _shape(node, 1, measure)
    return 2 * prod(_shape(node, 0, measure)) * prod(weight[1:])


def _bilinear(node: Node, measure: Measure) -> int:
    weight = _shape(node, 2, measure)
    return 2 * _out(node, measure) * weight[1] * (weight[2] + 1)


def _attention(node: Node, measure: Measure) -> int:
    """All scores, as PyTorch's counter has it, also where a causal mask lets half of them be skipped."""
    q, k, v = (_shape(node, i, measure) for i in range(3))
    return 2 * prod(q[:3]) * k[2] * (q[3] + v[3])


def _multihead(node: Node, measure: Measure) -> int:
    query, key = _shape(node, 0, measure), _shape(node, 1, measure)
    tokens, keys = prod(query[:-1]), prod(key[:-1])
    at = 1 if len(query) == 3 and node.attrs["batch_first"] else 0
    projections = 4 * query[-1] * (tokens * query[-1] + keys * key[-1])
    return projections + 4 * tokens * key[at] * query[-1]


def _recurrent(node: Node, measure: Measure) -> int:
    """Each matrix once a token."""
    tokens = prod(_shape(node, 0, measure)[:-1])
    weights = [v for v in node.values if v.name.startswith("weight_")]
    return 2 * tokens * sum(measure.elements(v) for v in weights)


# Each token goes through every matrix: a gradient of all of these, and one of what comes in.
_OF_WEIGHTS = ("multihead_attention", "lstm", "gru", "rnn")
_COUNTS: Mapping[str, Callable[[Node, Measure], int]] = {
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "dot": lambda node, measure: 2 * measure.elements(node.values[0]),
    "outer": _outer,
    "einsum": _einsum,
    "bilinear": _bilinear,
    **{f"conv{n}d": _conv for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _conv_transpose for n in (1, 2, 3)},
    "attention": _attention,
    "multihead_attention": _multihead,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
}


def scores(node: Node, measure: Measure) -> int:
    """How many scores an attention has."""
    q, k = _shape(node, 0, measure), _shape(node, 1, measure)
    return prod(q[:3]) * k[2]


def has_own_kernel(node: Node) -> bool:
    """Whether PyTorch's attention does it, which never writes the scores down."""
    plain = node.attrs["window"] is None and node.attrs["softcap"] is None
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    biased = isinstance(bias, Value)
    return plain and not (node.attrs["causal"] and biased)
