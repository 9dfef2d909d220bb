"""What a model consists of: parameters by name, shape and count, and the memory that training takes. Without torch."""

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
    RunIR,
    SequentialMember,
    TensorMember,
    Unit,
)
from tdsl.compiler.ir import Attr, Graph, Scalar, Shape, Value
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import ProgramError

# Tensors of a parameter's size that an optimizer keeps beside it.
STATES = {
    "SGD": 0,
    "Adam": 2,
    "AdamW": 2,
    "RMSprop": 1,
    "Adagrad": 1,
    "Adadelta": 2,
    "Adamax": 2,
    "NAdam": 2,
    "RAdam": 2,
    "Lion": 1,
    "Muon": 1,
}
Sizes = Mapping[Symbol, int]


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter by its `state_dict` path; `dims` is its shape as the program has it, `2 * dim` for 256.

    A `statistic` is what a layer keeps beside its parameters, such as a running mean.
    """

    path: str
    shape: tuple[int, ...]
    trainable: bool = True
    dims: tuple[str, ...] = ()
    statistic: bool = False

    @property
    def count(self) -> int:
        return prod(self.shape)


def parameters(unit: Unit, member: ModuleMember) -> list[ParameterInfo]:
    """The parameters of a model, and its buffers, those that are shared once."""
    return [each for each in states(unit, member) if not each.statistic]


def states(unit: Unit, member: ModuleMember) -> list[ParameterInfo]:
    """All that the model's `state_dict` has, what is shared once."""
    return list(_module(unit, member, "", {}))


def _module(unit: Unit, member: ModuleMember, path: str, sizes: Sizes) -> Iterator[ParameterInfo]:
    ir = next(m for m in unit.modules if m.class_name == member.class_name)
    inner = bound(ir, member, sizes)
    shared = {name for name, _ in ir.ties}
    for name, each in ir.members.items():
        for found in _member(unit, each, name, inner):
            if found.path not in shared:
                yield replace(found, path=f"{path}{found.path}")


def bound(ir: ModuleIR, member: ModuleMember, sizes: Sizes) -> dict[Symbol, int]:
    """A module's integer parameters for the arguments of one instance."""
    names = [p.name for p in ir.params]
    found: dict[Symbol, int] = {}
    for param in ir.params:
        if isinstance(param.default, int) and not param.required:
            found[Symbol(param.name, param=True)] = param.default
    for i, (name, value) in enumerate(member.args):
        number = _number(value, sizes)
        if number is not None:
            found[Symbol(name or names[i], param=True)] = number
    return found


def _number(value: Attr, sizes: Sizes) -> int | None:
    if isinstance(value, Scalar):
        return _number(value.value, sizes)
    if isinstance(value, Size):
        return value.substitute(sizes).constant
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _member(unit: Unit, member: Member, path: str, sizes: Sizes) -> Iterator[ParameterInfo]:
    if isinstance(member, TensorMember):
        yield _parameter(path, member.shape, member.shape, sizes, member.trainable)
    elif isinstance(member, LayerMember):
        yield from _layer(member, path, sizes)
    elif isinstance(member, ModuleMember):
        yield from _module(unit, member, f"{path}.", sizes)
    elif isinstance(member, (SequentialMember, ListMember)):
        for i, element in enumerate(member.elements):
            yield from _member(unit, element, f"{path}.{i}", sizes)
    elif isinstance(member, RepeatMember):
        for i in range(_number(member.count, sizes) or 0):
            inner = {**sizes, Symbol(member.variable, param=True): i}
            yield from _member(unit, member.element, f"{path}.{i}", inner)


def _layer(member: LayerMember, path: str, sizes: Sizes) -> Iterator[ParameterInfo]:
    record = LAYERS[member.name]
    positional = iter(arg.name for arg in record.signature)
    given = {name or next(positional): value for name, value in member.args}
    args = {arg.name: given.get(arg.name, arg.default) for arg in record.signature}
    # A layer's parameters may be as many as an argument says.
    known = {name: number if (number := _number(value, sizes)) is not None else value for name, value in args.items()}
    named = _named(record, args)
    for name, shape in record.all_shapes(known):
        yield _parameter(f"{path}.{name}", shape, named.get(name, shape), sizes)
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
    numbers = tuple(_number(s, sizes) or 0 for s in shape)
    return ParameterInfo(path, numbers, trainable, tuple(map(str, named)))


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes at its batch size; `activations` is what the forward keeps, an upper bound."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


def memory(unit: Unit, run: RunIR) -> Memory:
    """The memory of a run: parameters in float32, activations in its precision."""
    found = [p for member in run.models.values() for p in parameters(unit, member)]
    held = 4 * sum(p.count for p in found)
    trained = 4 * sum(p.count for p in found if p.trainable)
    optimizer = run.spec.optimizer
    states = STATES.get(optimizer.name, 2) + (1 if optimizer.name == "SGD" and optimizer.args.get("momentum") else 0)
    batch = run.spec.settings.get("batch_size")
    sizes = {Symbol("B"): batch if isinstance(batch, int) else 1}
    width = 4 if run.spec.settings.get("precision") in (None, "f32") else 2
    kept = _graph(_Measured(unit, width), run.loss, sizes, run.models)
    return Memory(held, trained, states * trained, kept)


@dataclass(frozen=True)
class _Measured:
    """A program, and the bytes of a `float` in its modules; losses are in float32."""

    unit: Unit
    width: int


def _graph(of: _Measured, graph: Graph, sizes: Sizes, models: Mapping[str, ModuleMember]) -> int:
    """Bytes of every value that nodes make, those of the modules called included."""
    total = 0
    for node in graph.nodes:
        if node.op.name == "call_module" and node.layer in models:
            total += _called(of, models[node.layer], node.values, sizes, {})
        else:
            total += sum(_bytes(v, sizes) for v in node.outputs)
    return total


def _called(of: _Measured, member: ModuleMember, values: Sequence[Value], sizes: Sizes, outer: Sizes) -> int:
    """What a module keeps for inputs of these sizes."""
    ir = next(m for m in of.unit.modules if m.class_name == member.class_name)
    inner = bound(ir, member, {**sizes, **outer})
    run = _matched(ir, values, {**sizes, **outer})
    total = 0
    for node in ir.graph.nodes:
        total += _node(of, ir, node.layer, node.values, node.outputs, {**run, **inner})
    return total


def _node(
    of: _Measured, ir: ModuleIR, layer: str, inputs: Sequence[Value], outputs: Sequence[Value], sizes: Sizes
) -> int:
    member = ir.members.get(layer)
    if isinstance(member, ModuleMember):
        return _called(of, member, inputs, sizes, {})
    if isinstance(member, RepeatMember) and isinstance(member.element, ModuleMember):
        return (_number(member.count, sizes) or 0) * _called(of, member.element, inputs, sizes, {})
    return sum(_bytes(v, sizes, of.width) for v in outputs)


def _matched(ir: ModuleIR, values: Sequence[Value], sizes: Sizes) -> dict[Symbol, int]:
    """The run-time sizes of a module's inputs, aligned from the right where it takes any leading dimensions."""
    found: dict[Symbol, int] = {}
    for formal, actual in zip(ir.graph.inputs, values):
        shape = [s.substitute(sizes).constant or 1 for s in actual.type.shape]
        lead = len(shape) - len(formal.type.shape) + 1
        if formal.type.shape and str(formal.type.shape[0]) == "...":
            shape = [prod(shape[:lead]), *shape[lead:]]
        for size, number in zip(formal.type.shape, shape):
            symbols = size.symbols()
            if len(symbols) == 1 and size == Size.of(next(iter(symbols))):
                found.setdefault(next(iter(symbols)), number)
    return found


_WIDTH = {"f64": 8, "i64": 8, "f16": 2, "bf16": 2, "i16": 2, "i8": 1, "u8": 1, "bool": 1}


def _bytes(value: Value, sizes: Sizes, width: int = 4) -> int:
    """`width` is that of the run's `float`."""
    numbers = [s.substitute(sizes).constant for s in value.type.shape]
    return _WIDTH.get(value.type.dtype, width if value.type.dtype == "float" else 4) * prod(
        n if n is not None else 1 for n in numbers
    )
