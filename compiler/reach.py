"""Where values come from and how far gradients go, across the boundaries of modules: what lints ask of a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    RunIR,
    SequentialMember,
    Unit,
)
from tdsl.compiler.inspect import parameters
from tdsl.compiler.ir import Graph, Node, Value
from tdsl.compiler.ops.op import OPS, Kind, Op
from tdsl.compiler.patterns import is_frozen
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span

CALLS = ("call_module", "call_list")
# Ops that hand their first operand on, as far as its meaning goes.
SAME = frozenset(["identity", "detach", "cast", "to_float", "contiguous", "clamp", "requires_grad"])
# What a member may be: the records of `unit.py`, and whatever else a program can call.
Members = Mapping[str, object]
# The inputs of a call that a gradient reaches, by number (None: all), and the paths of parameters.
Reached = tuple[set[int] | None, set[str]]


@dataclass(frozen=True)
class Scope:
    """A graph, and what the paths of its calls stand for."""

    graph: Graph
    members: Members


@dataclass(frozen=True)
class Made:
    """The op that a value comes from, and where that stands."""

    op: Op
    span: Span | None


def scopes(unit: Unit) -> Iterator[Scope]:
    """Every graph of a program."""
    for module in unit.modules:
        yield Scope(module.graph, module.members)
    for run in unit.runs.values():
        yield Scope(run.loss, run.models)


def module_of(unit: Unit, member: ModuleMember) -> ModuleIR | None:
    return next((each for each in unit.modules if each.class_name == member.class_name), None)


def member_at(members: Members, path: str) -> object:
    """What a call's path leads to: `blocks.0` to the first of a list."""
    first, *rest = path.split(".")
    found = members.get(first)
    for part in rest:
        found = element_of(found, part)
    return found


def element_of(member: object, part: str) -> object:
    """An element of a list of modules, by its number."""
    if isinstance(member, RepeatMember):
        return member.element
    elements = member.elements if isinstance(member, (SequentialMember, ListMember)) else ()
    return elements[int(part)] if part.isdigit() and int(part) < len(elements) else None


# Where a value comes from --------------------------------------------------------------------------------------------


def maker(scope: Scope, value: Value, unit: Unit) -> Made | None:
    """The op that gives a value its range; views, casts and the ends of modules are looked through."""
    node = _producer(scope.graph, value)
    if node is None or node.regions:
        return None
    if node.op.name in CALLS:
        return _within(member_at(scope.members, node.layer), node.outputs.index(value), node, unit)
    if (node.op.kind is Kind.VIEW or node.op.name in SAME) and node.values:
        return maker(scope, node.values[0], unit)
    return Made(node.op, node.span)


def _within(member: object, output: int, node: Node, unit: Unit) -> Made | None:
    """What the result of a call comes from: the last element of a list, the last op of a module."""
    if isinstance(member, LayerMember):
        record = LAYERS.get(member.name)
        return Made(OPS[record.op], node.span) if record is not None and record.op in OPS else None
    if isinstance(member, ModuleMember):
        module = module_of(unit, member)
        if module is None or output >= len(module.graph.outputs):
            return None
        return maker(Scope(module.graph, module.members), module.graph.outputs[output], unit)
    if isinstance(member, RepeatMember):
        return _within(member.element, 0, node, unit)
    if isinstance(member, (SequentialMember, ListMember)) and member.elements:
        return _within(member.elements[-1], 0, node, unit)
    return None


def source_of(graph: Graph, value: Value) -> str | None:
    """The name of the input that a value is, seen through views and casts."""
    node = _producer(graph, value)
    if node is None:
        return value.name if value in graph.inputs else None
    same = node.op.kind is Kind.VIEW or node.op.name in SAME or node.op.name.startswith("to_")
    return source_of(graph, node.values[0]) if same and node.values and not node.regions else None


def _producer(graph: Graph, value: Value) -> Node | None:
    return next((node for node in graph.nodes if value in node.outputs), None)


# How far gradients go ------------------------------------------------------------------------------------------------


def unreached(unit: Unit, run: RunIR) -> Iterator[tuple[str, ast.Member | ast.ParamMember]]:
    """What of a run's models no gradient of the loss reaches: the shortest paths, each with its declaration.

    Parameters that the run freezes are left out.
    """
    reached = _Gradients(unit).of(Scope(run.loss, run.models), run.loss.outputs[:1])[1]
    for name, member in run.models.items():
        lead = "" if name == "model" else f"{name}."
        paths = [each.path for each in parameters(unit, member) if each.trainable]
        idle = {path for path in paths if not _has(reached, f"{name}.{path}")}
        idle -= {path for path in idle if is_frozen(f"{lead}{path}", run)}
        for path in _shortest(idle, paths):
            found = _declaration(unit, member, path)
            if found is not None:
                yield f"{lead}{path}", found


def classes(unit: Unit, run: RunIR) -> set[str]:
    """The classes of all modules of a run's models."""
    return {each.class_name for each in unit.within(*run.models.values()) if isinstance(each, ModuleMember)}


def has_foreign(unit: Unit, run: RunIR) -> bool:
    """Whether a class of Python's is among the modules of a run: nobody knows here what it has, or does."""
    made = classes(unit, run)
    return any(isinstance(each.source, ast.ExternModule) and each.class_name in made for each in unit.modules)


def may_idle(unit: Unit, run: RunIR) -> bool:
    """Whether there may be parameters that no gradient of the loss reaches: what Python makes can't be seen."""
    return has_foreign(unit, run) or next(unreached(unit, run), None) is not None


def _has(reached: set[str], path: str) -> bool:
    return path in reached or any("*" in each and fnmatchcase(path, each) for each in reached)


def _shortest(idle: set[str], paths: Sequence[str]) -> list[str]:
    """The shortest paths below which all is idle."""
    found: list[str] = []
    for path in sorted(idle):
        parts = path.split(".")
        for n in range(1, len(parts) + 1):
            prefix = ".".join(parts[:n])
            below = [each for each in paths if each == prefix or each.startswith(f"{prefix}.")]
            if all(each in idle for each in below):
                found += [prefix] if prefix not in found else []
                break
    return found


def _declaration(unit: Unit, member: ModuleMember, path: str) -> ast.Member | ast.ParamMember | None:
    """The member of a module that a path ends in."""
    module = module_of(unit, member)
    first, *rest = path.split(".")
    if module is None or isinstance(module.source, ast.ExternModule):
        return None
    declared = next((each for each in module.source.members if each.name == first), None)
    found: object = module.members.get(first)
    while rest and not isinstance(found, ModuleMember):
        found = element_of(found, rest.pop(0))
    inner = _declaration(unit, found, ".".join(rest)) if rest and isinstance(found, ModuleMember) else None
    return inner or declared


class _Gradients:
    """The parameters that gradients reach, a module's once for each set of its results that carry one."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.known: dict[tuple[str, tuple[int, ...]], Reached] = {}

    def of(self, scope: Scope, results: Sequence[Value]) -> tuple[set[Value], set[str]]:
        """The values that a gradient of `results` reaches, and the paths of parameters, `*` standing for any part."""
        live = set(results)
        paths: set[str] = set()
        for node in reversed(scope.graph.nodes):
            wanted = tuple(i for i, each in enumerate(node.outputs) if each in live and each.type.is_float)
            if not wanted or node.op.name in ("detach", "no_grad"):
                continue
            inputs: set[int] | None = None
            if node.op.name in CALLS:
                inputs, below = self.called(member_at(scope.members, node.layer), wanted)
                paths |= {f"{node.layer}.{path}" for path in below}
            for region in node.regions:
                found, below = self.of(Scope(region, scope.members), [region.outputs[i] for i in wanted])
                paths |= below
                live |= found
            live |= {v for i, v in enumerate(node.inputs) if isinstance(v, Value) and (inputs is None or i in inputs)}
        return live, paths | {each.path for each in scope.graph.params if each.value in live}

    def called(self, member: object, wanted: tuple[int, ...]) -> Reached:
        """The inputs (None: all) and the parameters of a call that a gradient reaches."""
        if isinstance(member, ModuleMember):
            module = module_of(self.unit, member)
            if module is None or isinstance(module.source, ast.ExternModule):
                return None, {"*"}
            return self.module(module, wanted)
        if isinstance(member, RepeatMember):
            return None, {f"*.{path}" for path in self.called(member.element, (0,))[1]}
        if not isinstance(member, (SequentialMember, ListMember)):
            return None, {"*"}
        below = [self.called(each, (0,))[1] for each in member.elements]
        return None, {f"{i}.{path}" for i, paths in enumerate(below) for path in paths}

    def module(self, module: ModuleIR, wanted: tuple[int, ...]) -> Reached:
        key = module.class_name, wanted
        if key not in self.known:
            outputs = [each for i, each in enumerate(module.graph.outputs) if i in wanted]
            live, paths = self.of(Scope(module.graph, module.members), outputs)
            self.known[key] = {i for i, each in enumerate(module.graph.inputs) if each in live}, paths
        return self.known[key]
