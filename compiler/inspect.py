"""What a model consists of: parameters by name, shape and count. Without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.layers.layer import Layer
from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    TensorMember,
    Unit,
)
from tdsl.compiler.ir import Attr, Scalar, Shape
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import ProgramError

Sizes = Mapping[Symbol, int]
# Layers whose products read copies of their parameters (`runtime/mixed_precision.py`).
COPIED = frozenset(
    ["Linear", "Bilinear", "PReLU"] + [f"Conv{kind}{n}d" for kind in ("", "Transpose") for n in (1, 2, 3)]
)


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter by its `state_dict` path; `dims` is its shape as the program has it, `2 * dim` for 256.

    A `statistic` is what a layer keeps beside its parameters, such as a running mean. Of what is `copied`, runs of a
    lower precision have a copy in it. `ties` are the other paths of a parameter that is shared.
    """

    path: str
    shape: tuple[int, ...]
    trainable: bool = True
    dims: tuple[str, ...] = ()
    statistic: bool = False
    copied: bool = False
    ties: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return prod(self.shape)


def parameters(unit: Unit, member: ModuleMember) -> list[ParameterInfo]:
    """The parameters of a model, and its buffers, those that are shared once."""
    return [each for each in states(unit, member) if not each.statistic]


def states(unit: Unit, member: ModuleMember) -> list[ParameterInfo]:
    """All that the model's `state_dict` has, what is shared once."""
    return list(_Walk(unit).module(member, {}))


def bound(ir: ModuleIR, member: ModuleMember, sizes: Sizes) -> dict[Symbol, int]:
    """A module's integer parameters for the arguments of one instance."""
    names = [p.name for p in ir.params]
    found: dict[Symbol, int] = {}
    for param in ir.params:
        if isinstance(param.default, int) and not param.required:
            found[Symbol(param.name, param=True)] = param.default
    for i, (name, value) in enumerate(member.args):
        given = number(value, sizes)
        if given is not None:
            found[Symbol(name or names[i], param=True)] = given
    return found


def number(value: Attr, sizes: Sizes) -> int | None:
    """An argument as an integer; None for what is none, or is not known."""
    if isinstance(value, Scalar):
        return number(value.value, sizes)
    if isinstance(value, Size):
        return value.substitute(sizes).constant
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Walk:
    """All tensors of a model, in order; modules of the same arguments, such as a model's many blocks, are read once."""

    def __init__(self, unit: Unit) -> None:
        self.modules = {module.class_name: module for module in unit.modules}
        self.read: dict[tuple[str, frozenset[tuple[Symbol, int]]], list[ParameterInfo]] = {}

    def module(self, member: ModuleMember, sizes: Sizes) -> list[ParameterInfo]:
        """Paths are those within the module."""
        ir = self.modules[member.class_name]
        inner = bound(ir, member, sizes)
        key = (ir.class_name, frozenset(inner.items()))
        if key not in self.read:
            self.read[key] = self._tensors(ir, inner)
        return self.read[key]

    def _tensors(self, ir: ModuleIR, sizes: Sizes) -> list[ParameterInfo]:
        there = [found for name, each in ir.members.items() for found in self._member(each, name, sizes)]
        shared = dict(ir.ties)
        others: dict[str, list[ParameterInfo]] = {}
        for found in there:
            if found.path in shared:
                others.setdefault(shared[found.path], []).append(found)
        own = [found for found in there if found.path not in shared]
        return [_shared(found, others[found.path]) if found.path in others else found for found in own]

    def _member(self, member: Member, path: str, sizes: Sizes) -> Iterator[ParameterInfo]:
        if isinstance(member, TensorMember):
            yield _parameter(path, member.shape, member.shape, sizes, member.trainable)
        elif isinstance(member, LayerMember):
            yield from _layer(member, path, sizes)
        elif isinstance(member, ModuleMember):
            yield from (_within(path, found) for found in self.module(member, sizes))
        elif isinstance(member, (SequentialMember, ListMember)):
            for i, element in enumerate(member.elements):
                yield from self._member(element, f"{path}.{i}", sizes)
        elif isinstance(member, RepeatMember):
            for i in range(number(member.count, sizes) or 0):
                inner = {**sizes, Symbol(member.variable, param=True): i}
                yield from self._member(member.element, f"{path}.{i}", inner)


def _shared(first: ParameterInfo, others: Sequence[ParameterInfo]) -> ParameterInfo:
    """A parameter that has the names of others, too."""
    ties = (*first.ties, *(name for each in others for name in (each.path, *each.ties)))
    return replace(first, ties=ties, copied=first.copied or any(each.copied for each in others))


def _within(path: str, found: ParameterInfo) -> ParameterInfo:
    """A parameter of a module that is called `path`."""
    return replace(found, path=f"{path}.{found.path}", ties=tuple(f"{path}.{name}" for name in found.ties))


def _layer(member: LayerMember, path: str, sizes: Sizes) -> Iterator[ParameterInfo]:
    record = LAYERS[member.name]
    positional = iter(arg.name for arg in record.signature)
    given = {name or next(positional): value for name, value in member.args}
    args = {arg.name: given.get(arg.name, arg.default) for arg in record.signature}
    # A layer's parameters may be as many as an argument says.
    known = {name: value if (n := number(value, sizes)) is None else n for name, value in args.items()}
    named = _named(record, args)
    for name, shape in record.all_shapes(known):
        found = _parameter(f"{path}.{name}", shape, named.get(name, shape), sizes)
        yield replace(found, copied=member.name in COPIED)
    yield from _statistics(record, known, named, path, sizes)


def _statistics(
    record: Layer, args: Mapping[str, Any], named: Mapping[str, Shape], path: str, sizes: Sizes
) -> Iterator[ParameterInfo]:
    """What a layer keeps beside its parameters; with a running mean, as PyTorch has it, the number of batches."""
    for name, make in record.buffers.items():
        shape = make(args)
        if shape is not None:
            found = _parameter(f"{path}.{name}", shape, named.get(name, shape), sizes)
            yield replace(found, trainable=False, statistic=True)
    if any(make(args) is not None for make in record.buffers.values()):
        yield ParameterInfo(f"{path}.num_batches_tracked", (), trainable=False, statistic=True)


def _named(record: Layer, args: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of a layer's tensors in the program's own words; none where their number depends on an argument."""
    given = {name: value.value if isinstance(value, Scalar) else value for name, value in args.items()}
    try:
        found = dict(record.all_shapes(given))
        return found | {name: s for name, make in record.buffers.items() if (s := make(given)) is not None}
    except (TypeError, ValueError, ProgramError):
        return {}


def _parameter(path: str, shape: Shape, named: Shape, sizes: Sizes, trainable: bool = True) -> ParameterInfo:
    numbers = tuple(number(s, sizes) or 0 for s in shape)
    return ParameterInfo(path, numbers, trainable, tuple(map(str, named)))
