"""Which modules of a run compute their activations again in the backward: what `activation_checkpointing` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    Member,
    ModuleMember,
    RepeatMember,
    RunIR,
    SequentialMember,
    Unit,
)
from tdsl.compiler.inspect import Sizes, bound, number
from tdsl.compiler.ir import Graph
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.patterns import place
from tdsl.compiler.reach import CALLS, has_foreign
from tdsl.compiler.size import Symbol
from tdsl.dsl.diagnostics import Diagnostic, Span
from tdsl.dsl.names import nearest

SETTING = "activation_checkpointing"


@dataclass(frozen=True)
class Module:
    """A module of a run's models: its name, with its model's in front, the modules in it, and whether it is called.

    A module that is computed where it stands, as a norm written out, and a list are not; nor is what a kernel computes.
    """

    name: str
    is_called: bool
    is_list: bool = False
    below: tuple[Module, ...] = ()

    @property
    def told(self) -> str:
        """As patterns know it."""
        return self.name.removeprefix("model.")

    def walk(self) -> Iterator[Module]:
        yield self
        for each in self.below:
            yield from each.walk()


def recomputed(unit: Unit, run: RunIR) -> frozenset[str]:
    """The names of the modules that keep their inputs alone, each with its model's name in front: `model.blocks.0`."""
    patterns = patterns_of(run)
    models = _models(unit, run) if patterns else ()
    return frozenset(each.name for model in models for each in _outermost(model.below, patterns) if each.is_called)


def unmatched(unit: Unit, run: RunIR) -> Iterator[Diagnostic]:
    """An error for each pattern that names no module that is called."""
    patterns = patterns_of(run)
    if not patterns:
        return
    models = _models(unit, run)
    modules = [each for model in models for below in model.below for each in below.walk()]
    for pattern in patterns:
        found = [each for each in modules if fnmatchcase(each.told, pattern)]
        if not found and not has_foreign(unit, run):
            yield _unknown(pattern, modules, run.spec.span)
        elif found and not any(each.is_called for model in models for each in _outermost(model.below, (pattern,))):
            message = f'what "{pattern}" names is computed within the module around it'
            help = "name a module that a `forward` calls and that computes more than one kernel can"
            yield Diagnostic("E336", message, place(run.spec.span, SETTING, pattern), help=help)


def names(unit: Unit, run: RunIR) -> list[str]:
    """The names of all modules of a run, as patterns know them."""
    return [each.told for model in _models(unit, run) for below in model.below for each in below.walk()]


def patterns_of(run: RunIR) -> tuple[str, ...]:
    found = run.spec.settings.get(SETTING)
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, tuple) else ()


def _outermost(modules: Sequence[Module], patterns: tuple[str, ...]) -> Iterator[Module]:
    """The modules that a pattern matches, without those within them; of a list each of its own."""
    for each in modules:
        if not any(fnmatchcase(each.told, pattern) for pattern in patterns):
            yield from _outermost(each.below, patterns)
        elif each.is_list:
            yield from _outermost(each.below, ("*",))
        else:
            yield each


def _unknown(pattern: str, modules: Sequence[Module], span: Span) -> Diagnostic:
    names = [name for each in modules for name in ((each.told, f"{each.told}.*") if each.below else (each.told,))]
    found = nearest(pattern, names)
    shown = [each.told for each in modules if "." not in each.told]
    listed = f"the modules are {', '.join(shown)}" if shown else "the model has no modules in it"
    help = f'did you mean "{found}"?' if found else listed
    return Diagnostic("E336", f'"{pattern}" matches no module', place(span, SETTING, pattern), help=help)


# The modules of a run -----------------------------------------------------------------------------------------------


def _models(unit: Unit, run: RunIR) -> tuple[Module, ...]:
    tree = _Tree(unit)
    return tuple(tree.below(dict(run.models), _calls(run.loss), "", {}))


def _calls(graph: Graph) -> set[str]:
    """The paths of what a graph calls as a module; what is fused into kernels is not yet known."""
    nodes = (node for node in graph.walk() if node.layer)
    return {node.layer for node in nodes if node.op.name in CALLS or node.op.kind is Kind.LIBRARY}


def _within(name: str, calls: set[str]) -> set[str]:
    """The paths below a name, without it."""
    return {path.removeprefix(f"{name}.") for path in calls if path.startswith(f"{name}.")}


class _Tree:
    """The modules of a program as `named_modules` has them."""

    def __init__(self, unit: Unit) -> None:
        self.classes = {each.class_name: each for each in unit.modules}

    def below(self, members: Mapping[str, Member], calls: set[str], lead: str, sizes: Sizes) -> Iterator[Module]:
        """The modules among members, of which `calls` are called."""
        for name, member in members.items():
            yield from self._module(member, f"{lead}{name}", name in calls, _within(name, calls), sizes)

    def _module(self, member: Member, name: str, called: bool, calls: set[str], sizes: Sizes) -> Iterator[Module]:
        if isinstance(member, LayerMember):
            yield Module(name, called)
        elif isinstance(member, ModuleMember):
            ir = self.classes[member.class_name]
            inner = bound(ir, member, sizes)
            below = self.below(ir.members, calls | _calls(ir.graph), f"{name}.", inner)
            yield Module(name, called, below=tuple(below))
        elif isinstance(member, (SequentialMember, ListMember, RepeatMember)):
            elements = self._elements(member, name, called, calls, sizes)
            listed = not isinstance(member, SequentialMember)
            yield Module(name, called and not listed, listed, tuple(elements))

    def _elements(
        self,
        member: SequentialMember | ListMember | RepeatMember,
        name: str,
        called: bool,
        calls: set[str],
        sizes: Sizes,
    ) -> Iterator[Module]:
        if isinstance(member, RepeatMember):
            for i in range(number(member.count, sizes) or 0):
                inner = {**sizes, Symbol(member.variable, param=True): i}
                each = called or str(i) in calls
                yield from self._module(member.element, f"{name}.{i}", each, _within(str(i), calls), inner)
        else:
            for i, element in enumerate(member.elements):
                each = called or str(i) in calls
                yield from self._module(element, f"{name}.{i}", each, _within(str(i), calls), sizes)
