"""Lower a group to canonical [rows, columns] primitives.

Before: `gelu(x: float[B, 128])`.
After:  `0.5 * x * (1 + erf(x * 0.707))` over `x: float[rows, cols]`, with a port that says that x is FULL.
"""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.ir import Graph, Group, Node, Operand, Scalar, Shape, TensorType, Value
from tdsl.compiler.kernel import Kernel, Layout, Place, Port, Space, Window, layout_of
from tdsl.compiler.ops.infer import ONE, same_shape
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.ops.rows import N_ALL, N_ROWS
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.compiler.passes.fusible import Reach, is_column, iterated, reach_of, reduces, result_layout, trailing
from tdsl.compiler.passes.windows import is_view


def lower(group: Group) -> Kernel:
    """The forward of a group as a kernel, without its backward."""
    return _Lowering(group).run()


class _Lowering:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.space = _space(group)
        self.tracer = Tracer()
        self.values: dict[Value, Value] = {}
        self.ports: dict[tuple[Value, Place], Port] = {}
        self.read: dict[Value, Value] = {}
        self.windows: dict[Value, Window] = {}
        # Sums over more than a row, with what divides those that are means.
        self.totals: dict[Value, Scalar | None] = {}
        self.draws = 0

    def run(self) -> Kernel:
        for node in self.group.body.nodes:
            self._node(node)
        outputs = tuple(self._output(v) for v in self.group.body.outputs)
        order = {value: i for i, value in enumerate(self.group.body.inputs)}
        inputs = tuple(
            sorted(self.ports.values(), key=lambda p: (order[p.argument], p.window.index if p.window else 0))
        )
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
        if is_view(node):
            self.windows |= {piece: Window(node, i) for i, piece in enumerate(node.outputs)}
            return
        at = self._layout_of_operands(node)
        operands = [self._operand(o, node, at) for o in node.inputs]
        attrs = dict(node.attrs)
        self.tracer.span = node.span
        if node.op.kind is Kind.RANDOM:
            attrs["stream"] = self.draws
            self.draws += 1
        if reduces(node) and reach_of(node) is not Reach.TRAIL:
            result = self._total(node, operands[0], at)
        elif node.op.lower is not None:
            result = node.op.lower(self.tracer, *operands, **attrs)
        else:
            result = self.tracer(node.op.name, *operands, **attrs)
        if node.op.name == "downcast" and node.values[0] in self.totals:
            self.totals[node.output] = self.totals[node.values[0]]
        # An operation that changes nothing (`x * 1`) yields what another has made, under the other's name.
        folded = result.value in self.values.values()
        name = "" if folded else node.output.name
        self.values[node.output] = _named(result.value, name, self.tracer)

    def _layout_of_operands(self, node: Node) -> Layout:
        """What the operands of a node are aligned with: rows alone, where it is of those, else the whole space."""
        if reduces(node):
            return Layout.FULL if same_shape(iterated(node), self.space.shape) else Layout.ROW
        shape = node.output.type.shape
        if len(shape) == len(self.space.shape) or result_layout(node, self.space) is not Layout.ROW:
            return Layout.FULL
        # As many rows as columns: only what comes of a sum over the columns is a number a row.
        made = (layout_of(self.values[v].type.shape) for v in node.values if v in self.values)
        return Layout.ROW if not is_column(shape, self.space) or Layout.ROW in made else Layout.FULL

    def _total(self, node: Node, x: Expr, at: Layout) -> Expr:
        """A sum that runs over more than a row: each program's share of it, which a second step adds up."""
        t, reach = self.tracer, reach_of(node)
        if x.type.shape != at.shape():
            x = t.spread(x, rows_only=at is Layout.ROW)
        if reach is Reach.LEAD:
            total = t.col_sum(x)
        elif self.space.flat:
            total = t.all_sum(x)
        else:
            total = t.col_sum(x if at is Layout.ROW else t.row_sum(x))
        count = N_ROWS if reach is Reach.LEAD or at is Layout.ROW else N_ALL
        self.totals[node.output] = count if node.op.total == "mean" else None
        return total

    def _operand(self, operand: Operand, node: Node, at: Layout) -> Expr:
        if isinstance(operand, Scalar):
            return self.tracer.wrap(operand)
        operand = self.read.get(operand, operand)
        if operand in self.values:
            return self.tracer.wrap(self.values[operand])
        place = self.space.place(operand.type.shape, at)
        assert place is not None, (node, operand.type)
        key = (operand, place)
        if key not in self.ports:
            window = self.windows.get(operand)
            given = self.read.get(window.cut, window.cut) if window is not None else None
            port = Port(operand.name, operand, operand, place.layout, place.runs, place.dropped, None, window, given)
            canonical = Value(TensorType(port.type.dtype, place.layout.shape()), operand.name)
            self.ports[key] = replace(port, value=canonical)
        return self.tracer.wrap(self.ports[key].value)

    def _output(self, value: Value) -> Port:
        made = self.values[value]
        full = same_shape(value.type.shape, self.space.shape)
        layout = layout_of(made.type.shape) if value in self.totals else Layout.FULL if full else Layout.ROW
        if made.type.shape != layout.shape():
            made = self.tracer.spread(self.tracer.wrap(made), rows_only=layout is Layout.ROW).value
        return Port(value.name, value, made, layout, count=self.totals.get(value))


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
    """Rows and columns: as `fuse` has found, or as a single reduction says; else as suits what is broadcast."""
    computing = [n for n in group.body.nodes if n.op.name != "upcast" and not is_view(n)]
    telling = next((n for n in computing if trailing(n) is not None), None)
    # What is made of vectors, or of numbers a row, is of less than the space.
    shape = iterated(telling) if telling is not None else max(map(iterated, computing), key=_extent)
    k = group.columns if group.columns is not None or telling is None else trailing(telling)
    if k is None:
        k = _broadcast_columns(group, shape)
    return Space(shape[: len(shape) - k], shape[len(shape) - k :])


def _extent(shape: Shape) -> tuple[int, int]:
    return len(shape), sum(size != ONE for size in shape)


def _broadcast_columns(group: Group, shape: Shape) -> int:
    """How many trailing dimensions are columns in a group without reductions: all of them in a flat one."""
    best = len(shape)
    for value in group.body.inputs:
        dims = value.type.shape
        padded = (ONE,) * (len(shape) - len(dims)) + dims
        kept = [i for i, s in enumerate(padded) if s != ONE]
        if not kept or len(kept) == len(shape):
            continue
        # The columns begin with the last dimensions that it has side by side, or behind them: what is left of its index
        # is then arithmetic on rows.
        side_by_side = next(i for i in reversed(kept) if i - 1 not in kept)
        best = min(best, len(shape) - (side_by_side if kept[-1] == len(shape) - 1 else kept[-1] + 1))
    return best
