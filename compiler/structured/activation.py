"""An activation within a template's kernel: its statements, and those of its derivative, from its op's record."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.emit.triton import Body, Names
from tdsl.compiler.ir import Graph, Node, Scalar, TensorType, Value
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.ops.trace import Expr, Tracer

FULL = TensorType("f32", (ROWS, COLS))


def is_activation(node: Node, value: Value) -> bool:
    """Whether a node is pointwise, of `value` alone and of its type, and has a gradient."""
    operands = [arg for arg in node.op.signature if arg.is_operand]
    if node.op.kind is not Kind.POINTWISE or not node.op.fusible or len(operands) != 1 or node.inputs != (value,):
        return False
    return node.output.type == value.type and Activation(node).derivative is not None


class Activation:
    """`y` from `z`, and `d_z` from `d_y`, elements of float32 in a kernel."""

    def __init__(self, node: Node) -> None:
        self.tracer = t = Tracer(node.span)
        self.argument, self.gradient = Value(FULL), Value(FULL)
        z = t.wrap(self.argument)
        self.result = node.op.lower(t, z, **node.attrs) if node.op.lower is not None else t(node.op.name, z)
        self.derivative = self._derivative(tuple(t.nodes))

    def _derivative(self, forward: tuple[Node, ...]) -> Expr | None:
        """Reverse mode; None where nothing of the gradient gets through."""
        t = self.tracer
        found: dict[Value, Expr] = {self.result.value: t.wrap(self.gradient)}
        for node in reversed(forward):
            if node.output not in found or node.op.vjp is None:
                continue
            grads = node.op.vjp(t, found[node.output], t.wrap(node.output), *map(t.wrap, node.inputs), **node.attrs)
            for operand, grad in zip(node.inputs, grads):
                if grad is not None and isinstance(operand, Value):
                    found[operand] = found[operand] + grad if operand in found else grad
        return found.get(self.argument)

    def lines(self, scalars: Mapping[Scalar, str]) -> list[str]:
        """Statements that make `y` from `z`; `scalars` has the names of numbers."""
        return self._text(self.result.value, "y", {self.argument: "z"}, scalars)

    def backward_lines(self, scalars: Mapping[Scalar, str], argument: str) -> list[str]:
        """Statements that make `d_z` from `d_y` and what is called `argument`."""
        assert self.derivative is not None
        return self._text(self.derivative.value, "d_z", {self.argument: argument, self.gradient: "d_y"}, scalars)

    def _text(self, wanted: Value, name: str, given: Mapping[Value, str], scalars: Mapping[Scalar, str]) -> list[str]:
        graph = Graph("activation", tuple(given), (), _needed(self.tracer.nodes, wanted), (wanted,))
        names = Names()
        names.taken |= {*given.values(), *scalars.values(), *_AROUND} - {name}
        body = Body(graph, names, scalars, {wanted: name})
        for value, called in given.items():
            body.bind(value, called)
        lines = body.statements(graph.nodes)
        text = body.texts[wanted].text
        return lines if text == name else [*lines, f"{name} = {text}"]


# What the kernels around an activation call their own.
_AROUND = ("x", "y", "z", "d_y", "d_z", "mean", "variance", "weight", "bias", "normalised", "inverse", "total", "stop")


def _needed(nodes: list[Node], wanted: Value) -> tuple[Node, ...]:
    need = {wanted}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.output in need:
            kept.append(node)
            need.update(node.values)
    return tuple(reversed(kept))
