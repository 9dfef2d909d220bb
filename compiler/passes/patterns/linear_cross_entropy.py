"""A linear layer whose scores only a loss over classes reads, so that they need never be stored.

Before: `%s = linear(%x, weight); %f = flatten(%s, end_dim=1); %y = group cross_entropy(%f, %t)`.
After:  `%r = flatten(%x, end_dim=1); %y = group linear_cross_entropy(%r, weight, %t)`.

It pays where scores are what most memory goes to: of 8,192 classes or more, and of four times as many classes as the
layer has inputs, so that the scores of a row take more than all that a block of a network usually keeps of it. Fewer
are computed, and read again, as fast as they are, with less to launch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tdsl.compiler.ir import Graph, Node, Structure, TensorType, Value
from tdsl.compiler.ops.infer import known, same, same_shape
from tdsl.compiler.ops.op import OPS, bind_plain
from tdsl.compiler.passes.patterns.matching import Matcher
from tdsl.compiler.passes.structure import structured_node

CLASSES, TIMES = 8192, 4
# What gives scores another shape and leaves them in order; and what leaves them as they are, computed in float32.
SHAPES = ("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze")
AS_FLOAT = ("to_float",)


@dataclass(frozen=True)
class Head:
    """A linear layer before a loss: what goes through the views between them, if any are there, is its input."""

    loss: Node
    linear: Node
    views: tuple[Node, ...]

    @property
    def scores(self) -> Value:
        assert self.loss.group is not None
        assert self.loss.group.structure is not None
        return self.loss.group.structure.roles["scores"]


def linear_cross_entropy(graph: Graph) -> Graph:
    """Join each loss over classes with the linear layer before it."""
    matcher = Matcher(graph)
    found = [head for node in graph.nodes if (head := _head(node, matcher)) is not None]
    made = {head.loss: _joined(head, graph) for head in found}
    gone = {node for head in found for node in (head.linear, *head.views)}
    nodes = [new for node in graph.nodes if node not in gone for new in made.get(node, (node,))]
    return replace(graph, nodes=tuple(nodes))


def pays(classes: int | None, width: int | None) -> bool:
    """Whether it is worth it for a layer of so many outputs and inputs."""
    return classes is not None and width is not None and classes >= CLASSES and classes >= TIMES * width


def _head(node: Node, matcher: Matcher) -> Head | None:
    structure = node.group.structure if node.group is not None else None
    if structure is None or structure.template != "cross_entropy" or structure.options["reduction"] == "none":
        return None
    views: list[Node] = []
    value = structure.roles["scores"]
    while (view := matcher.inner(value, *SHAPES, *AS_FLOAT)) is not None:
        views.append(view)
        value = view.values[0]
    linear = matcher.inner(value, "linear")
    if linear is None or linear.values[0] in linear.values[1:]:
        return None
    head = Head(node, linear, tuple(views))
    classes, width = linear.values[1].type.shape
    return head if pays(known(classes), known(width)) and _keeps_rows(head) else None


def _keeps_rows(head: Head) -> bool:
    """Whether the rows of scores are still rows where the loss reads them, in a shape that the input can have."""
    before, after = head.linear.output.type.shape, head.scores.type.shape
    return same_shape(before, after) or (len(after) == 2 and same(before[-1], after[-1]) and len(before) > 2)


def _joined(head: Head, graph: Graph) -> tuple[Node, ...]:
    """The group, after the view that its input needs."""
    x, *parameters = head.linear.inputs
    assert isinstance(x, Value)
    group, scores = head.loss.group, head.scores
    assert group is not None
    assert group.structure is not None
    before: tuple[Node, ...] = ()
    if not same_shape(head.linear.output.type.shape, scores.type.shape):
        bound = bind_plain(OPS["flatten"], (x,), {"start_dim": 0, "end_dim": len(x.type.shape) - 2})
        rows = Value(TensorType(x.type.dtype, (*scores.type.shape[:-1], x.type.shape[-1])))
        span = head.views[-1].span
        before = (Node(OPS["flatten"], bound.inputs, bound.attrs, (rows,), span),)
        x = rows
    linear = replace(head.linear, inputs=(x, *parameters), outputs=(scores,), layer="")
    roles = {role: v for role, v in group.structure.roles.items() if role != "scores"}
    weight, *bias = (v for v in parameters if isinstance(v, Value))
    roles |= {"x": x, "weight": weight, **({"bias": bias[0]} if bias else {})}
    found = Structure("linear_cross_entropy", roles, group.structure.options)
    nodes = (linear, *group.body.nodes)
    return (*before, structured_node("linear_cross_entropy", nodes, head.loss.outputs, found, graph))
