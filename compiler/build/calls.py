"""Elaborate calls: of ops, layers, modules, lists of modules and `fn`s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.bind import Given, attribute, bind, match
from tdsl.compiler.build.expr import evaluate, tensor
from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.rearrange import EINOPS, rearranged
from tdsl.compiler.build.types import bind_types, substituted
from tdsl.compiler.build.values import (
    FunctionRef,
    Infer,
    Instance,
    LayerInstance,
    LayerRef,
    ListInstance,
    ModuleInstance,
    ModuleRef,
    OpRef,
    Semantic,
    describe,
)
from tdsl.compiler.ir import Attr, Operand, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import known, same_shape
from tdsl.compiler.ops.op import OPS, Arg, Bound, Op
from tdsl.compiler.size import Size
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import ProgramError, Span, fail


def call(
    function: Semantic,
    args: Sequence[ast.Argument],
    span: Span,
    frame: Frame,
    first: Given | None = None,
    text: str = "",
) -> Semantic:
    """Call whatever `function` is; `first` stands before the arguments, as in `x |> f(a)`."""
    if isinstance(function, OpRef):
        if function.bound is not None:
            first = (function.bound, span)
        return _op(function.op, args, span, frame, first)
    if isinstance(function, FunctionRef):
        return _function(function.decl, args, span, frame, first)
    if isinstance(function, (LayerRef, ModuleRef)):
        if first is not None:
            fail("E201", f"{describe(function)} is a constructor, not a module that exists", span, text)
        return frame.classes.construct(function, args, span, frame)
    if isinstance(function, (LayerInstance, ModuleInstance, ListInstance)):
        return _run(function, _inputs(function, args, span, frame, first), span, frame)
    fail("E201", f"{describe(function)} cannot be called", span)


# Ops -----------------------------------------------------------------------------------------------------------------


def _op(op: Op, args: Sequence[ast.Argument], span: Span, frame: Frame, first: Given | None) -> Semantic:
    bound = bind(op, args, lambda e: evaluate(e, frame), frame.scalar, span, first)
    if op.name == "dropout":
        bound = replace(bound, inputs=(bound.inputs[0], _while_training(bound.inputs[1], span, frame)))
    if op.name == "attention":
        grouped = not same_shape(bound.type(0).shape[1:2], bound.type(1).shape[1:2])
        bound = replace(bound, attrs={**bound.attrs, "grouped": grouped})
    if op.name == "tensor" and frame.builder.inputs:
        device = Scalar(None, f"{frame.builder.inputs[0].name}.device")
        bound = replace(bound, attrs={**bound.attrs, "device": device})
    outputs = frame.builder.add(bound, op.infer(bound), origin=frame.origin)
    return outputs[0] if len(outputs) == 1 else outputs


def _while_training(p: Operand, span: Span, frame: Frame) -> Scalar:
    """A rate of dropout holds in training alone."""
    if not isinstance(p, Scalar) or isinstance(p.value, (bool, Size)):
        fail("E202", "the rate of dropout is a number", span)
    if p.value is not None and not 0 <= p.value <= 1:
        fail("E202", "the rate of dropout is between 0 and 1", span, f"this is {p.value}")
    owner = frame.builder.owner.rstrip(".") or "model"
    return Scalar(None, f"{p.text or repr(p.value)} if {owner}.training else 0.0")


def special(expr: ast.Call, frame: Frame) -> Semantic | None:
    """Built-ins that are no ops: `size(x, i)`, and those that a pattern string resolves."""
    assert isinstance(expr.function, ast.Name)
    name = expr.function.id
    if name == "size":
        return _size(expr, frame)
    if name in EINOPS:
        return rearranged(name, expr, frame)
    return None


def _size(expr: ast.Call, frame: Frame) -> Semantic:
    if len(expr.args) != 2:
        fail("E202", "`size` takes a tensor and a dimension", expr.span)
    x = tensor(expr.args[0].value, frame)
    at = evaluate(expr.args[1].value, frame)
    index = arithmetic.number(at) if isinstance(at, Scalar) else None
    rank = len(x.type.shape)
    if not isinstance(index, int) or not -rank <= index < rank:
        fail("E204", f"`size` has no dimension {index}", expr.args[1].span, f"{x.type} has {rank} dimensions")
    size = x.type.shape[index]
    return Scalar(size if size.constant is None else size.constant)


# Functions and modules -----------------------------------------------------------------------------------------------


def _function(
    decl: ast.Function, args: Sequence[ast.Argument], span: Span, frame: Frame, first: Given | None
) -> Semantic:
    """A `fn` is inlined where it is called."""
    signature = tuple(Arg(i.name, "tensor") for i in decl.inputs)
    found = match(decl.name, signature, args, lambda e: evaluate(e, frame), span, first)
    values = _tensors(decl.name, found)
    formal = frame.classes.function_signature(decl)
    binding = bind_types(decl.name, formal, values, span)
    names: dict[str, Semantic] = {**frame.classes.sizes(binding), **dict(zip((i.name for i in decl.inputs), values))}
    with frame.classes.entering(decl.name, span):
        outputs = frame.classes.body(decl, frame.inner(names, frame.path, decl.name), formal, binding)
    return outputs[0] if len(outputs) == 1 else outputs


def _tensors(what: str, found: dict[str, Given]) -> list[Value]:
    for name, (value, at) in found.items():
        if not isinstance(value, Value):
            fail("E202", f"argument `{name}` of `{what}` is a tensor", at, f"this is {describe(value)}")
    return [value for value, _ in found.values() if isinstance(value, Value)]


def _inputs(
    instance: Instance, args: Sequence[ast.Argument], span: Span, frame: Frame, first: Given | None
) -> list[Value]:
    """The tensors that a call of a module gives."""
    formal = instance.signature.inputs if isinstance(instance, ModuleInstance) else (("input", None),)
    names = [name for name, _ in formal]
    what = instance.path or "module"
    found = match(what, tuple(Arg(n, "tensor") for n in names), args, lambda e: evaluate(e, frame), span, first)
    ordered = {name: found[name] for name in names}
    return _tensors(what, ordered)


def _run(instance: Instance, values: list[Value], span: Span, frame: Frame) -> Semantic:
    if isinstance(instance, LayerInstance):
        return _layer(instance, values[0], span, frame)
    if isinstance(instance, ListInstance):
        return _list(instance, values[0], span, frame)
    return _module(instance, values, span, frame)


def _path(frame: Frame, path: str) -> str:
    return f"{frame.path}.{path}" if frame.path else path


def _module(instance: ModuleInstance, values: list[Value], span: Span, frame: Frame) -> Semantic:
    binding = bind_types(instance.decl.name, instance.signature, values, span, instance.env)
    if instance.inline:
        outputs = frame.classes.inline(instance, values, binding, span, frame)
    else:
        types = tuple(substituted(t, binding) for t in instance.signature.outputs)
        bound = Bound(OPS["call_module"], tuple(values), {}, span)
        outputs = frame.builder.add(bound, types, _path(frame, instance.path))
    return outputs[0] if len(outputs) == 1 else outputs


def _list(instance: ListInstance, value: Value, span: Span, frame: Frame) -> Value:
    """A list is run in order: one node, emitted as a loop (`Sequential` as a call)."""
    result = _chained(instance, value.type, span, frame)
    op = OPS["call_module" if instance.sequential else "call_list"]
    return frame.builder.add(Bound(op, (value,), {}, span), (result,), _path(frame, instance.path))[0]


def _chained(instance: ListInstance, type: TensorType, span: Span, frame: Frame) -> TensorType:
    """The type that comes out of a list of modules, each checked on what the one before yields."""
    scratch = GraphBuilder("chain", frame.builder.owner, list(frame.builder.inputs))
    inner = replace_builder(frame, scratch)
    for i, element in enumerate(instance.elements):
        try:
            found = _run(element, [Value(type, "x")], span, inner)
        except ProgramError as error:
            note = f"in element {i} of `{instance.path}`, which is given {type}"
            diagnostic = replace(error.diagnostic, notes=(*error.diagnostic.notes, note))
            raise ProgramError(diagnostic) from None
        if not isinstance(found, Value):
            fail("E201", f"element {i} of `{instance.path}` yields several values", span)
        type = found.type
    return type


def replace_builder(frame: Frame, builder: GraphBuilder) -> Frame:
    return Frame(frame.classes, builder, dict(frame.names), frame.path, frame.origin)


# Layers --------------------------------------------------------------------------------------------------------------


def _layer(instance: LayerInstance, value: Value, span: Span, frame: Frame) -> Value:
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
        operands.append(_while_training(rate, span, frame))
    bound = Bound(op, tuple(operands), attrs, span)
    layer = _path(frame, instance.path)
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
    return frame.builder.parameter(_path(frame, f"{instance.path}.{name}"), TensorType("float", shape))


def infer_attribute(what: str, arg: Arg, value: Semantic, span: Span) -> Attr | Infer:
    """A constructor's argument; `_` waits for the first call."""
    if isinstance(value, Infer):
        return value
    return attribute(what, arg, value, span)
