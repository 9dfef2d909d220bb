"""One graph of a program: what each node costs, and which tensors its backward keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Submodule,
)
from tdsl.compiler.explain.kernels import Use, kernel_use, operation_use, own_measure
from tdsl.compiler.explain.library import is_view, library_use
from tdsl.compiler.explain.model import Cost, Part, PartKind
from tdsl.compiler.explain.sizes import Measure, Numbers, Sizes, constant, with_numbers
from tdsl.compiler.explain.walk import Found, Key, Walk
from tdsl.compiler.graph.chain import layer_call
from tdsl.compiler.inspect import bound
from tdsl.compiler.ir import Graph, Group, Node, Value
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.passes.fusible import unfusible
from tdsl.compiler.passes.lift_head import headless, is_headless
from tdsl.compiler.structured.template import template_of
from tdsl.dsl.diagnostics import Span


def call(
    walk: Walk,
    member: ModuleMember,
    sizes: Sizes,
    given: Sequence[Numbers],
    carries: Sequence[bool],
    again: frozenset[str] = frozenset(),
) -> Key:
    """A call of a module on inputs of these shapes, some of which carry a gradient: where `walk` has what was found.

    `again` are the paths in it of modules that are computed again in the backward.
    """
    ir = walk.ir(member.class_name)
    inner = Sizes(bound(ir, member, sizes.numbers)).called(ir.graph.inputs, given)
    inner = walk.complete(ir.graph, inner)
    key = (ir.class_name, tuple(sorted(inner.numbers.items(), key=str)), inner.lead, tuple(carries), again)
    if key not in walk.found:
        body = Body(walk, ir.graph, inner, walk.width, ir, {}, again)
        walk.found[key] = body.run(ir.class_name, walk.told(ir, inner), carries)
    return key


def root(walk: Walk, member: ModuleMember, carries: bool) -> Key:
    """A module by itself, on inputs of sizes that are assumed where nothing tells them."""
    ir = walk.ir(member.class_name)
    sizes = walk.complete(ir.graph, Sizes(bound(ir, member, {})))
    given = [sizes.shape(value.type.shape) for value in ir.graph.inputs]
    return call(walk, member, sizes, given, [carries and v.type.is_float for v in ir.graph.inputs])


@dataclass
class _Part:
    """A part while its cost grows."""

    name: str
    kind: PartKind
    spans: tuple[Span, ...]
    note: str = ""
    cost: Cost = field(default_factory=Cost)
    shapes: tuple[Numbers, ...] = ()

    def add(self, cost: Cost) -> None:
        self.cost = self.cost + cost


class Body:
    """A walk over one graph. Values that share memory stand for one another: `self.base` has the first of them."""

    def __init__(
        self,
        walk: Walk,
        graph: Graph,
        sizes: Sizes,
        width: int,
        ir: ModuleIR | None,
        models: Mapping[str, ModuleMember],
        again: frozenset[str] = frozenset(),
    ) -> None:
        self.walk = walk
        self.graph = graph
        self.ir = ir
        self.models = models
        self.again = again
        self.params = {p.value for p in graph.params}
        # Parameters stay in float32; a loss is in float32 but for what models take and yield.
        self.measure = Measure(sizes, width, frozenset(self.params | (set() if ir else _in_full(graph))))
        self.base: dict[Value, Value] = {}
        self.needed: set[Value] = {p.value for p in graph.params if p.trainable}
        self.keep: dict[Value, None] = {}
        self.counted: set[Value] = set()
        self.maker: dict[Value, _Part] = {}
        self.parts: list[_Part] = []
        self.calls: Counter[Key] = Counter()

    def run(self, title: str, sizes: str, carries: Sequence[bool]) -> Found:
        graph = self.graph
        self.needed |= {v for v, carried in zip(graph.inputs, carries) if carried}
        self._nodes(graph.nodes)
        if self.ir is not None and not graph.nodes and graph.outputs and graph.outputs[0] not in graph.inputs:
            self.needed |= {v for v in graph.outputs if v.type.is_float}
        for value in self.keep:
            if value in self.maker and value not in self.counted:
                self.maker[value].add(Cost(kept=self.measure.bytes(value)))
        results = [self._base(v) for v in graph.outputs]
        return Found(
            title,
            self.ir.class_name.partition(",")[0] if self.ir else "",
            sizes,
            tuple(Part(p.name, p.kind, p.spans, p.cost, p.note, p.shapes) for p in self.parts),
            tuple(self.measure.sizes.shape(v.type.shape) for v in graph.outputs),
            tuple(v in self.keep for v in graph.inputs),
            tuple(v in self.keep and v in self.maker for v in results),
            tuple(v in self.needed for v in graph.outputs),
            dict(self.calls),
        )

    def _base(self, value: Value) -> Value:
        return self.base.get(value, value)

    # Nodes

    def _nodes(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node.regions:
                self._regions(node)
            elif node.op.name in ("call_module", "call_list"):
                self._call(node)
            else:
                self._operation(node)

    def _operation(self, node: Node) -> None:
        kind = PartKind.KERNEL if node.group else PartKind.VIEW if is_view(node) else PartKind.CALL
        name = node.group.name if node.group else f"{node.layer}: {node.op.name}" if node.layer else node.op.name
        part = self._part(name, kind, _spans(node))
        if node.group is not None:
            part.shapes = tuple(self.measure.sizes.shape(v.type.shape) for v in node.group.body.inputs)
        self._count(node, part)

    def _count(self, node: Node, part: _Part) -> None:
        """Add what a node costs to a part, and note what it keeps."""
        if node.op.name != "detach" and any(v in self.needed for v in node.values):
            self.needed |= {v for v in node.outputs if v.type.is_float}
        if is_view(node):
            self.base.update((v, self._base(node.values[0])) for v in node.outputs)
            part.add(self._joining(node))
            return
        use = self._use(node)
        part.add(use.cost)
        self._keep(use.keeps)
        self.maker.update(dict.fromkeys(node.outputs, part))
        if node.group is not None and node.group.structure is not None:
            self.base.update((v, self._base(node.values[0])) for v in template_of(node.group).handed(node.group))

    def _use(self, node: Node) -> Use:
        if node.group is not None:
            use = kernel_use(node.group, self.measure, self.needed)
            if node.group.structure is None:
                return use
            return replace(use, cost=replace(use.cost, saved=self._alone(node.group) - use.cost.moved))
        if unfusible(node) is None and node.op.flops:
            use = operation_use(node, self.graph, self.measure, self.needed)
            return replace(use, keeps=node.outputs) if use.keeps and node.op.keeps is Keeps.RESULT else use
        return library_use(node, self.measure, self.needed)

    def _joining(self, node: Node) -> Cost:
        """Of a view that yields several tensors: their gradients are joined to that of its input."""
        if len(node.outputs) == 1 or node.values[0] not in self.needed:
            return Cost()
        return Cost(backward=sum(map(self.measure.bytes, (*node.outputs, node.values[0]))))

    def _alone(self, group: Group) -> int:
        """Bytes that the operations of a group that a template computes would move, each by itself.

        Those that read a low precision would compute in it. What is made of parameters alone is float32, and is cast.
        """
        inner = Body(self.walk, group.body, self.measure.sizes, self.measure.width, self.ir, {})
        inner.params, inner.needed = self.params, set(self.needed)
        low = any(value.type.dtype == "float" for value in group.body.inputs)
        inner.measure = own_measure(group, self.measure) if low else self.measure
        for node in group.body.nodes:
            part = inner._part(node.op.name, PartKind.CALL, ())
            if low and node.op.name in ("upcast", "downcast"):
                inner.base[node.output] = inner._base(node.values[0])
                inner.needed |= set(node.outputs) if node.values[0] in inner.needed else set()
            else:
                inner._count(node, part)
        return sum(part.cost.moved for part in inner.parts)

    def _keep(self, values: Sequence[Value]) -> None:
        self.keep.update(dict.fromkeys(v for v in map(self._base, values) if v not in self.params))

    def _part(self, name: str, kind: PartKind, spans: tuple[Span, ...], note: str = "") -> _Part:
        part = _Part(name, kind, spans, note=note)
        self.parts.append(part)
        return part

    def _regions(self, node: Node) -> None:
        """`no_grad { }` without gradients; of `if training` what trains."""
        region = node.regions[0]
        outer = [v for v in node.inputs if isinstance(v, Value)]
        before = set(self.needed)
        self.base.update((own, self._base(v)) for own, v in zip(region.inputs, outer))
        self.params |= {own for own, v in zip(region.inputs, outer) if v in self.params}
        self.measure = replace(self.measure, full=self.measure.full | self.params)
        learns = node.op.name != "no_grad"
        if learns:
            self.needed |= {own for own, v in zip(region.inputs, outer) if v in self.needed}
        else:
            self.needed = set()
        self._nodes(region.nodes)
        carried = [learns and v in self.needed for v in region.outputs]
        self.needed = before | {v for v, carry in zip(node.outputs, carried) if carry}
        self.base.update((v, self._base(own)) for own, v in zip(region.outputs, node.outputs))

    # Calls of modules

    def _call(self, node: Node) -> None:
        sizes = self.measure.sizes
        member: Submodule | None = self.models.get(node.layer)
        if self.ir is not None and member is None:
            member, sizes = self.walk.member(self.ir, node.layer, sizes)
        if isinstance(member, ModuleMember) and is_headless(node):
            member = replace(member, class_name=headless(member.class_name))
        label, note = _label(member, sizes)
        if node.layer in self.again or _below(node.layer, self.again) & {"0"}:
            note = "computed again in the backward"
        part = self._part(f"{node.layer}: {label}", PartKind.MODULE, _spans(node), note)
        if member is None:
            self.maker.update(dict.fromkeys(node.outputs, part))
            return
        results = self._run(member, sizes, list(node.values), part, node.layer)
        self.base.update((v, self._base(made)) for v, made in zip(node.outputs, results))
        self.needed |= {v for v, made in zip(node.outputs, results) if made in self.needed}

    def _run(self, member: Submodule, sizes: Sizes, values: list[Value], part: _Part, path: str) -> list[Value]:
        """A submodule, its arguments in terms of `sizes`, on these values, counted to a part; its results."""
        if path in self.again:
            return self._run_again(member, sizes, values, part, path)
        if isinstance(member, SharedMember):
            assert self.ir is not None
            found, sizes = self.walk.member(self.ir, member.path, self.measure.sizes)
            return values if found is None else self._run(found, sizes, values, part, member.path)
        if isinstance(member, ModuleMember):
            return self._module(with_numbers(member, sizes), values, part, path)
        if isinstance(member, LayerMember):
            return self._layer(with_numbers(member, sizes), values[0], part)
        if isinstance(member, RepeatMember):
            for i in range(sizes.count(member.count)):
                values = self._run(member.element, sizes.having(member.variable, i), values, part, f"{path}.{i}")
        else:
            for i, element in enumerate(member.elements):
                values = self._run(element, sizes, values, part, f"{path}.{i}")
        return values

    def _run_again(self, member: Submodule, sizes: Sizes, values: list[Value], part: _Part, path: str) -> list[Value]:
        """A submodule that keeps its inputs, and computes again what its backward reads."""
        outer, keep, counted, cost = self.again, dict(self.keep), set(self.counted), part.cost
        self.again, part.cost = frozenset(), Cost()
        results = self._run(member, sizes, values, part, path)
        own, inputs = part.cost, {self._base(v) for v in values}
        made = [v for v in self.keep if v not in keep and v not in self.counted and v not in inputs]
        held = own.kept - own.copies + sum(map(self.measure.bytes, made))
        self.walk.recomputed = max(self.walk.recomputed, held)
        twice = Cost(backward=own.forward, flops_backward=own.flops)
        self.again, self.keep, self.counted = outer, keep, counted
        part.cost = cost + replace(own, kept=own.copies) + twice
        self._keep(values)
        return results

    def _module(self, member: ModuleMember, values: list[Value], part: _Part, path: str) -> list[Value]:
        carries = [v in self.needed for v in values]
        shapes = [self.measure.sizes.shape(v.type.shape) for v in values]
        key = call(self.walk, member, self.measure.sizes, shapes, carries, _below(path, self.again))
        self.calls[key] += 1
        found = self.walk.found[key]
        part.add(found.cost)
        self._keep([v for v, keep in zip(values, found.keeps) if keep])
        formal = self.walk.ir(member.class_name).graph.outputs
        results = [Value(constant(f.type.dtype, shape)) for f, shape in zip(formal, found.shapes)]
        self.maker.update(dict.fromkeys(results, part))
        self.needed |= {v for v, carry in zip(results, found.carries) if carry}
        self.counted |= {v for v, kept in zip(results, found.kept) if kept}
        return results

    def _layer(self, member: LayerMember, value: Value, part: _Part) -> list[Value]:
        """A layer in a list, which has no node of its own."""
        given = Value(constant(value.type.dtype, self.measure.sizes.shape(value.type.shape)))
        made_by = layer_call(member, given)
        made = tuple(map(Value, made_by.op.infer(made_by)))
        params = {v for v in made_by.inputs if isinstance(v, Value) and v is not given}
        self.params |= params
        self.needed |= params | ({given} if value in self.needed else set())
        self.base[given] = self._base(value)
        self.measure = replace(self.measure, full=self.measure.full | params)
        self._count(Node(made_by.op, made_by.inputs, made_by.attrs, made, part.spans[0], layer=part.name), part)
        return list(made)


def _in_full(graph: Graph) -> set[Value]:
    """What is float32 in a loss: all that no cast and no model makes."""
    nodes = [n for node in graph.walk() for n in (node, *(node.group.body.nodes if node.group else ()))]
    values = {*graph.inputs} | {v for node in nodes for v in (*node.values, *node.outputs)}
    low = (n for n in graph.walk() if n.op.name in ("downcast", "call_module", "call_list") or n.layer)
    return values - {v for node in low for v in node.outputs}


def _below(path: str, again: frozenset[str]) -> frozenset[str]:
    """Of modules that are computed again those below a path, without it."""
    return frozenset(each.removeprefix(f"{path}.") for each in again if each.startswith(f"{path}."))


def _label(member: Submodule | None, sizes: Sizes) -> tuple[str, str]:
    """What a call of a submodule is of, and what is to be said of it."""
    if isinstance(member, ModuleMember):
        return member.class_name, ""
    if isinstance(member, LayerMember):
        return member.name, ""
    if isinstance(member, RepeatMember):
        return f"{sizes.count(member.count)} x {_label(member.element, sizes)[0]}", ""
    if isinstance(member, (SequentialMember, ListMember)):
        return f"{len(member.elements)} modules", ""
    return "extern", "a class of Python's: not counted"


def _spans(node: Node) -> tuple[Span, ...]:
    nodes = node.group.body.nodes if node.group else (node,)
    found = {(n.span.source.name, n.span.line): n.span for n in nodes if n.span is not None}
    return tuple(found.values())
