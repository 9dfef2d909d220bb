"""Casts within the bodies of groups: what a kernel reads and writes in a run's lower precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from tdsl.compiler.ir import Attr, Graph, Group, Node, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.ops.op import OPS, Bound, Kind
from tdsl.compiler.structured.template import template_of


class Casts:
    """A graph while casts are put into it. `self.of` has the cast of a value, made once."""

    def __init__(self, graph: Graph, low: Scalar) -> None:
        self.graph = graph
        self.low = low
        self.nodes: list[Node] = []
        self.of: dict[Value, Value] = {}

    def cast(self, op: str, value: Value, node: Node | None, output: Value | None = None) -> Value:
        attrs: dict[str, Attr] = {"dtype": self.low, **({"channels_last": False} if op == "downcast" else {})}
        span = node.span if node is not None else None
        # What a value is called after is what made it, not the cast.
        origin = "" if node is None else node.origin or node.op.name
        (type,) = OPS[op].infer(Bound(OPS[op], (value,), attrs, span))
        made = output if output is not None else Value(type)
        self.nodes.append(Node(OPS[op], (value,), attrs, (made,), span, origin=origin))
        return made

    def narrowed(self, value: Value, node: Node | None) -> Value:
        if value not in self.of:
            self.of[value] = self.cast("downcast", value, node)
        return self.of[value]


def is_low(value: Value) -> bool:
    """Whether it is of the run's precision."""
    return value.type.dtype == "float"


def in_full(value: Value, name: str = "") -> Value:
    """One like it in float32."""
    return Value(TensorType("f32", value.type.shape), name or value.name)


def keeps_dtype(node: Node) -> bool:
    """Whether a group yields the precision that it reads: what it reads is cast before."""
    group = node.group
    return group is not None and group.structure is not None and template_of(group).keeps_dtype


def group_in(node: Node, low: Scalar, given: Mapping[Value, Value], full: Collection[Value] = ()) -> Node:
    """A group node in the low precision: its inputs are those `given` for them, or themselves.

    `full` are the results that are in float32; the others are in the low precision.
    """
    group = node.group
    assert group is not None
    native = group.structure is not None and template_of(group).native
    with knowing(group.body.known, group.body.assumed):
        body = (_Native if native else _Wide)(group.body, low, given, full).run()
    outputs = body.outputs
    return replace(node, inputs=(*body.inputs, *group.scalars), outputs=outputs, group=_holding(group, body))


def _holding(group: Group, body: Graph) -> Group:
    """The group with this body, whose inputs stand for its own, one by one."""
    if group.structure is None:
        return replace(group, body=body)
    now = dict(zip(group.body.inputs, body.inputs))
    roles = {role: now[value] for role, value in group.structure.roles.items()}
    return replace(group, body=body, structure=replace(group.structure, roles=roles))


class _Body(Casts):
    def __init__(self, graph: Graph, low: Scalar, given: Mapping[Value, Value], full: Collection[Value]) -> None:
        super().__init__(graph, low)
        self.inputs = tuple(given.get(v, v) for v in graph.inputs)
        self.values: dict[Value, Value] = dict(zip(graph.inputs, self.inputs))
        self.full = full
        self.results: dict[Value, Value] = {}

    def finished(self) -> Graph:
        outputs = tuple(self.results.get(v, v) for v in self.graph.outputs)
        return replace(self.graph, inputs=self.inputs, nodes=tuple(self.nodes), outputs=outputs)

    def typed(self, node: Node, operands: tuple[Value | Scalar, ...]) -> tuple[TensorType, ...]:
        with knowing(self.graph.known, self.graph.assumed):
            return node.op.infer(Bound(node.op, operands, node.attrs, node.span))

    def leave(self, value: Value, made: Value, node: Node) -> None:
        """A result of the body: in float32 where it is to be, else in the low precision."""
        if value in self.full:
            self.results[value] = self._as_full(made, node)
        elif made is not value:
            self.results[value] = self.cast("downcast", made, node, value) if made.type.dtype == "f32" else made

    def _as_full(self, made: Value, node: Node) -> Value:
        return self.cast("upcast", made, node, in_full(made)) if is_low(made) else made


class _Wide(_Body):
    """Computed in float32 between casts."""

    def run(self) -> Graph:
        for value, read in list(self.values.items()):
            if is_low(read):
                self.values[value] = self.cast("upcast", read, None, _named(read))
        for node in self.graph.nodes:
            self._node(node)
        return self.finished()

    def _node(self, node: Node) -> None:
        operands = tuple(self.values[o] if isinstance(o, Value) else o for o in node.inputs)
        types = self.typed(node, operands)
        outputs = [in_full(v) if is_low(v) else v for v in node.outputs]
        made = tuple(replace_type(v, t) if v.type.dtype == "f32" else v for v, t in zip(outputs, types))
        self.nodes.append(replace(node, inputs=operands, outputs=made))
        self.values.update(zip(node.outputs, made))
        for value, found in zip(node.outputs, made):
            if value in self.graph.outputs:
                self.leave(value, found, node)


def replace_type(value: Value, type: TensorType) -> Value:
    """A value in float32 of the shape that a rule tells."""
    return value if type.shape == value.type.shape else Value(TensorType(value.type.dtype, type.shape), value.name)


def _named(value: Value) -> Value:
    return Value(TensorType("f32", value.type.shape), f"{value.name}_f32" if value.name else "")


class _Native(_Body):
    """Matrices multiplied in the low precision, all else computed in float32."""

    def run(self) -> Graph:
        for node in self.graph.nodes:
            self._node(node)
        return self.finished()

    def _node(self, node: Node) -> None:
        to = self._as_it_is if node.op.kind is Kind.VIEW else self._narrow if node.op.product else self._widen
        operands = tuple(to(o, node) if isinstance(o, Value) else o for o in node.inputs)
        types = self.typed(node, operands)
        made = tuple(map(self._of_dtype, node.outputs, types))
        self.nodes.append(replace(node, inputs=operands, outputs=made))
        self.values.update(zip(node.outputs, made))
        for value, found in zip(node.outputs, made):
            if value in self.graph.outputs:
                self.leave(value, found, node)

    def _of_dtype(self, value: Value, type: TensorType) -> Value:
        """A value as it is, but of the dtype that a rule tells; the cast of a result has its name."""
        if value.type.dtype == type.dtype:
            return value
        return Value(TensorType(type.dtype, value.type.shape), "" if value in self.graph.outputs else value.name)

    def _as_it_is(self, value: Value, node: Node) -> Value:
        return self.values[value]

    def _narrow(self, value: Value, node: Node) -> Value:
        found = self.values[value]
        return self.narrowed(found, node) if found.type.dtype == "f32" else found

    def _widen(self, value: Value, node: Node) -> Value:
        found = self.values[value]
        if not is_low(found):
            return found
        if found not in self.of:
            self.of[found] = self.cast("upcast", found, node, in_full(found))
        return self.of[found]
