"""Which pieces of a tensor a group may cut itself.

Before: `%a, %b = chunk(%h, 2, dim=-1); %y = group(%a, %b)`; PyTorch joins the gradients of `%a` and `%b`.
After:  `%y = group(%h)`: the kernel reads the pieces where they lie, and writes their gradients side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tdsl.compiler.ir import Graph, Node, Shape, Value
from tdsl.compiler.kernel import Layout, Space
from tdsl.compiler.ops.infer import same_shape
from tdsl.compiler.ops.op import Cut
from tdsl.compiler.passes.fusible import bound, operands_fit, result_layout


def cuts(graph: Graph) -> Iterator[tuple[int, Node, Cut]]:
    """The views that cut floating-point tensors behind some dimension, the only view of a tensor each."""
    viewed: dict[Value, int] = {}
    for node in graph.nodes:
        if node.op.cut is not None:
            viewed[node.values[0]] = viewed.get(node.values[0], 0) + 1
    for i, node in enumerate(graph.nodes):
        if node.op.cut is None or not node.values[0].type.is_float or viewed[node.values[0]] > 1:
            continue
        cut = node.op.cut(bound(node))
        if cut is not None and cut.dim > 0:
            yield i, node, cut


def columns_of(node: Node, cut: Cut) -> int:
    """How many trailing dimensions of the pieces lie together in memory: those from the cut on."""
    return len(node.outputs[0].type.shape) - cut.dim


def fits(
    node: Node,
    cut: Cut,
    shape: Shape,
    trailing: int | None,
    members: Mapping[int, Node],
    reads: Callable[[Value], bool],
) -> Space | None:
    """The space in which a group of these members cuts a tensor; None where it can't.

    Its pieces are of the group's whole shape; the tensor is neither made by the group nor read by it otherwise.
    """
    columns = columns_of(node, cut)
    pieces = [v for v in node.outputs if reads(v)]
    if columns < 1 or trailing not in (None, columns) or reads(node.values[0]):
        return None
    if not all(same_shape(v.type.shape, shape) for v in pieces) or columns >= len(shape):
        return None
    space = Space(shape[: len(shape) - columns], shape[len(shape) - columns :])
    layouts: dict[Value, Layout] = dict.fromkeys(node.outputs, Layout.FULL)
    for member in members.values():
        layout = result_layout(member, space)
        if layout is None:
            return None
        layouts.update(dict.fromkeys(member.outputs, layout))
        if not operands_fit(member, space, layout, layouts):
            return None
    return space
