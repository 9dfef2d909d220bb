"""The types between the elements of a `Sequential` or a list, which IR holds as one call."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    Submodule,
    Unit,
)
from tdsl.compiler.ir import Attr, Operand, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.op import OPS, Bound
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import ProgramError


def chained(unit: Unit, elements: Sequence[Submodule], type: TensorType) -> list[TensorType] | None:
    """The type that goes in and what each element yields; None where that can't be told."""
    found = [type]
    for element in elements:
        after = _after(unit, element, found[-1])
        if after is None:
            return None
        found.append(after)
    return found


def _after(unit: Unit, member: Submodule, type: TensorType) -> TensorType | None:
    if isinstance(member, LayerMember):
        return _layer(member, type)
    if isinstance(member, ModuleMember):
        return _module(unit, member, type)
    if isinstance(member, RepeatMember):
        return _after(unit, member.element, type)
    found = chained(unit, member.elements, type) if isinstance(member, (SequentialMember, ListMember)) else None
    return found[-1] if found else None


def _layer(member: LayerMember, type: TensorType) -> TensorType | None:
    """The result of a layer's op on an input of that type."""
    call = layer_call(member, Value(type))
    try:
        return call.op.infer(call)[0]
    except ProgramError:
        return None


def layer_call(member: LayerMember, given: Value) -> Bound:
    """The call of a layer's op on a tensor, with parameters of the layer's shapes."""
    record = LAYERS[member.name]
    op = OPS[record.op]
    args = _arguments(member)
    shapes = record.shapes(args)
    inputs: list[Operand] = []
    for arg in op.signature:
        if arg.is_operand and arg.name == record.inputs[0].name:
            inputs.append(given)
        elif arg.is_operand:
            inputs.append(Value(TensorType("float", shapes[arg.name])) if arg.name in shapes else Scalar(None))
    extra = record.attrs(args) if record.attrs else {}
    attrs = {a.name: {**args, **extra}.get(a.name, a.default) for a in op.signature if not a.is_operand}
    return Bound(op, tuple(inputs), attrs, None)


def _arguments(member: LayerMember) -> dict[str, Attr]:
    """All arguments of the constructor, numbers as numbers."""
    signature = LAYERS[member.name].signature
    names = iter(arg.name for arg in signature)
    given = {name or next(names): value for name, value in member.args}
    found = {arg.name: given.get(arg.name, arg.default) for arg in signature}
    return {name: value.value if isinstance(value, Scalar) else value for name, value in found.items()}


def _module(unit: Unit, member: ModuleMember, type: TensorType) -> TensorType | None:
    """What a module's `forward` yields, in the words of its caller."""
    ir = next(ir for ir in unit.modules if ir.class_name == member.class_name)
    if len(ir.graph.inputs) != 1 or len(ir.graph.outputs) != 1:
        return None
    sizes = {Symbol(p.name, param=True): Size.of(p.default) for p in ir.params if isinstance(p.default, int)}
    names = iter(param.name for param in ir.params)
    for name, value in member.args:
        value = value.value if isinstance(value, Scalar) else value
        symbol = Symbol(name or next(names), param=True)
        if isinstance(value, (int, Size)):
            sizes[symbol] = Size.of(value)
    leading = _bind(ir.graph.inputs[0].type.shape, type.shape, sizes)
    output = ir.graph.outputs[0].type
    return TensorType(output.dtype, _substituted(output.shape, leading, sizes))


def _bind(formal: Shape, actual: Sequence[Size], sizes: dict[Symbol, Size]) -> Shape:
    """Learn what a formal shape's run-time sizes are; the dimensions that `...` stands for."""
    dots = next((i for i, size in enumerate(formal) if str(size) == "..."), None)
    after = len(formal) - dots - 1 if dots is not None else 0
    pairs = list(zip(formal[:dots], actual)) + list(zip(formal[len(formal) - after :], actual[len(actual) - after :]))
    for size, given in pairs:
        symbols = size.symbols()
        if len(symbols) == 1 and size == Size.of(symbol := next(iter(symbols))):
            sizes.setdefault(symbol, given)
    return tuple(actual[dots : len(actual) - after]) if dots is not None else ()


def _substituted(shape: Shape, leading: Shape, sizes: dict[Symbol, Size]) -> Shape:
    found: list[Size] = []
    for size in shape:
        found += leading if str(size) == "..." else [size.substitute(sizes)]
    return tuple(found)
