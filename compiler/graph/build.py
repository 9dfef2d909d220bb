"""From IR after its passes to boxes and edges: what is called, what is fused, what is shared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Submodule,
    Unit,
)
from tdsl.compiler.graph import words
from tdsl.compiler.graph.chain import chained
from tdsl.compiler.graph.model import Box, Diagram, Edge, Kind, Picture, Port
from tdsl.compiler.inspect import bound, parameters
from tdsl.compiler.ir import Attr, Graph, Node, Parameter, Scalar, TensorType, Value
from tdsl.compiler.size import Size, Symbol

SHARED, DOT = "\u21ba", "\u00b7"  # marks what uses the weights of something else; stands between operations
Sizes = Mapping[Symbol, int]
# Of the inputs, and of the outputs.
Types = tuple[Sequence[TensorType], Sequence[TensorType]]


def picture(unit: Unit, module: str | None = None) -> Picture:
    """The models of the runs; of a file without any, the modules that no other uses; or the one module named."""
    made = _Maker(unit)
    return Picture(Path(unit.program.source.name).name, tuple(made.roots(module)), tuple(made.kernels))


class _Maker:
    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.classes = {ir.class_name: ir for ir in unit.modules}
        self.counts: dict[str, int] = {}
        self.kernels: dict[str, None] = {}

    def roots(self, module: str | None) -> Iterator[Box]:
        for title, member in roots(self.unit, module):
            ir = self.classes[member.class_name]
            known = member.args or not any(param.required for param in ir.params)
            self.counts = {p.path: p.count for p in parameters(self.unit, member)} if known else {}
            yield self.module(member, ir, "", title, ((), ()), {})

    # Modules

    def module(self, member: ModuleMember, ir: ModuleIR, path: str, title: str, types: Types, sizes: Sizes) -> Box:
        """A module of the program, with what it consists of."""
        inner = bound(ir, member, sizes)
        given = words.arguments(member)
        subtitle = f"{ir.class_name}({given})" if given or title else ""
        if not ir.graph.nodes:  # a class of Python's, or the identity
            return Box(Kind.LAYER, title or ir.class_name, subtitle, tuple(_arrows(types)))
        inside = self.diagram(ir.graph, ir, f"{path}." if path else "", inner)
        return Box(Kind.MODULE, title or ir.class_name, subtitle, (), inside, note=self.count(path))

    def submodule(self, member: Submodule, ir: ModuleIR, path: str, title: str, types: Types, sizes: Sizes) -> Box:
        """A submodule of the class `ir`."""
        if isinstance(member, ModuleMember):
            return self.module(member, self.classes[member.class_name], path, title, types, sizes)
        if isinstance(member, LayerMember):
            return self.layer(member, path, title, types)
        if isinstance(member, RepeatMember):
            return self.repeated(member, ir, path, title, types, sizes)
        if isinstance(member, SharedMember):
            box = self.submodule(self.named(ir, member.path), ir, path, title, types, sizes)
            return _marked(box, [f"{SHARED} weights of {member.path}"])
        return self.sequence(member, ir, path, title, types, sizes)

    def layer(self, member: LayerMember, path: str, title: str, types: Types) -> Box:
        subtitle = f"{member.name}({words.arguments(member)})"
        return Box(Kind.LAYER, title, subtitle, (*_arrows(types), *filter(None, [self.count(path)])))

    def repeated(self, member: RepeatMember, ir: ModuleIR, path: str, title: str, types: Types, sizes: Sizes) -> Box:
        """A list of equal modules, shown once."""
        inner = {**sizes, Symbol(member.variable, param=True): 0}
        box = self.submodule(member.element, ir, f"{path}.0", title, types, inner)
        number = _number(member.count, sizes)
        each, total = self.count(f"{path}.0"), self.count(path)
        note = f"{each} each" if each else total
        lines = tuple(line for line in box.lines if line != each) + ((note,) if box.inside is None and note else ())
        times = number if number is not None else words.attr(member.count)
        return replace(box, lines=lines, times=times, note=note if box.inside else "")

    def sequence(
        self,
        member: SequentialMember | ListMember,
        ir: ModuleIR,
        path: str,
        title: str,
        types: Types,
        sizes: Sizes,
    ) -> Box:
        """Modules one after the other."""
        between = chained(self.unit, [self.meant(ir, element) for element in member.elements], types[0][0])
        labels = list(map(words.shape, between)) if between else [""] * (len(member.elements) + 1)
        boxes = [Box(Kind.INPUT, "", words.shape(types[0][0]))]
        for i, element in enumerate(member.elements):
            known = (between[i : i + 1], between[i + 1 : i + 2]) if between else ((), ())
            boxes.append(self.submodule(element, ir, f"{path}.{i}", str(i), known, sizes))
        boxes.append(Box(Kind.OUTPUT, "", words.shape(types[1][-1])))
        edges = (Edge(Port(a), Port(b), label) for a, b, label in zip(boxes, boxes[1:], [*labels, labels[-1]]))
        subtitle = "Sequential" if isinstance(member, SequentialMember) else "list"
        return Box(Kind.MODULE, title, subtitle, (), Diagram(tuple(boxes), tuple(edges)), note=self.count(path))

    def count(self, path: str) -> str:
        """The number of parameters below a path."""
        found = sum(n for name, n in self.counts.items() if not path or name == path or name.startswith(f"{path}."))
        return words.count(found) if found else ""

    # Graphs

    def diagram(
        self, graph: Graph, ir: ModuleIR, path: str, sizes: Sizes, held: Mapping[Value, Parameter] | None = None
    ) -> Diagram:
        """What a graph computes. `held` are inputs of a region that are parameters of the module around it."""
        params = {**{p.value: p for p in graph.params}, **(held or {})}
        boxes = [Box(Kind.INPUT, v.name, words.shape(v.type)) for v in graph.inputs if v not in params]
        ports = dict(zip((v for v in graph.inputs if v not in params), map(Port, boxes)))
        edges: list[Edge] = []
        called: set[str] = set()
        for node in graph.nodes:
            box = self.node(node, ir, path, sizes, params, node.layer in called)
            called |= {node.layer} - {""}
            boxes.append(box)
            read = [v for v in node.values if v not in params]
            for i, value in enumerate(read if box.inside else dict.fromkeys(read)):
                edges.append(Edge(ports[value], Port(box, i), words.shape(value.type)))
            ports.update((value, Port(box, i)) for i, value in enumerate(node.outputs))
        for value in graph.outputs:
            boxes.append(
                Box(Kind.OUTPUT, value.name if value in ports else params[value].path, words.shape(value.type))
            )
            edges += [Edge(ports[value], Port(boxes[-1]), words.shape(value.type))] if value in ports else []
        return Diagram(tuple(boxes), tuple(edges))

    def node(
        self, node: Node, ir: ModuleIR, path: str, sizes: Sizes, params: Mapping[Value, Parameter], again: bool
    ) -> Box:
        if node.group is not None:
            return self.kernel(node, ir, path, params)
        if node.regions:
            return self.regions(node, ir, path, sizes, params)
        member = self.member(ir, node.layer) if node.layer else None
        if member is None:
            return _operation(node, params)
        marks = [
            f"{SHARED} {name.removeprefix(f'{node.layer}.')} = {source}"
            for name, source in ir.ties
            if name.startswith(f"{node.layer}.")
        ]
        other = _alias(ir, node.layer)
        marks += [f"{SHARED} weights of {other}"] if other else []
        marks += [f"{SHARED} weights of the call before"] if again else []
        types = ([v.type for v in node.values if v not in params], [v.type for v in node.outputs])
        return _marked(self.submodule(member, ir, f"{path}{node.layer}", node.layer, types, sizes), marks)

    def member(self, ir: ModuleIR, path: str) -> Submodule | None:
        """What a path leads to, through modules that are inlined and lists."""
        member: Member | None = None
        for part in path.split("."):
            if member is None:
                member = ir.members.get(part)
            elif isinstance(member, ModuleMember):
                ir = self.classes[member.class_name]
                member = ir.members.get(part)
            elif isinstance(member, (SequentialMember, ListMember)):
                member = member.elements[int(part)]
            elif isinstance(member, RepeatMember):
                member = member.element
            member = self.meant(ir, member) if isinstance(member, SharedMember) else member
        return member if isinstance(member, Submodule) else None

    def meant(self, ir: ModuleIR, member: Submodule) -> Submodule:
        """The submodule itself, where it is one of the class `ir` under another name."""
        return self.named(ir, member.path) if isinstance(member, SharedMember) else member

    def named(self, ir: ModuleIR, path: str) -> Submodule:
        member = self.member(ir, path)
        assert member is not None, f"{ir.class_name} has no submodule {path}"
        return member

    def regions(self, node: Node, ir: ModuleIR, path: str, sizes: Sizes, params: Mapping[Value, Parameter]) -> Box:
        """`no_grad { }`, or both sides of `if training`."""
        inner = [self.region(node, region, ir, path, sizes, params) for region in node.regions]
        if len(inner) == 1:
            return Box(Kind.MODULE, node.op.name, "", (), inner[0])
        sides = [Box(Kind.MODULE, name, "", (), each) for name, each in zip(("training", "otherwise"), inner)]
        inputs = [Box(Kind.INPUT, v.name, words.shape(v.type)) for v in node.values if v not in params]
        outputs = [Box(Kind.OUTPUT, v.name, words.shape(v.type)) for v in node.outputs]
        edges = [Edge(Port(b), Port(side, i), b.subtitle) for side in sides for i, b in enumerate(inputs)]
        edges += [Edge(Port(side, i), Port(b), b.subtitle) for side in sides for i, b in enumerate(outputs)]
        return Box(Kind.MODULE, "if training", "", (), Diagram((*inputs, *sides, *outputs), tuple(edges)))

    def region(
        self, node: Node, region: Graph, ir: ModuleIR, path: str, sizes: Sizes, params: Mapping[Value, Parameter]
    ) -> Diagram:
        outer = [v for v in node.inputs if isinstance(v, Value)]
        held = {own: params[v] for own, v in zip(region.inputs, outer) if v in params}
        return self.diagram(region, ir, path, sizes, held)

    def kernel(self, node: Node, ir: ModuleIR, path: str, params: Mapping[Value, Parameter]) -> Box:
        """A fusion group: its operations, those of a layer or an inlined module under their names."""
        assert node.group is not None
        self.kernels[node.group.name] = None
        read = [params[v] for v in dict.fromkeys(node.values) if v in params]
        layer = node.group.structure.layer if node.group.structure is not None else ""
        read += [p for p in params.values() if layer and p.path.startswith(f"{layer}.")]
        lines = list(self.rows(node.group.body.nodes, ir, [p.path for p in read]))
        total = sum(self.counts.get(f"{path}{p.path}", 0) for p in read)
        lines += [words.count(total)] if total else []
        return Box(Kind.KERNEL, node.group.name, "kernel", tuple(lines), kernel=node.group.name)

    def rows(self, nodes: Iterable[Node], ir: ModuleIR, read: Sequence[str]) -> Iterator[str]:
        for (layer, origin), found in groupby(nodes, key=lambda node: (node.layer, node.origin)):
            member = self.member(ir, layer) if layer else None
            operations = [] if member else [node.op.name for node in found]
            name = layer or self.inlined(ir, origin, read)
            made = member.name if isinstance(member, LayerMember) else origin
            yield from _wrapped(f"{name} {made}".strip(), operations)

    def inlined(self, ir: ModuleIR, origin: str, read: Sequence[str]) -> str:
        """The member that was inlined: the one of that class among those whose parameters are read."""
        for path in read:
            name = path.rpartition(".")[0]
            member = self.member(ir, name) if name else None
            if isinstance(member, ModuleMember) and member.class_name == origin:
                return name
        return ""


def _alias(ir: ModuleIR, path: str) -> str:
    """The submodule that a path is another name of; empty where it is its own."""
    name, _, rest = path.partition(".")
    member = ir.members.get(name)
    if isinstance(member, (SequentialMember, ListMember)) and rest.isdigit():
        member = member.elements[int(rest)]
    return member.path if isinstance(member, SharedMember) else ""


def _marked(box: Box, marks: Sequence[str]) -> Box:
    """A box that says whose weights it has."""
    if box.inside is None:
        return replace(box, lines=(*box.lines, *marks))
    return replace(box, note="  ".join(marks)) if marks else box


def _arrows(types: Types) -> list[str]:
    return [words.arrow(*types)] if types[1] else []


def _operation(node: Node, params: Mapping[Value, Parameter]) -> Box:
    read = [params[v] for v in dict.fromkeys(node.values) if v in params]
    tensors = [v for v in node.values if v not in params]
    if node.op.name in words.SIGNS and len(set(tensors)) == 2:
        return Box(Kind.SIGN, words.SIGNS[node.op.name])
    lines = tuple(map(words.held, read))
    given = words.call_arguments(node)
    title = words.call_title(node)
    return Box(Kind.OP, title, "", (*([given] if given else []), *lines))


def roots(unit: Unit, module: str | None) -> Iterator[tuple[str, ModuleMember]]:
    """The models of the runs, or of a file without any the modules that no other uses; with a name, that module."""
    if module is not None:
        yield "", _default(unit, module)
        return
    seen: set[ModuleMember] = set()
    for name, run in unit.runs.items():
        for key, member in run.models.items():
            if member not in seen:
                yield f"{name}: {key}", member
            seen.add(member)
    if not unit.runs:
        used = {name for ir in unit.modules for member in ir.members.values() for name in _used(member)}
        for ir in unit.modules:
            if ir.class_name not in used:
                yield "", _default(unit, ir.class_name)


def _default(unit: Unit, name: str) -> ModuleMember:
    """A module as a run has it, else with its defaults."""
    for run in unit.runs.values():
        for member in run.models.values():
            if member.class_name == name:
                return member
    return ModuleMember(name, ())


def _used(member: Member) -> Iterator[str]:
    """The classes that a member is made of."""
    if isinstance(member, ModuleMember):
        yield member.class_name
    elif isinstance(member, RepeatMember):
        yield from _used(member.element)
    elif isinstance(member, (SequentialMember, ListMember)):
        for element in member.elements:
            yield from _used(element)


def _number(value: Attr, sizes: Sizes) -> int | None:
    if isinstance(value, Scalar):
        return _number(value.value, sizes)
    return value.substitute(sizes).constant if isinstance(value, Size) else value if isinstance(value, int) else None


def _wrapped(label: str, operations: Sequence[str]) -> Iterator[str]:
    """A row in lines short enough for a box."""
    line = f"{label}:" if label and operations else label
    for i, operation in enumerate(operations):
        text = f" {DOT} {operation}" if i else f" {operation}"
        if line and len(line) + len(text) > words.MOST_CHARACTERS:
            yield line.strip()
            line, text = "", f"{DOT} {operation}" if i else operation
        line += text
    yield line.strip()
