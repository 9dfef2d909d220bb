"""Place the casts of a run in lower precision: what autocast would decide at run time, decided here.

Before: `%y = group rms_norm(%x, weight)`, `%q = linear(%y, qkv.weight)`, in the loss `%l = model(batch.x)`.
After:  the group computes in f32 between casts at its edges and reads `weight` as f32; `qkv` is a layer that casts its
        weights to its input's dtype; the loss is `model(batch.x.to(bf16)).float()`.

Parameters stay in float32. Tensors between the operations of a model are of the low precision, which is what `float`
means there; a fused kernel computes in float32 between its loads and its stores. Losses and metrics are in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from tdsl.compiler.ir import Graph, Node, Parameter, Scalar, TensorType, Value
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.passes.cast_bodies import Casts, group_in, in_full, is_low, keeps_dtype

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


class _Model(Casts):
    """The graph of a module's `forward`, or of a region of it. `full` has the float32 values of its parameters."""

    def __init__(self, graph: Graph, low: Scalar, full: Mapping[Value, Value], sequentials: frozenset[str]) -> None:
        super().__init__(graph, low)
        self.full = full
        self.held = set(full.values())
        self.sequentials = sequentials

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if node.group is None:
                inputs = tuple(self.full.get(o, o) if isinstance(o, Value) else o for o in node.inputs)
                node = replace(node, inputs=inputs)
            self._node(node)
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
            self._group(node)
            return
        low = any(v.type.dtype == "float" for v in node.values)
        if low and not node.layer and not node.op.casts:
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
        outputs = tuple(Value(TensorType("f32", v.type.shape)) if is_low(v) else v for v in node.outputs)
        self.nodes.append(replace(node, outputs=outputs))
        for made, wanted in zip(outputs, node.outputs):
            if made is not wanted:
                self.cast("downcast", made, node, wanted)

    def _group(self, node: Node) -> None:
        given = self.full
        if keeps_dtype(node):
            given = {v: self.narrowed(self.full[v], node) for v in node.values if v in self.full}
        found = group_in(node, self.low, given)
        assert found.outputs == node.outputs
        self.nodes.append(found)


def _full(param: Parameter) -> Parameter:
    type = param.value.type
    if type.dtype != "float":
        return param
    return replace(param, value=Value(TensorType("f32", type.shape), param.value.name))


class _Loss(Casts):
    """The graph of a loss: models in the low precision, all else in float32. `values` has the float32 of each value.

    `alone` are the values of which only kernels read, and in the low precision: there they have their names.
    """

    def __init__(self, graph: Graph, low: Scalar, alone: Collection[Value] = ()) -> None:
        super().__init__(graph, low)
        self.values: dict[Value, Value] = {}
        self.alone = alone
        # What is float32 because it was widened, by what that yielded: kernels read it as it was.
        self.narrow: dict[Value, Value] = {}

    def run(self) -> Graph:
        inputs = tuple(map(self._in_full, self.graph.inputs))
        params = tuple(replace(p, value=self._in_full(p.value)) for p in self.graph.params)
        for node in self.graph.nodes:
            self._node(node)
        tracked = {name: self.values[v] for name, v in self.graph.tracked.items()}
        outputs = tuple(self.values[v] for v in self.graph.outputs)
        found = replace(self.graph, inputs=inputs, params=params, outputs=outputs, tracked=tracked)
        found = _without_idle(replace(found, nodes=tuple(self.nodes)))
        made = {v for n in found.nodes for v in n.outputs}
        alone = [v for v, full in self.values.items() if full in self.narrow and full not in made]
        return found if self.alone or not alone else _Loss(self.graph, self.low, alone).run()

    def _in_full(self, value: Value) -> Value:
        return self.values.setdefault(value, in_full(value) if is_low(value) else value)

    def _node(self, node: Node) -> None:
        if node.regions:
            self._regions(node)
        elif node.group is not None:
            self._group(node)
        elif node.layer or node.op.name == "call_module":
            self._call(node)
        else:
            inputs = tuple(self.values[o] if isinstance(o, Value) else o for o in node.inputs)
            full = replace(node, inputs=inputs, outputs=tuple(map(self._in_full, node.outputs)))
            self.nodes.append(full)
            if node.op.kind is Kind.VIEW and full.values[0] in self.narrow:
                self._view(node, full)

    def _regions(self, node: Node) -> None:
        inputs = tuple(self.values[o] if isinstance(o, Value) else o for o in node.inputs)
        regions = tuple(_Loss(region, self.low).run() for region in node.regions)
        self.nodes.append(
            replace(node, inputs=inputs, outputs=tuple(map(self._in_full, node.outputs)), regions=regions)
        )

    def _group(self, node: Node) -> None:
        given = {v: self.narrow.get(self.values[v], self.values[v]) for v in node.values}
        if any(map(is_low, given.values())) and not keeps_dtype(node):
            found = group_in(node, self.low, given, full=node.outputs)
        else:
            found = group_in(node, self.low, self.values, full=node.outputs)
        self.values.update(zip(node.outputs, found.outputs))
        self.nodes.append(found)

    def _view(self, node: Node, full: Node) -> None:
        """Of what was widened a view as it was, too, for kernels to read."""
        outputs = tuple(Value(v.type, v.name if v in self.alone else "") for v in node.outputs)
        self.nodes.append(replace(full, inputs=(self.narrow[full.values[0]], *full.inputs[1:]), outputs=outputs))
        self.narrow.update(zip(full.outputs, outputs))

    def _call(self, node: Node) -> None:
        given = (self.values[o] if isinstance(o, Value) else o for o in node.inputs)
        inputs = tuple(self._narrowed(o, node) if isinstance(o, Value) and o.type.dtype == "f32" else o for o in given)
        several = len(node.outputs) > 1
        named = {v: v.name for v in node.outputs if several or v in self.alone}
        outputs = tuple(Value(v.type, named.get(v, "")) if is_low(v) else v for v in node.outputs)
        self.nodes.append(replace(node, inputs=inputs, outputs=outputs))
        for made, wanted in zip(outputs, node.outputs):
            if made is not wanted:
                self.narrow[self.cast("upcast", made, node, self._in_full(wanted))] = made

    def _narrowed(self, value: Value, node: Node) -> Value:
        return self.narrow[value] if value in self.narrow else self.narrowed(value, node)


def _without_idle(graph: Graph) -> Graph:
    """Without casts, and views, that nothing reads."""
    read = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        idle = node.op.kind is Kind.VIEW or node.op.name in ("upcast", "downcast")
        if not idle or read.intersection(node.outputs):
            kept.append(node)
            read.update(node.values)
    return replace(graph, nodes=tuple(reversed(kept)))
