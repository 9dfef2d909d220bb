"""Lower a group to canonical [rows, columns] primitives.

Before: `gelu(x: float[B, 128])`.
After:  `0.5 * x * (1 + erf(x * 0.707))` over `x: float[rows, cols]`, with a port that says that x is FULL.
"""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.ir import Graph, Group, Node, Operand, Scalar, Shape, TensorType, Value
from tdsl.compiler.kernel import Kernel, Layout, Port, Space
from tdsl.compiler.ops.infer import ONE, axes, same_shape
from tdsl.compiler.ops.op import Kind, bind_plain
from tdsl.compiler.ops.trace import Expr, Tracer


def lower(group: Group) -> Kernel:
    """The forward of a group as a kernel, without its backward."""
    return _Lowering(group).run()


class _Lowering:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.space = _space(group)
        self.tracer = Tracer()
        self.values: dict[Value, Value] = {}
        self.ports: dict[tuple[Value, Layout], Port] = {}
        self.read: dict[Value, Value] = {}
        self.draws = 0

    def run(self) -> Kernel:
        for node in self.group.body.nodes:
            self._node(node)
        outputs = tuple(self._output(v) for v in self.group.body.outputs)
        order = {value: i for i, value in enumerate(self.group.body.inputs)}
        inputs = tuple(sorted(self.ports.values(), key=lambda port: order[port.source]))
        graph = Graph(
            self.group.name,
            tuple(p.value for p in inputs),
            (),
            _live(tuple(self.tracer.nodes), [p.value for p in outputs]),
            tuple(p.value for p in outputs),
        )
        return Kernel(self.group, self.space, inputs, self.group.scalars, outputs, graph, self.draws)

    def _node(self, node: Node) -> None:
        if node.op.name == "upcast":  # kernels compute in float32 whatever they read: what uses it tells the layout
            (self.read[node.output],) = node.values
            return
        at = self._layout_of_result(node)
        operands = [self._operand(o, node, at) for o in node.inputs]
        attrs = dict(node.attrs)
        self.tracer.span = node.span
        if node.op.kind is Kind.RANDOM:
            attrs["stream"] = self.draws
            self.draws += 1
        if node.op.lower is not None:
            result = node.op.lower(self.tracer, *operands, **attrs)
        else:
            result = self.tracer(node.op.name, *operands, **attrs)
        # An operation that changes nothing (`x * 1`) yields what another has made, under the other's name.
        folded = result.value in self.values.values()
        name = "" if folded else node.output.name
        self.values[node.output] = _named(result.value, name, self.tracer)

    def _layout_of_result(self, node: Node) -> Layout:
        if node.op.kind is Kind.REDUCTION:
            return Layout.FULL  # its operand is
        shape = node.output.type.shape
        return Layout.FULL if same_shape(shape, self.space.shape) else Layout.ROW

    def _operand(self, operand: Operand, node: Node, at: Layout) -> Expr:
        if isinstance(operand, Scalar):
            return self.tracer.wrap(operand)
        operand = self.read.get(operand, operand)
        if operand in self.values:
            return self.tracer.wrap(self.values[operand])
        shape = operand.type.shape
        layout = self.space.classify(shape, at)
        assert layout is not None, (node, operand.type)
        key = (operand, layout)
        if key not in self.ports:
            canonical = Value(TensorType(operand.type.dtype, layout.shape()), operand.name)
            self.ports[key] = Port(operand.name, operand, canonical, layout)
        return self.tracer.wrap(self.ports[key].value)

    def _output(self, value: Value) -> Port:
        made = self.values[value]
        full = same_shape(value.type.shape, self.space.shape)
        layout = Layout.FULL if full else Layout.ROW
        if made.type.shape != layout.shape():
            made = self.tracer.spread(self.tracer.wrap(made)).value
        return Port(value.name, value, made, layout)


def _named(value: Value, name: str, tracer: Tracer) -> Value:
    """Give the canonical value the source's name, where nothing has used it yet: where it is the last one made."""
    if not name or value.name or not tracer.nodes or value not in tracer.nodes[-1].outputs:
        return value
    named = Value(value.type, name)
    tracer.rename_last(named)
    return named


def _live(nodes: tuple[Node, ...], wanted: list[Value]) -> tuple[Node, ...]:
    """The nodes that `wanted` needs."""
    need = set(wanted)
    kept: list[Node] = []
    for node in reversed(nodes):
        if any(v in need for v in node.outputs):
            kept.append(node)
            need.update(node.values)
    return tuple(reversed(kept))


def live(graph: Graph) -> Graph:
    """The graph without what its outputs do not need."""
    return replace(graph, nodes=_live(graph.nodes, list(graph.outputs)))


def _space(group: Group) -> Space:
    """Rows and columns: as the reductions say; else the columns are those of a vector that is broadcast over rows."""
    reducing = [n for n in group.body.nodes if n.op.kind in (Kind.REDUCTION, Kind.ROW)]
    if reducing:  # what is made from numbers a row alone may come before, and is of less than the space
        shape, k = _iterated(reducing[0]), _columns(reducing[0])
    else:  # casts of what is read come first, and may be of less
        shape = max((_iterated(n) for n in group.body.nodes if n.op.name != "upcast"), key=len)
        k = _broadcast_columns(group, shape)
    return Space(shape[: len(shape) - k], shape[len(shape) - k :])


def _iterated(node: Node) -> Shape:
    return node.values[0].type.shape if node.op.kind in (Kind.REDUCTION, Kind.ROW) else node.output.type.shape


def _columns(node: Node) -> int:
    rank = len(node.values[0].type.shape)
    shape = node.attrs.get("normalized_shape")
    if shape is not None:
        return len(shape) if isinstance(shape, tuple) else 1
    if "dim" in node.attrs and node.op.kind is Kind.REDUCTION:
        return len(axes(node.attrs["dim"], bind_plain(node.op, node.inputs, node.attrs, node.span)))
    return 1 if rank else 0


def _broadcast_columns(group: Group, shape: Shape) -> int:
    """How many trailing dimensions are columns in a group without reductions: all of them in a flat one."""
    best = len(shape)
    for value in group.body.inputs:
        dims = value.type.shape
        padded = (ONE,) * (len(shape) - len(dims)) + dims
        kept = [i for i, s in enumerate(padded) if s != ONE]
        if not kept or len(kept) == len(shape):
            continue
        if kept == list(range(kept[0], len(shape))):  # a vector over the columns: a weight or a bias
            best = min(best, len(shape) - kept[0])
        elif kept == list(range(kept[-1] + 1)):  # a number a row
            best = min(best, len(shape) - 1 - kept[-1])
    return best
