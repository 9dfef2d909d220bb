"""Elaborate calls: of ops, layers, modules, lists of modules and `fn`s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.bind import Given, bind, match
from tdsl.compiler.build.expr import evaluate, tensor
from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.layer_calls import call_layer, inner_path, while_training
from tdsl.compiler.build.rearrange import EINOPS, rearranged
from tdsl.compiler.build.types import bind_types, substituted
from tdsl.compiler.build.values import (
    FunctionRef,
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
from tdsl.compiler.ir import Scalar, TensorType, Value
from tdsl.compiler.ops.infer import same_shape
from tdsl.compiler.ops.op import OPS, Arg, Bound, Op
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
        bound = replace(bound, inputs=(bound.inputs[0], while_training(bound.inputs[1], span, frame)))
    if op.name == "attention":
        grouped = not same_shape(bound.type(0).shape[1:2], bound.type(1).shape[1:2])
        bound = replace(bound, attrs={**bound.attrs, "grouped": grouped})
    if "device" in bound.attrs:
        bound = replace(bound, attrs={**bound.attrs, "device": frame.builder.device()})
    outputs = frame.builder.add(bound, op.infer(bound), origin=frame.origin)
    return outputs[0] if len(outputs) == 1 else outputs


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
        return call_layer(instance, values[0], span, frame)
    if isinstance(instance, ListInstance):
        return _list(instance, values[0], span, frame)
    return _module(instance, values, span, frame)


def _module(instance: ModuleInstance, values: list[Value], span: Span, frame: Frame) -> Semantic:
    binding = bind_types(instance.decl.name, instance.signature, values, span, instance.env)
    if instance.inline:
        outputs = frame.classes.inline(instance, values, binding, span, frame)
    else:
        types = tuple(substituted(t, binding) for t in instance.signature.outputs)
        bound = Bound(OPS["call_module"], tuple(values), {}, span)
        outputs = frame.builder.add(bound, types, inner_path(frame, instance.path))
    return outputs[0] if len(outputs) == 1 else outputs


def _list(instance: ListInstance, value: Value, span: Span, frame: Frame) -> Value:
    """A list is run in order: one node, emitted as a loop (`Sequential` as a call)."""
    result = _chained(instance, value.type, span, frame)
    op = OPS["call_module" if instance.sequential else "call_list"]
    return frame.builder.add(Bound(op, (value,), {}, span), (result,), inner_path(frame, instance.path))[0]


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
