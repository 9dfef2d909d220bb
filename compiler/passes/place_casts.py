"""Place the casts of a run in lower precision: what autocast would decide at run time, decided here.

Before: `%y = group rms_norm(%x, weight)`, `%q = linear(%y, qkv.weight)`, in the loss `%l = model(batch.x)`.
After:  the group computes in f32 between casts at its edges and reads `weight` as f32; `qkv` is a layer that casts its
        weights to its input's dtype; the loss is `model(batch.x.to(bf16)).float()`.

Parameters stay in float32. Tensors between the operations of a model are of the low precision, which is what `float`
means there; a fused kernel computes in float32 between its loads and its stores. Losses and metrics are in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.unit import (
    ConstantMember,
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    RepeatMember,
    SequentialMember,
    Submodule,
    TensorMember,
    Unit,
)
from tdsl.compiler.ir import Graph, Group, Node, Parameter, Scalar, TensorType, Value
from tdsl.compiler.ops.op import OPS, Bound

# How PyTorch calls a precision that is lower than float32.
LOW: Mapping[str, Scalar] = {
    "bf16": Scalar(None, "torch.bfloat16"),
    "f16": Scalar(None, "torch.float16"),
}
# Layers that look vectors up: what they yield is cast, so that their tables are not.
TABLES = ("Embedding", "EmbeddingBag")


def place_casts(unit: Unit, precision: str) -> Unit:
    """The unit for a run of this precision: unchanged for `f32`."""
    if precision not in LOW:
        return unit
    low = LOW[precision]

    def model(graph: Graph | None) -> Graph | None:
        return None if graph is None else _Loss(graph, low).run()

    return replace(
        unit,
        modules=tuple(_module(m, low) for m in unit.modules),
        runs={n: replace(r, loss=_Loss(r.loss, low).run()) for n, r in unit.runs.items()},
        evaluations={
            n: replace(e, compare=model(e.compare), predict=model(e.predict)) for n, e in unit.evaluations.items()
        },
    )


def _module(module: ModuleIR, low: Scalar) -> ModuleIR:
    members = {name: _member(member) for name, member in module.members.items()}
    sequentials = frozenset(n for n, m in module.members.items() if isinstance(m, SequentialMember))
    params = tuple(map(_full, module.graph.params))
    held = {p.value: full.value for p, full in zip(module.graph.params, params) if full is not p}
    graph = _Model(module.graph, low, held, sequentials).run()
    return replace(module, members=members, graph=replace(graph, params=params))


def _member(member: Member) -> Member:
    """Layers with parameters become those that keep them in float32."""
    if isinstance(member, LayerMember):
        name = member.name
        held = name in LAYERS and LAYERS[name].has_parameters and name not in TABLES
        return replace(member, path=f"mixed_precision.{name}") if held else member
    if isinstance(member, RepeatMember):
        return replace(member, element=_submodule(member.element))
    if isinstance(member, (SequentialMember, ListMember)):
        return replace(member, elements=tuple(map(_submodule, member.elements)))
    return member


def _submodule(member: Submodule) -> Submodule:
    changed = _member(member)
    assert not isinstance(changed, (TensorMember, ConstantMember))
    return changed


class _Casts:
    """A graph while casts are put into it. `self.of` has the cast of a value, made once."""

    def __init__(self, graph: Graph, low: Scalar) -> None:
        self.graph = graph
        self.low = low
        self.nodes: list[Node] = []
        self.of: dict[Value, Value] = {}

    def cast(self, op: str, value: Value, node: Node | None, output: Value | None = None) -> Value:
        attrs = {"dtype": self.low}
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


class _Model(_Casts):
    """The graph of a module's `forward`, or of a region of it. `full` has the float32 values of its parameters."""

    def __init__(self, graph: Graph, low: Scalar, full: Mapping[Value, Value], sequentials: frozenset[str]) -> None:
        super().__init__(graph, low)
        self.full = full
        self.held = set(full.values())
        self.sequentials = sequentials

    def run(self) -> Graph:
        for node in self.graph.nodes:
            inputs = tuple(self.full.get(o, o) if isinstance(o, Value) else o for o in node.inputs)
            self._node(replace(node, inputs=inputs))
        taken = tuple(self.full.get(v, v) for v in self.graph.inputs)
        outputs = tuple(self._result(v) for v in self.graph.outputs)
        return replace(self.graph, inputs=taken, nodes=tuple(self.nodes), outputs=outputs)

    def _result(self, value: Value) -> Value:
        return self.narrowed(self.full[value], None) if value in self.full else value

    def _node(self, node: Node) -> None:
        if node.regions:
            regions = (_Model(region, self.low, self.full, self.sequentials).run() for region in node.regions)
            self.nodes.append(replace(node, regions=tuple(regions)))
            return
        if node.group is not None:
            self.nodes.append(self._group(node, node.group))
            return
        low = any(v.type.dtype == "float" for v in node.values)
        if low and not node.layer:
            inputs = tuple(self.narrowed(o, node) if o in self.held else o for o in node.inputs)
            node = replace(node, inputs=inputs)
        if low or self._is_module(node):
            self.nodes.append(node)
        else:
            self._from_full(node)

    def _is_module(self, node: Node) -> bool:
        """Whether it calls a module of the program, which yields the low precision whatever it is given."""
        return node.op.name == "call_module" and node.layer not in self.sequentials

    def _from_full(self, node: Node) -> None:
        """What is made of numbers, integers and parameters alone is in float32, and is cast."""
        outputs = tuple(Value(TensorType("f32", v.type.shape)) if _is_low(v) else v for v in node.outputs)
        self.nodes.append(replace(node, outputs=outputs))
        for made, wanted in zip(outputs, node.outputs):
            if made is not wanted:
                self.cast("downcast", made, node, wanted)

    def _group(self, node: Node, group: Group) -> Node:
        inputs = tuple(v for v in node.inputs if isinstance(v, Value))
        body = _Body(group.body, self.low, self.full).run()
        assert body.inputs == inputs
        return replace(node, group=replace(group, body=body))


def _full(param: Parameter) -> Parameter:
    type = param.value.type
    if type.dtype != "float":
        return param
    return replace(param, value=Value(TensorType("f32", type.shape), param.value.name))


def _is_low(value: Value) -> bool:
    return value.type.dtype == "float"


class _Body(_Casts):
    """The body of a group, computed in float32 between casts."""

    def __init__(self, graph: Graph, low: Scalar, params: Mapping[Value, Value]) -> None:
        super().__init__(graph, low)
        self.values: dict[Value, Value] = dict(params)

    def run(self) -> Graph:
        inputs = tuple(self.values.get(v, v) for v in self.graph.inputs)
        for value in inputs:
            if _is_low(value):
                self.values[value] = self.cast("upcast", value, None, _wide(value, f"{value.name}_f32"))
        for node in self.graph.nodes:
            self._node(node)
        return replace(self.graph, inputs=inputs, nodes=tuple(self.nodes))

    def _node(self, node: Node) -> None:
        operands = tuple(self.values.get(o, o) if isinstance(o, Value) else o for o in node.inputs)
        types = node.op.infer(Bound(node.op, operands, node.attrs, node.span))
        for value, type in zip(node.outputs, types):
            if _is_low(value):
                self.values[value] = Value(replace(type, dtype="f32"), value.name)
        outputs = tuple(self.values.get(v, v) for v in node.outputs)
        self.nodes.append(replace(node, inputs=operands, outputs=outputs))
        for value in node.outputs:
            if _is_low(value) and value in self.graph.outputs:
                self.cast("downcast", self.values[value], node, value)


def _wide(value: Value, name: str) -> Value:
    return Value(TensorType("f32", value.type.shape), name if value.name else "")


class _Loss(_Casts):
    """The graph of a loss: models in the low precision, all else in float32."""

    def run(self) -> Graph:
        for node in self.graph.map_regions(lambda region: _Loss(region, self.low).run()).nodes:
            if node.layer or node.op.name == "call_module":
                self._call(node)
            else:
                self.nodes.append(node)
        return replace(self.graph, nodes=tuple(self.nodes))

    def _call(self, node: Node) -> None:
        inputs = tuple(self.narrowed(o, node) if isinstance(o, Value) and _is_low(o) else o for o in node.inputs)
        several = len(node.outputs) > 1
        outputs = tuple(Value(v.type, v.name if several else "") if _is_low(v) else v for v in node.outputs)
        self.nodes.append(replace(node, inputs=inputs, outputs=outputs))
        for made, wanted in zip(outputs, node.outputs):
            if made is not wanted:
                self.cast("upcast", made, node, wanted)
