"""Which views of a tensor a group may make itself: pieces of it, or its dimensions in another order.

Before: `%a, %b = chunk(%h, 2, dim=-1); %y = group(%a, %b)`; PyTorch joins the gradients of `%a` and `%b`.
After:  `%y = group(%h)`: the kernel reads the pieces where they lie, and writes their gradients side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from tdsl.compiler.ir import Graph, Node, Shape, Value
from tdsl.compiler.kernel import Layout, Space
from tdsl.compiler.ops.infer import same_shape
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.passes.fusible import bound, operands_fit, result_layout


@dataclass(frozen=True)
class View:
    """A view that a group may make: `columns` are the trailing dimensions of its pieces that lie together in memory.

    A group must have just so many as columns where it is `fixed`, and may have fewer otherwise. `pays` where even one
    operation is worth a kernel for it.
    """

    index: int
    node: Node
    columns: int
    fixed: bool
    pays: bool


def views(graph: Graph) -> Iterator[View]:
    """The views of floating-point tensors that kernels can follow, each the only one of its tensor."""
    viewed = Counter(v for node in graph.nodes if node.op.kind is Kind.VIEW for v in node.values[:1])
    for i, node in enumerate(graph.nodes):
        if node.op.kind is Kind.VIEW and node.values[0].type.is_float and viewed[node.values[0]] == 1:
            found = view_of(node)
            if found is not None and found.columns > 0:
                yield replace(found, index=i)


def view_of(node: Node) -> View | None:
    """What a kernel follows of a view; None where it can't."""
    call = bound(node)
    cut = node.op.cut(call) if node.op.cut is not None else None
    if cut is not None:
        columns = len(node.outputs[0].type.shape) - cut.dim if cut.dim > 0 else 0
        return View(0, node, columns, fixed=True, pays=cut.whole)
    order = node.op.moves(call) if node.op.moves is not None else None
    if order is None:
        return None
    last_moved = max((i for i, d in enumerate(order) if i != d), default=len(order) - 1)
    return View(0, node, len(order) - 1 - last_moved, fixed=False, pays=False)


def is_view(node: Node) -> bool:
    """Whether a node of a group's body is a view that the group makes."""
    return node.op.kind is Kind.VIEW


def fits(
    view: View, shape: Shape, trailing: int | None, members: Sequence[Node], reads: Collection[Value]
) -> Space | None:
    """The space in which a group of these members makes a view; None where it can't.

    What it views is of the group's whole shape; the tensor is neither made by the group nor read by it otherwise.
    """
    node = view.node
    columns = view.columns if view.fixed or trailing is None else min(trailing, view.columns)
    pieces = [v for v in node.outputs if v in reads]
    if trailing not in (None, columns) or node.values[0] in reads or columns >= len(shape):
        return None
    if not all(same_shape(v.type.shape, shape) for v in pieces):
        return None
    space = Space(shape[: len(shape) - columns], shape[len(shape) - columns :])
    layouts: dict[Value, Layout] = dict.fromkeys(node.outputs, Layout.FULL)
    for member in members:
        layout = result_layout(member, space)
        if layout is None:
            return None
        layouts.update(dict.fromkeys(member.outputs, layout))
        if not operands_fit(member, space, layout, layouts):
            return None
    return space
