"""Elaborate calls of built-in layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from tdsl.compiler.build.bind import Given, attribute
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.values import Infer, LayerInstance, Semantic, describe, is_none
from tdsl.compiler.ir import Attr, Operand, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.infer import known, same, same_shape
from tdsl.compiler.ops.op import OPS, Arg, Bound, Op
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import ProgramError, Span, fail

# The operand or attribute of an op that is a rate of dropout.
RATES = dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), "p") | {"attention": "dropout_p"}


def call_layer(instance: LayerInstance, given: Mapping[str, Given], span: Span, frame: Frame) -> Semantic:
    """A layer's call is the call of its op, with the layer's parameters."""
    record = instance.layer
    shown = instance.path or record.name
    operands, options = _inputs(instance, given, span)
    _infer_sizes(instance, operands, span)
    check_arguments(instance, span)
    bound = with_rate(_bound(instance, operands, options, span, frame), span, frame)
    try:
        types = bound.op.infer(bound)
        _agree(instance, operands, span)
    except ProgramError as error:
        message = error.diagnostic.message.replace(f"`{bound.op.name}`", f"`{shown}`")
        notes = (*error.diagnostic.notes, *frame.declared(instance, instance.path))
        help = error.diagnostic.help or (_cure(instance, operands) if error.diagnostic.code == "E203" else None)
        raise ProgramError(replace(error.diagnostic, message=message, notes=notes, help=help)) from None
    outputs = frame.builder.add(bound, types, inner_path(frame, instance.path), frame.origin)
    return _results(instance, outputs, options, frame)


def _cure(instance: LayerInstance, operands: Mapping[str, Operand]) -> str | None:
    """How a layer made for another shape fits what it is given: `_`, where its first argument is a size of that."""
    read = next(iter(operands.values()), None)
    given = read.type.shape if isinstance(read, Value) else ()
    if (numbered := re.fullmatch(r"(\w+)([123])d", instance.layer.name)) and len(given) not in _ranks(
        *numbered.groups()
    ):
        other = f"{numbered[1]}{len(given) - 2}d"
        return f"`{other}` is of tensors of {len(given)} dimensions" if other in LAYERS else None
    if instance.layer.name == "Linear" and (help := _flattened(instance, given)):
        return help
    first = instance.layer.signature[0].name if instance.layer.signature else ""
    if first not in instance.layer.infer:
        return None
    return f"`{instance.layer.name}(_, ...)` takes `{first}` from what it is given"


def _ranks(family: str, dims: str) -> tuple[int, ...]:
    """How many dimensions the input of `Conv2d` and the like may have."""
    return {"BatchNorm1": (2, 3), "BatchNorm2": (4,), "BatchNorm3": (5,)}.get(
        family + dims, (int(dims) + 1, int(dims) + 2)
    )


def _flattened(instance: LayerInstance, given: Sequence[Size]) -> str | None:
    """That what a convolution yields is flattened before a linear layer."""
    if len(given) < 3:
        return None
    rows = prod(given[1:], start=Size.of(1))
    wanted = instance.args.get("in_features")
    if isinstance(wanted, (int, Size)) and same(rows, Size.of(wanted)):
        return f"write `flatten(1)` before it: that makes the {rows} numbers a row that it reads"
    return f"write `flatten(1)` before it: that makes {rows} numbers a row" if len(given) == 4 else None


def _results(
    instance: LayerInstance, outputs: tuple[Value, ...], options: Mapping[str, Attr], frame: Frame
) -> Semantic:
    """What the call is to the program: a tensor, or several, of which two may be the state of a layer."""
    if len(outputs) == 1:
        return outputs[0]
    if len(instance.layer.state) > 1:
        first, *state = outputs
        names = (name.replace("_0", "_n") for name in instance.layer.state)
        return first, tuple(frame.builder.rename(value, name) for value, name in zip(state, names))
    if options.get("need_weights") is False:
        return outputs[0], Scalar(None)
    return outputs


# Arguments -----------------------------------------------------------------------------------------------------------


def _inputs(
    instance: LayerInstance, given: Mapping[str, Given], span: Span
) -> tuple[dict[str, Operand], dict[str, Attr]]:
    """The operands and the attributes that the call gives."""
    record = instance.layer
    operands: dict[str, Operand] = {}
    options: dict[str, Attr] = {}
    for arg in record.inputs:
        value, at = given.get(arg.name, (Scalar(arg.default), span))
        if arg.required and arg.name not in given:
            names = ", ".join(f"`{a.name}`" for a in record.inputs if a.required)
            fail("E202", f"`{record.name}` takes {names}", span, "in a list, each module is given one tensor")
        if not arg.is_operand:
            options[arg.name] = attribute(record.name, arg, value, at)
        elif arg.name == "hx":
            operands |= zip(record.state, _state(record.name, record.state, value, at))
        else:
            operands[arg.name] = _tensor(record.name, arg, value, at)
    return operands, options


def _tensor(what: str, arg: Arg, value: Semantic, span: Span) -> Operand:
    if isinstance(value, Value):
        return value
    if is_none(value) and arg.optional:
        return Scalar(None)
    fail("E202", f"argument `{arg.name}` of `{what}` is a tensor", span, f"this is {describe(value)}")


def _state(what: str, names: tuple[str, ...], value: Semantic, span: Span) -> tuple[Operand, ...]:
    """A layer's state: one tensor, or a pair of them."""
    parts = value if isinstance(value, tuple) else (value,) * (len(names) if is_none(value) else 1)
    if len(parts) != len(names) or not (is_none(value) or all(isinstance(p, Value) for p in parts)):
        wanted = f"({', '.join(names)})" if len(names) > 1 else "a tensor"
        fail("E202", f"the state of `{what}` is {wanted}", span, f"this is {describe(value)}")
    return tuple(p if isinstance(p, Value) else Scalar(None) for p in parts)


def _bound(
    instance: LayerInstance, operands: Mapping[str, Operand], options: Mapping[str, Attr], span: Span, frame: Frame
) -> Bound:
    """The call of the op: operands are inputs and parameters of the same names."""
    record = instance.layer
    op = OPS[record.op]
    shapes = record.shapes(instance.args)
    found: list[Operand] = []
    for arg in op.signature:
        if arg.kind == "tensors":
            every = record.all_shapes(instance.args)
            found += [_parameter(instance, name, shape, span, frame) for name, shape in every]
        elif arg.name in operands:
            found.append(operands[arg.name])
        elif arg.is_operand and arg.name in shapes:
            found.append(_parameter(instance, arg.name, shapes[arg.name], span, frame))
        elif arg.is_operand:
            # A tensor that is none of the layer's parameters was left out: `bias=false` is no number.
            value = instance.args.get(arg.name, arg.default) if arg.kind == "operand" else None
            found.append(value if isinstance(value, Scalar) else Scalar(value))
    return Bound(op, tuple(found), _attributes(instance, op, options), span)


def _attributes(instance: LayerInstance, op: Op, options: Mapping[str, Attr]) -> dict[str, Attr]:
    extra = instance.layer.attrs(instance.args) if instance.layer.attrs else {}
    given: dict[str, Attr | Infer] = {**instance.args, **extra, **options}
    return {arg.name: _known(given.get(arg.name, arg.default)) for arg in op.signature if not arg.is_operand}


def _known(attr: Attr | Infer) -> Attr:
    assert not isinstance(attr, Infer), "sizes are inferred before the call is recorded"
    return attr


def _infer_sizes(instance: LayerInstance, operands: Mapping[str, Operand], span: Span) -> None:
    waiting = [name for name, value in instance.args.items() if isinstance(value, Infer)]
    for name in waiting:
        rule = instance.layer.infer.get(name)
        if rule is None:
            fail("E202", f"argument `{name}` of `{instance.layer.name}` can't be inferred", span)
        type = _type(instance, operands, rule[0])
        if not -len(type.shape) <= rule[1] < len(type.shape):
            fail("E203", f"`{instance.layer.name}` can't take `{name}` from this input", span, str(type))
        size = type.shape[rule[1]]
        if any(not symbol.param for symbol in size.symbols()):
            fail("E208", f"`{name}` of `{instance.layer.name}` is only known when it runs", span, str(type))
        instance.args[name] = size if size.constant is None else size.constant


def _type(instance: LayerInstance, operands: Mapping[str, Operand], index: int) -> TensorType:
    """The type of the input with this number."""
    value = operands[instance.layer.inputs[index].name]
    assert isinstance(value, Value)
    return value.type


def _agree(instance: LayerInstance, operands: Mapping[str, Operand], span: Span) -> None:
    """Sizes that a layer is made for are those of what it is given, also where it has no parameter of that size."""
    for name, (index, axis) in instance.layer.infer.items():
        want = instance.args[name]
        type = _type(instance, operands, index)
        if want is None or isinstance(want, (tuple, Infer)) or not -len(type.shape) <= axis < len(type.shape):
            continue
        if not same(type.shape[axis], Size.of(want)):  # type: ignore[arg-type]
            have = f"{type} has {type.shape[axis]} there"
            fail("E203", f"`{instance.path or instance.layer.name}` is made for `{name}` = {want}", span, have)


def check_arguments(instance: LayerInstance, span: Span) -> None:
    """Refuse constructor's arguments that do not fit together; what waits for a size is looked at when it is called."""
    if instance.args.get("inplace"):
        help = "leave `inplace` out: what is fused takes no memory of its own"
        fail("E202", "a value never changes in place", span, help=help)
    if instance.layer.check is not None and not any(isinstance(v, Infer) for v in instance.args.values()):
        instance.layer.check(instance.args, span)


# Parameters ----------------------------------------------------------------------------------------------------------


def layer_member(instance: LayerInstance, name: str, span: Span, frame: Frame) -> Value | LayerInstance:
    """A parameter of a layer as a value of the graph, or a layer within it."""
    record = instance.layer
    if any(isinstance(v, Infer) for v in instance.args.values()):
        fail("E208", f"`{name}` is not known before the layer is called", span)
    if name in record.parts:
        part, args = record.parts[name]
        return LayerInstance(LAYERS[part], dict(args(instance.args)), (), f"{instance.path}.{name}")
    shapes = record.shapes(instance.args)
    if name in shapes:
        return _parameter(instance, name, shapes[name], span, frame)
    kept = record.buffers[name](instance.args) if name in record.buffers else None
    if kept is not None:
        path = inner_path(frame, f"{instance.path}.{name}")
        return frame.builder.parameter(path, TensorType("float", kept), trainable=False)
    if name in record.params or name in record.buffers:
        fail("E201", f"this `{record.name}` has no `{name}`", span)
    has = ", ".join([*shapes, *record.parts])
    help = f"it has {has}" if has else None
    fail("E201", f"`{record.name}` has no parameter `{name}`", span, help=help)


def _parameter(instance: LayerInstance, name: str, shape: Shape, span: Span, frame: Frame) -> Value:
    if name in instance.tied:
        shared = instance.tied[name]
        if not same_shape(shared.type.shape, shape):
            sizes = ", ".join(map(str, shape))
            fail("E203", f"the shared `{name}` of `{instance.layer.name}` is [{sizes}]", span, f"this is {shared.type}")
        return shared
    if any((known(s) or 0) < 0 for s in shape):
        sizes = ", ".join(map(str, shape))
        fail("E203", f"`{instance.layer.name}` of a negative size", span, f"its {name} would be [{sizes}]")
    return frame.builder.parameter(inner_path(frame, f"{instance.path}.{name}"), TensorType("float", shape))


def inner_path(frame: Frame, path: str) -> str:
    return f"{frame.path}.{path}" if frame.path else path


# Dropout -------------------------------------------------------------------------------------------------------------


def with_rate(bound: Bound, span: Span, frame: Frame) -> Bound:
    """The rate of an op that drops holds in training alone."""
    name = RATES.get(bound.op.name)
    if name is None:
        return bound
    if name in bound.attrs:
        return replace(bound, attrs={**bound.attrs, name: while_training(_number(bound.attrs[name]), span, frame)})
    index = [arg.name for arg in bound.op.signature if arg.is_operand].index(name)
    inputs = list(bound.inputs)
    inputs[index] = while_training(inputs[index], span, frame)
    return replace(bound, inputs=tuple(inputs))


def _number(attr: Attr) -> Scalar:
    return attr if isinstance(attr, Scalar) else Scalar(attr)  # type: ignore[arg-type]


def while_training(p: Operand, span: Span, frame: Frame) -> Scalar:
    """A rate of dropout holds in training alone."""
    if not isinstance(p, Scalar) or isinstance(p.value, (bool, Size)):
        fail("E202", "the rate of dropout is a number", span)
    if p.value is not None and not 0 <= p.value <= 1:
        help = "it is the share that is set to zero, such as `0.1`"
        fail("E202", "the rate of dropout is between 0 and 1", span, f"this is {p.value}", help=help)
    owner = frame.builder.owner.rstrip(".") or "model"
    return Scalar(None, f"{p.text or repr(p.value)} if {owner}.training else 0.0")
