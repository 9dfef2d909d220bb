"""What one kernel costs, and what its operations would cost, each alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from tdsl.compiler.emit.plan import plan
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Graph, Group, Node, Scalar, Structure, Value
from tdsl.compiler.kernel import Gradient, Kernel, Layout, Port, layout_of
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.passes.lower import live
from tdsl.compiler.precision import low_precision
from tdsl.compiler.structured.template import template_of

REDUCING = (Kind.REDUCTION, Kind.ROW)


@dataclass(frozen=True)
class Use:
    """What a kernel or a call costs, where `cost.kept` is what it alone keeps, and the tensors that it needs kept."""

    cost: Cost
    keeps: tuple[Value, ...] = ()


def kernel_use(group: Group, measure: Measure, needed: Collection[Value]) -> Use:
    """A fused group; `needed` are the values whose gradients a step needs."""
    if group.structure is not None:
        return _structured_use(group, group.structure, measure, needed)
    found = _Traffic(plan(group).kernel, measure)
    flops = sum(node_flops(node, measure) for node in group.body.nodes if node.op.kind is not Kind.VIEW)
    own = found.use(flops, differentiated=any(v in needed for v in group.body.inputs))
    return replace(own, cost=replace(own.cost, saved=_alone(group, measure, needed) - own.cost.moved))


def _structured_use(group: Group, structure: Structure, measure: Measure, needed: Collection[Value]) -> Use:
    """A group that a template computes."""
    template = template_of(group)
    cost = template.cost(group, measure)
    if not any(v in needed for v in group.body.inputs):
        return Use(replace(cost, backward=0, flops_backward=0, kept=0))
    if callable(template.keeps):
        return Use(cost, template.keeps(group))
    keeps = tuple(structure.roles[role] for role in template.keeps if role in structure.roles)
    keeps += group.body.outputs if "results" in template.keeps else ()
    return Use(cost, keeps)


def _alone(group: Group, measure: Measure, needed: Collection[Value]) -> int:
    """Bytes that a group's operations would move, each a kernel of its own, in the precision of the run."""
    inner = set(needed)
    measure = own_measure(group, measure)
    moved = 0
    for node in group.body.nodes:
        if any(v in inner for v in node.values):
            inner.update(v for v in node.outputs if v.type.is_float)
        if node.op.name not in ("upcast", "downcast") and node.op.kind is not Kind.VIEW:
            moved += operation_use(node, group.body, measure, inner).cost.moved
    return moved


def own_measure(group: Group, measure: Measure) -> Measure:
    """How large the values of a group's body would be, each in memory."""
    if low_precision(group) is None:
        return measure
    return _Narrow(measure.sizes, measure.width, frozenset(group.body.inputs))


@dataclass(frozen=True)
class _Narrow(Measure):
    """What a group computes in float32 between casts, as if it lay in memory; `full` are the group's inputs."""

    def bytes(self, value: Value) -> int:
        narrow = value.type.dtype == "f32" and value not in self.full
        return self.elements(value) * (self.width if narrow else self.of(value.type.dtype))


def operation_use(node: Node, graph: Graph, measure: Measure, needed: Collection[Value]) -> Use:
    """An operation of a graph, such as a kernel could compute, by itself: no gradient is made that nobody needs."""
    inputs = tuple(dict.fromkeys(node.values))
    scalars = tuple(o for o in (*node.inputs, *node.attrs.values()) if isinstance(o, Scalar) and o.text)
    body = Graph(node.op.name, inputs, (), (node,), node.outputs, known=graph.known, assumed=graph.assumed)
    kernel = _narrowed(plan(Group(node.op.name, body, tuple(dict.fromkeys(scalars)))).kernel, needed)
    return _Traffic(kernel, measure).use(node_flops(node, measure), any(v in needed for v in inputs))


def _narrowed(kernel: Kernel, needed: Collection[Value]) -> Kernel:
    """The kernel with the gradients alone that are needed."""
    kept = tuple(g for g in kernel.gradients if g.port.source in needed)
    if kernel.backward is None or not kept:
        return replace(kernel, backward=None, gradients=(), saved=())
    backward = live(replace(kernel.backward, outputs=tuple(g.value for g in kept)))
    used = {v for n in backward.nodes for v in n.values}
    return replace(kernel, backward=backward, gradients=kept, saved=tuple(v for v in kernel.saved if v in used))


def node_flops(node: Node, measure: Measure) -> int:
    """Of an operation that a kernel could compute: so many an element of its result, of its input where it reduces."""
    over = node.values[0] if node.op.kind in REDUCING and node.values else node.outputs[0]
    return int(node.op.flops * measure.elements(over))


class _Traffic:
    """What a kernel reads and writes."""

    def __init__(self, kernel: Kernel, measure: Measure) -> None:
        self.kernel = kernel
        self.measure = measure
        self.rows = measure.count(kernel.space.lead)
        self.whole = self.rows * measure.count(kernel.space.trail)

    def use(self, flops: int, differentiated: bool) -> Use:
        kernel = self.kernel
        if kernel.backward is None or not differentiated:
            return Use(Cost(self._reads(kernel.inputs) + self._results(), flops=flops))
        rows = self._saved_rows()
        outputs = [p for p in kernel.outputs if p.value in kernel.saved]
        read = (*kernel.saved_inputs, *outputs)
        back = self._reads(read) + rows + self._grads() + self._gradients()
        cost = Cost(
            forward=self._reads(kernel.inputs) + self._results() + rows,
            backward=back,
            flops=flops,
            flops_backward=sum(map(self._flops, kernel.backward.nodes)),
            kept=rows,
        )
        return Use(cost, tuple(dict.fromkeys(p.argument for p in read)))

    def _reads(self, ports: Iterable[Port]) -> int:
        """Each tensor, or piece of one, once."""
        return sum(map(self._moved, {p.source: p for p in ports}.values()))

    def _results(self) -> int:
        return self._reads({p.value: p for p in self.kernel.outputs}.values())

    def _saved_rows(self) -> int:
        return sum(self.rows * (4 if v.type.is_float else self._width(v)) for v in self.kernel.saved_rows)

    def _grads(self) -> int:
        """The gradients of results that the backward reads."""
        graph = self.kernel.backward
        assert graph is not None
        read = {v for n in graph.nodes for v in n.values} | {g.value for g in self._written()}
        return self._reads(p for p in self.kernel.grads if p.value in read)

    def _written(self) -> list[Gradient]:
        """The gradients that the kernel writes: one that is a result's own is handed on."""
        own = {p.value for p in self.kernel.grads if p.layout is Layout.FULL}
        return [g for g in self.kernel.gradients if g.value not in own]

    def _gradients(self) -> int:
        found = {g.value: self._gradient(g) for g in self._written()}
        return sum(found.values())

    def _gradient(self, gradient: Gradient) -> int:
        source = self._moved(gradient.port)
        if gradient.port.runs and gradient.layout is Layout.FULL:  # written whole, then summed
            return 2 * self._port(gradient.port) + source
        return self._port(gradient.port) if gradient.layout is Layout.FULL else source

    def _port(self, port: Port) -> int:
        """Bytes of a tensor of the whole space with a port's dtype."""
        return self.whole * self._width(port.argument)

    def _moved(self, port: Port) -> int:
        """Bytes of a tensor, or of a piece of it: of the dtype that it has in memory."""
        return self.measure.elements(port.source) * self._width(port.argument)

    def _width(self, value: Value) -> int:
        return self.measure.bytes(value) // max(self.measure.elements(value), 1) or self.measure.of(value.type.dtype)

    def _flops(self, node: Node) -> int:
        """Of an operation of the canonical backward."""
        over = node.values[0] if node.op.kind in REDUCING and node.values else node.outputs[0]
        layout = layout_of(over.type.shape)
        cols = self.whole // max(self.rows, 1)
        count = {Layout.FULL: self.whole, Layout.ROW: self.rows, Layout.COL: cols}.get(layout, 1)
        return int(node.op.flops * count)
