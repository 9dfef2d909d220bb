"""`grad(y, x)`: what depends on `x`, and where `x` begins to carry a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tdsl.compiler.ir import Graph, Node, Operand, Value
from tdsl.compiler.ops.op import OPS

# What hands no gradient on.
CUTS = ("detach", "no_grad")


def dependents(x: Value, nodes: Iterable[Node]) -> set[Value]:
    """`x` and all that is made from it along paths that carry a gradient."""
    found = {x}
    for node in nodes:
        if node.op.name not in CUTS and found.intersection(node.values):
            found.update(v for v in node.outputs if v.type.is_float)
    return found


def insert(nodes: Sequence[Node], inputs: Sequence[Value], sources: Mapping[Value, Value]) -> list[Node]:
    """The nodes with each source replaced by what carries its gradient, made where the source is.

    Before: `%u = model(%p); %g = grad(%s, %p)`.
    After:  `%p2 = requires_grad(%p); %u = model(%p2); %g = grad(%s, %p2)`.
    """
    found = [_carrier(v, sources[v]) for v in inputs if v in sources]
    for node in nodes:
        changed = tuple(_swapped(o, sources) for o in node.inputs)
        regions = tuple(_inside(region, sources) for region in node.regions)
        found.append(replace(node, inputs=changed, regions=regions))
        found += [_carrier(v, sources[v]) for v in node.outputs if v in sources]
    return found


def _inside(region: Graph, sources: Mapping[Value, Value]) -> Graph:
    """The inputs of a region stand for what carries a gradient already."""
    own = {x: carrier for x, carrier in sources.items() if x not in region.inputs}
    return replace(region, nodes=tuple(insert(region.nodes, (), own)))


def _swapped(operand: Operand, sources: Mapping[Value, Value]) -> Operand:
    return sources.get(operand, operand) if isinstance(operand, Value) else operand


def _carrier(x: Value, carrier: Value) -> Node:
    return Node(OPS["requires_grad"], (x,), {}, (carrier,))
