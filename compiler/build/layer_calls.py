"""Elaborate calls of built-in layers."""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.build.bind import attribute
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import Infer, LayerInstance, Semantic
from tdsl.compiler.ir import Attr, Operand, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import known
from tdsl.compiler.ops.op import OPS, Arg, Bound
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import ProgramError, Span, fail


def call_layer(instance: LayerInstance, value: Value, span: Span, frame: Frame) -> Value:
    """A layer's call is the call of its op, with the layer's parameters."""
    _infer_sizes(instance, value.type, span)
    record = instance.layer
    op = OPS[record.op]
    operands: list[Operand] = [value]
    for name in record.params:
        found = layer_parameter(instance, name, span, frame, optional=True)
        operands.append(Scalar(None) if found is None else found)
    attrs: dict[str, Attr] = {}
    extra = record.attrs(instance.args) if record.attrs else {}
    for arg in op.signature:
        if not arg.is_operand:
            attrs[arg.name] = extra[arg.name] if arg.name in extra else _known(instance.args.get(arg.name, arg.default))
    if op.name == "dropout":
        p = instance.args["p"]
        rate = p if isinstance(p, Scalar) else Scalar(p)  # type: ignore[arg-type]
        operands.append(while_training(rate, span, frame))
    bound = Bound(op, tuple(operands), attrs, span)
    layer = inner_path(frame, instance.path)
    try:
        return frame.builder.add(bound, op.infer(bound), layer, frame.origin)[0]
    except ProgramError as error:
        shown = error.diagnostic.message.replace(f"`{op.name}`", f"`{instance.path or record.name}`")
        raise ProgramError(replace(error.diagnostic, message=shown)) from None


def _known(attr: Attr | Infer) -> Attr:
    assert not isinstance(attr, Infer), "sizes are inferred before the call is recorded"
    return attr


def _infer_sizes(instance: LayerInstance, type: TensorType, span: Span) -> None:
    waiting = [name for name, value in instance.args.items() if isinstance(value, Infer)]
    rule = instance.layer.infer
    for name in waiting:
        if rule is None or rule[0] != name:
            fail("E202", f"argument `{name}` of `{instance.layer.name}` can't be inferred", span)
        index = rule[1]
        if not -len(type.shape) <= index < len(type.shape):
            fail("E203", f"`{instance.layer.name}` can't take `{name}` from this input", span, str(type))
        size = type.shape[index]
        if any(not symbol.param for symbol in size.symbols()):
            fail("E208", f"`{name}` of `{instance.layer.name}` is only known when it runs", span, str(type))
        instance.args[name] = size if size.constant is None else size.constant


def layer_parameter(
    instance: LayerInstance, name: str, span: Span, frame: Frame, optional: bool = False
) -> Value | None:
    """A parameter of a layer as a value of the graph."""
    make = instance.layer.params.get(name)
    if make is None:
        fail("E201", f"`{instance.layer.name}` has no parameter `{name}`", span)
    if any(isinstance(v, Infer) for v in instance.args.values()):
        fail("E208", f"`{name}` is not known before the layer is called", span)
    shape = make(instance.args)
    if shape is None:
        if optional:
            return None
        fail("E201", f"this `{instance.layer.name}` has no `{name}`", span)
    if name in instance.tied:
        return instance.tied[name]
    if any((known(s) or 0) < 0 for s in shape):
        sizes = ", ".join(map(str, shape))
        fail("E203", f"`{instance.layer.name}` of a negative size", span, f"its {name} would be [{sizes}]")
    return frame.builder.parameter(inner_path(frame, f"{instance.path}.{name}"), TensorType("float", shape))


def infer_attribute(what: str, arg: Arg, value: Semantic, span: Span) -> Attr | Infer:
    """A constructor's argument; `_` waits for the first call."""
    if isinstance(value, Infer):
        return value
    return attribute(what, arg, value, span)


def inner_path(frame: Frame, path: str) -> str:
    return f"{frame.path}.{path}" if frame.path else path


def while_training(p: Operand, span: Span, frame: Frame) -> Scalar:
    """A rate of dropout holds in training alone."""
    if not isinstance(p, Scalar) or isinstance(p.value, (bool, Size)):
        fail("E202", "the rate of dropout is a number", span)
    if p.value is not None and not 0 <= p.value <= 1:
        fail("E202", "the rate of dropout is between 0 and 1", span, f"this is {p.value}")
    owner = frame.builder.owner.rstrip(".") or "model"
    return Scalar(None, f"{p.text or repr(p.value)} if {owner}.training else 0.0")
