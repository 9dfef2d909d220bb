"""Derive the backward of a lowered group from its ops' VJPs.

Before: forward `y = x * r * w`, `r = rsqrt(mean(x * x) + eps)`.
After:  also backward `(d_x, d_w)` from `x`, `w`, the gradient of `y`, and `r`, one saved number a row.

What is cheap is computed again from the group's inputs, which exist anyway. What took a pass over a row is saved.
"""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.ir import Graph, Node, Value
from tdsl.compiler.kernel import Gradient, Kernel, Layout, Port, layout_of
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.compiler.passes.lower import live


def differentiate(kernel: Kernel) -> Kernel:
    """The kernel with `backward`, `grads`, `gradients`, `zeros` and `saved`; unchanged where none has a gradient."""
    grads = tuple(_grad_port(p) for p in kernel.outputs if p.type.is_float)
    reverse = _Reverse(kernel, grads)
    gradients, nodes = reverse.run()
    zeros = reverse.zeros(gradients)
    if not gradients and not zeros:
        return kernel
    backward = live(Graph(kernel.name, (), (), nodes, tuple(g.value for g in gradients)))
    saved = _saved(kernel, backward)
    saved += _saved_outputs(kernel, live(_without_makers(backward, saved)))
    inputs = (*(p.value for p in kernel.inputs), *saved, *(p.value for p in grads))
    backward = live(_without_makers(replace(backward, inputs=inputs), saved))
    rows = tuple(v for v in saved if v not in kernel.forward.outputs)
    forward = replace(kernel.forward, outputs=(*kernel.forward.outputs, *rows))
    kernel = replace(kernel, forward=forward, backward=backward, grads=grads, gradients=gradients, saved=saved)
    return replace(kernel, zeros=zeros, gradient_of=reverse.gradient_of)


def _grad_port(port: Port) -> Port:
    name = f"d_{port.name}" if port.name else "d_out"
    return Port(name, port.source, Value(port.value.type, name), port.layout)


class _Reverse:
    """Reverse mode over a canonical graph."""

    def __init__(self, kernel: Kernel, grads: tuple[Port, ...]) -> None:
        self.kernel = kernel
        self.tracer = Tracer()
        self.tracer.adopt(kernel.forward.nodes)
        self.found: dict[Value, Expr] = {}
        self.given: dict[Value, Expr] = {}
        self.gradient_of: dict[Value, Value] = {}
        for port, grad in zip((p for p in kernel.outputs if p.type.is_float), grads):
            handed = self.tracer.wrap(grad.value)
            self._add(self.given, port.value, handed if port.count is None else handed / port.count)
        still = {kernel.group.body.inputs[i] for i in kernel.group.still}
        self.differentiated = [p for p in kernel.inputs if p.type.is_float and p.argument not in still]
        self.active = self._active()

    def _active(self) -> set[Value]:
        """What depends on a floating-point input that carries a gradient."""
        found = {p.value for p in self.differentiated}
        for node in self.kernel.forward.nodes:
            if node.output.type.is_float and any(v in found for v in node.values):
                found.add(node.output)
        return found

    def run(self) -> tuple[tuple[Gradient, ...], tuple[Node, ...]]:
        for node in reversed(self.kernel.forward.nodes):
            grad = self._total(node.output)
            if grad is not None and node.op.vjp is not None:
                self._node(node, grad)
        found = (self._gradient(p) for p in self.differentiated)
        return tuple(g for g in found if g is not None), tuple(self.tracer.nodes)

    def zeros(self, gradients: tuple[Gradient, ...]) -> tuple[Port, ...]:
        """The inputs whose gradient PyTorch makes of zeros: weight decay tells those from none."""
        reach = {p.value for p in self.kernel.outputs if p.type.is_float}
        for node in reversed(self.kernel.forward.nodes):
            if node.output in reach:
                reach.update(v for v in node.values if v.type.is_float)
        found = {g.port.argument for g in gradients}
        first = {p.argument: p for p in reversed(self.differentiated) if p.value in reach}
        return tuple(p for argument, p in reversed(first.items()) if argument not in found)

    def _node(self, node: Node, g: Expr) -> None:
        t = self.tracer
        t.span = node.span
        operands = [t.wrap(o) for o in node.inputs]
        assert node.op.vjp is not None
        for operand, grad in zip(node.inputs, node.op.vjp(t, g, t.wrap(node.output), *operands, **node.attrs)):
            if grad is not None and isinstance(operand, Value) and operand in self.active:
                self._add(self.found, operand, self._reduced(grad, node, operand))

    def _reduced(self, grad: Expr, node: Node, operand: Value) -> Expr:
        """Sum a gradient over what was broadcast, as far as it is summed at once."""
        if node.op.kind is Kind.REDUCTION:
            return grad
        have, want = (self._kept(layout_of(v.type.shape)) for v in (node.output, operand))
        grad = self._whole(grad, have)
        return self.tracer.row_sum(grad) if have is Layout.FULL and want is Layout.ROW else grad

    def _kept(self, layout: Layout) -> Layout:
        """The layout at which a value's gradient waits: a sum over rows is made once, of all contributions."""
        if layout is Layout.SCALAR:
            return Layout.FULL if self.kernel.space.flat else Layout.ROW
        return Layout.FULL if layout is Layout.COL else layout

    def _add(self, sums: dict[Value, Expr], value: Value, grad: Expr) -> None:
        sums[value] = sums[value] + grad if value in sums else grad

    def _total(self, value: Value) -> Expr | None:
        """What a value's users hand back, then what is given from outside: a norm's terms cancel among themselves."""
        if value in self.given:
            self._add(self.found, value, self.given.pop(value))
        total = self.found.get(value)
        if total is not None and isinstance(total.operand, Value):
            self.gradient_of.setdefault(total.operand, value)
        return total

    def _gradient(self, port: Port) -> Gradient | None:
        grad = self._total(port.value)
        if grad is None:
            return None
        whole = self._whole(grad, self._kept(port.layout))
        if port.layout is Layout.SCALAR and self.kernel.space.flat:
            whole = self.tracer.all_sum(whole)
        elif port.layout in (Layout.COL, Layout.SCALAR):
            whole = self.tracer.col_sum(whole)
        return Gradient(port, whole.value, port.layout)

    def _whole(self, grad: Expr, layout: Layout) -> Expr:
        same = grad.type.shape == layout.shape()
        return grad if same else self.tracer.spread(grad, rows_only=layout is Layout.ROW)


def _saved(kernel: Kernel, backward: Graph) -> tuple[Value, ...]:
    """The numbers a row that the backward needs and that a reduction of the forward made."""
    forward = set(kernel.forward.nodes)
    reduced: set[Value] = set()
    for node in kernel.forward.nodes:
        is_row = layout_of(node.output.type.shape) is Layout.ROW
        if is_row and (node.op.name.startswith("row_") or any(v in reduced for v in node.values)):
            reduced.add(node.output)
    wanted = {
        value
        for value in reduced
        if any(_beyond(user, forward, reduced) for user in backward.nodes if value in user.values)
    }
    return tuple(v for v in _made(kernel) if v in wanted and not _follows(v, kernel, wanted - {v}, reduced))


def _made(kernel: Kernel) -> list[Value]:
    return [value for node in kernel.forward.nodes for value in node.outputs]


def _follows(value: Value, kernel: Kernel, kept: set[Value], reduced: set[Value]) -> bool:
    """Whether a number a row can be computed from others that are kept, without a pass over the row."""
    node = kernel.forward.producers()[value]
    if node.op.name.startswith("row_"):
        return False
    waiting = [v for v in node.values if v in reduced]
    return all(v in kept or _follows(v, kernel, kept, reduced) for v in waiting)


def _saved_outputs(kernel: Kernel, backward: Graph) -> tuple[Value, ...]:
    """Full results of the forward to read again, where that is fewer tensors than the inputs they were made from."""
    chosen: tuple[Value, ...] = ()
    best = _tensors_read(kernel, backward)
    for port in kernel.outputs:
        if port.layout is not Layout.FULL or port.value in chosen:
            continue
        trial = live(_without_makers(backward, (*chosen, port.value)))
        if _tensors_read(kernel, trial) + len(chosen) + 1 < best:
            chosen = (*chosen, port.value)
            best = _tensors_read(kernel, trial) + len(chosen)
    return chosen


def _tensors_read(kernel: Kernel, backward: Graph) -> int:
    used = {v for node in backward.nodes for v in node.values}
    return sum(p.value in used for p in kernel.inputs if p.layout is Layout.FULL)


def _beyond(user: Node, forward: set[Node], reduced: set[Value]) -> bool:
    """Whether a user is not itself a number a row of the forward: then what it reads must be at hand."""
    return user not in forward or user.output not in reduced


def _without_makers(graph: Graph, given: tuple[Value, ...]) -> Graph:
    return replace(graph, nodes=tuple(n for n in graph.nodes if n.output not in given))
