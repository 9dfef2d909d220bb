"""Attention written out: a softmax over scores, then a product with the values.

Before: `%y = softmax(%q @ %k.mT * 0.125 + %bias, dim=-1) @ %v`.
After:  `%y = attention(%q, %k, %v, scale=0.125, bias=%bias)`.

A mask of what lies ahead, filled in with minus infinity or a number that comes to that, is `causal=true`. Scores of
three dimensions, and masks that may hide all of a row, are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tdsl.compiler.ir import Attr, Graph, Node, Operand, Scalar, Value
from tdsl.compiler.ops.infer import axis, broadcast, same, same_shape
from tdsl.compiler.ops.op import OPS, Bound, bind_plain
from tdsl.compiler.passes.patterns.matching import Matcher, number, ordered, replaced
from tdsl.dsl.diagnostics import ProgramError

# Scores as low as this leave nothing of a weight.
HIDDEN = -1e4


@dataclass(frozen=True)
class Scores:
    """What scores are made of, as far as it is known while one goes from the softmax to the product."""

    value: Operand
    nodes: tuple[Node, ...] = ()
    scale: Attr = None
    bias: Value | None = None
    causal: bool = False
    dropout: Attr = field(default=0.0)


def attention(graph: Graph) -> Graph:
    """Replace each attention that is written in products and a softmax."""
    matcher = Matcher(graph)
    found = [match for node in graph.nodes if (match := _match(matcher, node)) is not None]
    return replaced(graph, [(ordered(graph, old), [new]) for old, new in found])


def _match(matcher: Matcher, node: Node) -> tuple[list[Node], Node] | None:
    if node.op.name not in ("matmul", "bmm") or len(node.output.type.shape) != 4:
        return None
    weights = _weights(matcher, node.inputs[0])
    scores = _unmasked(matcher, weights) if weights is not None else None
    scores = _scaled(matcher, _biased(matcher, scores)) if scores is not None else None
    product = matcher.inner(scores.value, "matmul", "bmm") if scores is not None else None
    if scores is None or product is None:
        return None
    keys = _transposed(matcher, product.inputs[1])
    q, v = product.inputs[0], node.inputs[1]
    if keys is None or not isinstance(q, Value) or not isinstance(v, Value):
        return None
    turned, k = keys
    if not _alike(q, k, v):
        return None
    return [*scores.nodes, turned, product, node], _node(node, (q, k, v), scores)


def _alike(q: Value, k: Value, v: Value) -> bool:
    """Batches and heads of one size each: products repeat those that are 1, attention does not."""
    ranks = all(len(t.type.shape) == 4 and t.type.is_float for t in (q, k, v))
    return ranks and all(same_shape(t.type.shape[:2], q.type.shape[:2]) for t in (k, v))


def _node(node: Node, tensors: tuple[Value, Value, Value], scores: Scores) -> Node:
    op = OPS["attention"]
    bias: Operand = scores.bias if scores.bias is not None else Scalar(None)
    scale = 1.0 if scores.scale is None else scores.scale
    attrs = {"causal": scores.causal, "scale": scale, "dropout_p": scores.dropout}
    call = bind_plain(op, (*tensors, bias), attrs, node.span)
    return Node(op, call.inputs, call.attrs, node.outputs, node.span, origin=node.origin)


# From the softmax down -----------------------------------------------------------------------------------------------


def _weights(matcher: Matcher, operand: Operand) -> Scores | None:
    """The softmax over keys, with dropout or without."""
    dropped = matcher.inner(operand, "dropout")
    rate: Attr = 0.0
    if dropped is not None and isinstance(dropped.inputs[1], Scalar):
        rate = dropped.inputs[1] if dropped.inputs[1].text else number(dropped.inputs[1])
    softmax = matcher.inner(dropped.inputs[0] if dropped is not None else operand, "softmax")
    if softmax is None or softmax.attrs["dtype"] is not None or _dim(softmax) != 3:
        return None
    return Scores(softmax.inputs[0], tuple(n for n in (softmax, dropped) if n is not None), dropout=rate)


def _dim(node: Node) -> int:
    return axis(node.attrs["dim"], len(node.output.type.shape), Bound(node.op, node.inputs, node.attrs, node.span))


def _unmasked(matcher: Matcher, scores: Scores) -> Scores | None:
    """Without a mask of what lies ahead; None where another one is put on."""
    filled = matcher.inner(scores.value, "masked_fill", "where")
    if filled is None:
        return scores
    first, second, third = filled.inputs
    kept, mask, hides, by = (
        (first, second, True, third) if filled.op.name == "masked_fill" else (second, first, False, third)
    )
    low = number(by)
    if low is None or low > HIDDEN or not isinstance(mask, Value) or not _is_ahead(matcher, mask, hides):
        return None
    return replace(scores, value=kept, nodes=(filled, *scores.nodes), causal=True)


def _biased(matcher: Matcher, scores: Scores) -> Scores:
    added = matcher.inner(scores.value, "add")
    if added is None or scores.causal:
        return scores
    for value, bias in (added.inputs, added.inputs[::-1]):
        made = matcher.inner(value, "mul", "div", "matmul", "bmm")
        if made is not None and isinstance(bias, Value) and _broadcasts(bias, added.output):
            return replace(scores, value=value, nodes=(added, *scores.nodes), bias=bias)
    return scores


def _broadcasts(bias: Value, to: Value) -> bool:
    """Whether it may be `bias` of `attention`: floating-point, of no more than the scores."""
    try:
        shape = broadcast([bias.type, to.type], "add", None)
    except ProgramError:
        return False
    return bias.type.is_float and bias.type.dtype == to.type.dtype and same_shape(shape, to.type.shape)


def _scaled(matcher: Matcher, scores: Scores) -> Scores:
    """Without the number that scores are multiplied with, or divided by."""
    node = matcher.inner(scores.value, "mul", "div")
    if node is None:
        return scores
    left, right = node.inputs
    value, by = (left, right) if isinstance(right, Scalar) else (right, left)
    if not isinstance(by, Scalar) or not isinstance(value, Value) or (node.op.name == "div" and by is left):
        return scores
    return replace(scores, value=value, nodes=(node, *scores.nodes), scale=_factor(by, node.op.name == "div"))


def _factor(by: Scalar, divides: bool) -> Attr:
    if not divides:
        return by if by.text else number(by)
    known = float(by.value) if isinstance(by.value, (int, float)) and by.value else None
    return Scalar(1.0 / known if known else None, f"1.0 / ({by.text})") if by.text else 1.0 / (known or float("nan"))


def _transposed(matcher: Matcher, operand: Operand) -> tuple[Node, Value] | None:
    """The last two dimensions swapped: the view, and what it is of."""
    node = matcher.inner(operand, "swap_last", "transpose")
    if node is None or len(node.values[0].type.shape) != 4:
        return None
    if node.op.name == "transpose":
        dims = {
            axis(node.attrs[name], 4, Bound(node.op, node.inputs, node.attrs, node.span)) for name in ("dim0", "dim1")
        }
        if dims != {2, 3}:
            return None
    return node, node.values[0]


# Masks ---------------------------------------------------------------------------------------------------------------


def _is_ahead(matcher: Matcher, mask: Value, hides: bool) -> bool:
    """Whether a mask is true just where the key lies after the query (or, not `hides`, just where it does not)."""
    node = matcher.makers.get(mask)
    if node is None:
        return False
    if node.op.name == "logical_not":
        return isinstance(node.inputs[0], Value) and _is_ahead(matcher, node.inputs[0], not hides)
    if node.op.name in ("eq", "ne", "gt", "lt"):
        literal = number(node.inputs[1])
        nonzero = {("ne", 0.0): True, ("gt", 0.0): True, ("eq", 1.0): True, ("eq", 0.0): False, ("lt", 1.0): False}
        positive = nonzero.get((node.op.name, -1.0 if literal is None else literal))
        return positive is not None and _triangle(matcher, node.inputs[0], upper=hides is positive)
    if node.op.name in ("to_bool", "cast") and mask.type.dtype == "bool":
        return _triangle(matcher, node.inputs[0], upper=hides)
    return False


def _triangle(matcher: Matcher, operand: Operand, *, upper: bool) -> bool:
    """Whether it is ones above the diagonal and zeros elsewhere, or, not `upper`, the other way round."""
    node = matcher.maker(operand, "triu" if upper else "tril")
    if node is None or node.attrs["diagonal"] != (1 if upper else 0):
        return False
    ones = matcher.maker(node.inputs[0], "ones")
    shape = node.output.type.shape
    return ones is not None and len(shape) == 2 and same(shape[0], shape[1])
