"""Group operations that one kernel can compute.

Before: `%h = gelu(%u); %y = dropout(%h, 0.1)`.
After:  `%y = group gelu_dropout(%u)`, its body the two.

A group has one iteration space: rows by columns, the columns being the trailing dimensions that its reductions run
over. Going through the nodes in order, each joins the groups of its producers where the spaces agree and no path leaves
the group and comes back. Two operations or more make a group: a single one PyTorch computes as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tdsl.compiler.ir import Graph, Group, Node, Operand, Shape, Value
from tdsl.compiler.kernel import Layout, Space
from tdsl.compiler.names import snake
from tdsl.compiler.ops.infer import knowing, same_shape
from tdsl.compiler.ops.op import Kind, Op, signature
from tdsl.compiler.passes.fusible import (
    MOST_OPERATIONS,
    MOST_TENSORS,
    Why,
    is_staged,
    iterated,
    operands_fit,
    result_layout,
    scalars_of,
    trailing,
    unfusible,
)
from tdsl.compiler.passes.windows import View, fits, is_view, views

GROUP = Op("group", Kind.STRUCTURED, signature(""), lambda b: (), "kernels")


@dataclass(frozen=True, eq=False)
class Boundary:
    """A value that is not handed on within a kernel. `culprit` is the operation that forbids it, None for the pair."""

    maker: Node
    reader: Node
    why: Why
    culprit: Node | None = None


@dataclass(eq=False)
class Cluster:
    """A group while it grows. `trailing` is how many dimensions are columns, None while nothing has said."""

    shape: Shape
    trailing: int | None
    members: list[int] = field(default_factory=list)
    layouts: dict[Value, Layout] = field(default_factory=dict)

    def space(self, trailing: int | None) -> Space:
        k = len(self.shape) if trailing is None else trailing
        return Space(self.shape[: len(self.shape) - k], self.shape[len(self.shape) - k :])


def fuse(graph: Graph) -> Graph:
    """Replace each set of nodes that one kernel can compute by a group node."""
    fuser = _Fuser(graph)
    return _rebuild(graph, [c for c in fuser.run() if fuser.pays(c) and fuser.reads_floats(c)])


def boundaries(graph: Graph) -> list[Boundary]:
    """What separates each operation that a kernel could compute from those beside it, in a graph before `fuse`."""
    fuser = _Fuser(graph)
    fuser.run()
    pairs = [(j, i) for i in range(len(graph.nodes)) for j in dict.fromkeys(fuser.sources(i))]
    return [found for j, i in pairs if (found := fuser.boundary(j, i)) is not None]


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes
        self.index = {node: i for i, node in enumerate(graph.nodes)}
        self.users, self.kept = graph.users(), set(graph.results)
        self.maker = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
        with knowing(graph.known, graph.assumed):
            self.unfusible = {node: unfusible(node) for node in graph.nodes}
        self.cluster: dict[int, Cluster] = {}
        self.refused: dict[tuple[int, int], Why] = {}

    def sources(self, index: int) -> list[int]:
        """The nodes that a node reads from."""
        return [self.maker[v] for v in self.nodes[index].values if v in self.maker]

    def run(self) -> list[Cluster]:
        for i, node in enumerate(self.nodes):
            if self.unfusible[node] is not None:
                continue
            self._place(i, Cluster(iterated(node), trailing(node)))
            for j in self.sources(i):
                if j in self.cluster and self.cluster[j] is not self.cluster[i]:
                    why = self._merge(self.cluster[j], self.cluster[i])
                    if why is not None:
                        self.refused[j, i] = why
        for view in views(self.graph):
            self._take_in(view)
        return list(dict.fromkeys(self.cluster.values()))

    def _take_in(self, view: View) -> None:
        """Let the one group that reads what a view yields make it itself."""
        node = view.node
        readers = {user for value in node.outputs for user in self.users.get(value, ())}
        clusters = {self.cluster.get(self.index[user]) for user in readers}
        cluster = clusters.pop() if len(clusters) == 1 else None
        if cluster is None or self.kept.intersection(node.outputs):
            return
        members = [self.nodes[j] for j in cluster.members if not is_view(self.nodes[j])]
        made = {v for member in members for v in member.outputs}
        space = fits(view, cluster.shape, cluster.trailing, members, {v for m in members for v in m.values})
        if space is None or node.values[0] in made or not (view.pays or self.pays(cluster)):
            return
        cluster.trailing = len(space.trail)
        cluster.members = sorted([*cluster.members, view.index])
        cluster.layouts |= dict.fromkeys(node.outputs, Layout.FULL)
        self.cluster[view.index] = cluster

    def boundary(self, j: int, i: int) -> Boundary | None:
        """What separates node `i` from its source `j`; None within a group, and where neither could be in one."""
        maker, reader = self.nodes[j], self.nodes[i]
        a, b = self.cluster.get(j), self.cluster.get(i)
        if a is not None and a is b:
            return None if self.reads_floats(a) else Boundary(maker, reader, Why.NO_FLOATS)
        if a is not None and b is not None:
            return Boundary(maker, reader, self.refused[j, i])
        culprit = maker if a is None else reader
        why = self.unfusible[culprit]
        return Boundary(maker, reader, why, culprit) if why is not None and (a or b) else None

    def _place(self, i: int, cluster: Cluster) -> None:
        cluster.members = [i]
        space = cluster.space(cluster.trailing)
        for value in self.nodes[i].outputs:
            cluster.layouts[value] = result_layout(self.nodes[i], space) or Layout.FULL
        self.cluster[i] = cluster

    def _merge(self, a: Cluster, b: Cluster) -> Why | None:
        """Join cluster `b` to its producer `a` where that is sound, else tell why not."""
        joined = self._joined(a, b)
        if isinstance(joined, Why):
            return joined
        if len(joined.members) > MOST_OPERATIONS:
            return Why.OPERATIONS
        if self._detour(a, b):
            return Why.DETOUR
        for i in joined.members:
            self.cluster[i] = joined
        return None

    def _detour(self, a: Cluster, b: Cluster) -> bool:
        """Whether `b` also depends on `a` through something outside both: joined, they would wait for themselves."""
        seen = {a.members[0], b.members[0]}
        waiting = [j for i in b.members for j in self.sources(i)]
        while waiting:
            # A cluster may hold later nodes than the one that is read: no index tells what it can't depend on.
            unit = self._unit(waiting.pop())
            if unit[0] in seen:
                continue
            seen.add(unit[0])
            sources = [j for i in unit for j in self.sources(i)]
            if any(self.cluster.get(j) is a for j in sources):
                return True
            waiting += sources
        return False

    def _unit(self, index: int) -> list[int]:
        """A node's cluster, or the node alone."""
        return self.cluster[index].members if index in self.cluster else [index]

    def _joined(self, a: Cluster, b: Cluster) -> Cluster | Why:
        if any(is_staged(self.nodes[j]) for i in b.members for j in self.sources(i) if self.cluster.get(j) is a):
            return Why.STAGE
        if a.trailing is not None and b.trailing is not None and a.trailing != b.trailing:
            return Why.COLUMNS
        trailing = a.trailing if a.trailing is not None else b.trailing
        shape = a.shape if len(a.shape) >= len(b.shape) else b.shape
        least = min(len(a.shape), len(b.shape))
        if trailing is None and 0 < least < len(shape):  # what is made of vectors alone is a number a column
            trailing = least
        joined = Cluster(shape, trailing, sorted(a.members + b.members), dict(a.layouts))
        if not self._layouts(joined, a, b) or self._leaves_columns(joined):
            return Why.SPACE
        return joined if len(self._operands(joined)) <= MOST_TENSORS else Why.TENSORS

    def _layouts(self, joined: Cluster, a: Cluster, b: Cluster) -> bool:
        """Work out the layouts of the smaller cluster anew in the joint space; false where they do not fit."""
        space = joined.space(joined.trailing)
        kept = [c for c in (a, b) if c.trailing == joined.trailing and same_shape(c.shape, joined.shape)]
        for cluster in kept:
            joined.layouts.update(cluster.layouts)
        anew = [i for c in (a, b) if c not in kept for i in c.members]
        # Nodes of b read values of a: their operands are checked too, whichever cluster was kept.
        for i in sorted({*anew, *b.members}):
            layout = result_layout(self.nodes[i], space)
            if layout is None:
                return False
            for value in self.nodes[i].outputs:
                joined.layouts[value] = layout
            if not operands_fit(self.nodes[i], space, layout, joined.layouts):
                return False
        return True

    def _leaves_columns(self, joined: Cluster) -> bool:
        """Whether a number a column, which each program computes for itself, would be a result."""
        for i in joined.members:
            (value,) = self.nodes[i].outputs
            if joined.layouts[value] is Layout.COL and not is_staged(self.nodes[i]):
                readers = (self.index[user] for user in self.users.get(value, ()))
                if value in self.kept or any(j not in joined.members for j in readers):
                    return True
        return False

    def pays(self, cluster: Cluster) -> bool:
        """Two operations or more make a group: most single ones PyTorch computes as well."""
        return len(cluster.members) > 1 or self.nodes[cluster.members[0]].op.alone

    def reads_floats(self, cluster: Cluster) -> bool:
        """Whether there is a floating-point input: kernels are launched by the dtype of one."""
        return any(v.type.is_float for v in self._operands(cluster))

    def _operands(self, cluster: Cluster) -> set[Value]:
        return {v for i in cluster.members for v in self.nodes[i].values if v not in cluster.layouts}


def _rebuild(graph: Graph, clusters: list[Cluster]) -> Graph:
    """The graph with each cluster's nodes replaced by one group node, in a valid order."""
    users = graph.users()
    kept = set(graph.results)
    replaced: dict[int, Node] = {}
    for cluster in clusters:
        members = [graph.nodes[i] for i in cluster.members]
        node = _group_node(members, users, kept, graph, cluster.trailing)
        replaced.update(dict.fromkeys(cluster.members, node))
    nodes = list(dict.fromkeys(replaced.get(i, node) for i, node in enumerate(graph.nodes)))
    return replace(graph, nodes=_sorted(nodes))


def _group_node(
    nodes: list[Node], users: dict[Value, list[Node]], kept: set[Value], graph: Graph, columns: int | None
) -> Node:
    made = {v for n in nodes for v in n.outputs}
    inside = set(nodes)
    inputs = _in_order(graph, {v for n in nodes for v in n.values if v not in made})
    outputs = tuple(v for v in made_order(nodes) if v in kept or any(u not in inside for u in users.get(v, ())))
    scalars = tuple(dict.fromkeys(s for n in nodes for s in scalars_of(n) if s.text))
    name = snake(graph.name) if len(nodes) == len(graph.nodes) else _name(nodes)
    body = Graph(name, inputs, (), tuple(nodes), outputs, known=graph.known, assumed=graph.assumed)
    operands: tuple[Operand, ...] = (*inputs, *scalars)
    still = tuple(i for i, v in enumerate(inputs) if v in still_values(graph))
    group = Group(name, body, scalars, columns, still, input_names(graph, inputs))
    return Node(GROUP, operands, {}, outputs, nodes[0].span, group=group)


def input_names(graph: Graph, inputs: Iterable[Value]) -> tuple[str, ...]:
    """What inputs of a group are called: as the source does, else after the layer or the module that makes them."""
    makers = graph.producers()

    def named(value: Value) -> str:
        maker = makers.get(value)
        path = maker.layer.split(".") if maker is not None else []
        return value.name or next((part for part in reversed(path) if not part.isdecimal()), "")

    return tuple(map(named, inputs))


def still_values(graph: Graph) -> set[Value]:
    """What carries no gradient in a graph of data: its inputs, and all that is made of them alone."""
    found = set(graph.inputs) if graph.data else set()
    for node in graph.nodes if graph.data else ():
        made_of_data = node.values and all(v in found for v in node.values) and not node.regions
        if made_of_data and node.op.kind in (*_PLAIN, Kind.VIEW) and not node.layer:
            found.update(node.outputs)
    return found


_PLAIN = (Kind.POINTWISE, Kind.REDUCTION, Kind.ROW, Kind.RANDOM)


def _in_order(graph: Graph, wanted: set[Value]) -> tuple[Value, ...]:
    """As the source has them: the graph's inputs, what nodes make, then parameters."""
    params = [p.value for p in graph.params]
    return tuple(v for v in (*graph.inputs, *made_order(graph.nodes), *params) if v in wanted)


def made_order(nodes: Iterable[Node]) -> list[Value]:
    return [v for n in nodes for v in n.outputs]


_ARITHMETIC = {"sub", "mul", "div", "neg", "pow", "where", "lt", "le", "gt", "ge", "eq", "ne"}


def _name(nodes: list[Node]) -> str:
    """What a person would call it: the modules and functions it was written as, else its operations."""
    computing = [n for n in nodes if n.op.kind is not Kind.VIEW] or nodes
    words = list(dict.fromkeys(snake(n.origin) if n.origin else n.op.name for n in computing))
    telling = [w for w in words if w not in _ARITHMETIC]
    # `silu` alone would say too little of `silu(x) * y`.
    return "_".join((telling if len(telling) > 1 else words)[:4])


def _sorted(nodes: list[Node]) -> tuple[Node, ...]:
    """Depth first from the first node on: each after the nodes it reads, else in the order given."""
    maker = {v: n for n in nodes for v in n.outputs}
    done: dict[Node, None] = {}
    for root in nodes:
        stack = [root]
        while stack:
            node = stack[-1]
            waiting = [maker[v] for v in node.values if v in maker and maker[v] not in done]
            if waiting:
                stack.extend(reversed(waiting))
                continue
            stack.pop()
            done[node] = None
    return tuple(done)
