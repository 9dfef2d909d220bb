"""Elaborate calls: of ops, layers, modules, lists of modules and `fn`s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.bind import Given, attribute, bind, match
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.layer_calls import call_layer, inner_path, with_rate
from tdsl.compiler.build.origins import against, explained
from tdsl.compiler.build.overloads import form, need_a_tensor, once
from tdsl.compiler.build.properties import QUERIES, queried
from tdsl.compiler.build.rearrange import is_pattern, rearranged
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
    Results,
    Semantic,
    describe,
    is_none,
)
from tdsl.compiler.ir import Attr, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import same_shape
from tdsl.compiler.ops.op import OPS, Arg, Bound, Kind, Op
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
        if function.bound is not None:
            first = (function.bound, span)
        return _function(function.decl, args, span, frame, first)
    if isinstance(function, (LayerRef, ModuleRef)):
        if first is not None:
            help = f"make it as a member: `layer = {text}(...)`, and write `x |> layer`"
            fail("E201", f"{describe(function)} is a constructor, not a module that exists", span, help=help)
        return frame.classes.construct(function, args, span, frame)
    if isinstance(function, (LayerInstance, ModuleInstance, ListInstance)) and not function.path:
        _check_member(function, span)
    if isinstance(function, LayerInstance):
        what, formal = function.path or function.layer.name, function.layer.inputs
        return call_layer(function, match(what, formal, args, lambda e: evaluate(e, frame), span, first), span, frame)
    if isinstance(function, (ModuleInstance, ListInstance)):
        return _run(function, _inputs(function, args, span, frame, first), span, frame)
    help = "what comes first flows on: `x |> f`" if first is not None else "functions, layers and modules are called"
    fail("E201", f"{describe(function)} cannot be called", span, help=help)


def _check_member(made: Instance, span: Span) -> None:
    """What has parameters is a member: made in a body, it would be made anew in each call."""
    if not isinstance(made, LayerInstance) or made.layer.params or made.layer.parts:
        name = "it" if isinstance(made, ListInstance) else describe(made).removeprefix("the layer ").strip("`")
        help = f"make it where the module is declared: `layer = {name}(...)`, and call `layer(x)`"
        fail("E201", f"{describe(made)} is made in a body, where its parameters would not be kept", span, help=help)


# Ops -----------------------------------------------------------------------------------------------------------------


def _op(op: Op, args: Sequence[ast.Argument], span: Span, frame: Frame, first: Given | None) -> Semantic:
    evaluated = once(lambda e: evaluate(e, frame))
    if is_pattern(op, args, evaluated):
        return rearranged(op.name, args, evaluated, span, frame, first)
    op = form(op, args, evaluated, first)
    bound = bind(op, args, evaluated, frame.scalar, span, first)
    if op.name in QUERIES:
        return queried(bound)
    need_a_tensor(bound)
    bound = with_rate(bound, span, frame)
    if op.name == "attention":
        grouped = not same_shape(bound.type(0).shape[1:2], bound.type(1).shape[1:2])
        bound = replace(bound, attrs={**bound.attrs, "grouped": grouped})
    if "device" in bound.attrs:
        bound = replace(bound, attrs={**bound.attrs, "device": frame.builder.device()})
    with explained(frame, bound.inputs):
        types = op.infer(bound)
    if op.name == "grad":
        frame.builder.differentiate(bound.inputs[0], bound.inputs[1], span)
    outputs = frame.builder.add(bound, types, origin=frame.origin)
    return outputs[0] if len(outputs) == 1 else Results(outputs, op.results)


# Functions and modules -----------------------------------------------------------------------------------------------


def _function(
    decl: ast.Function, args: Sequence[ast.Argument], span: Span, frame: Frame, first: Given | None
) -> Semantic:
    """A `fn` is inlined where it is called; its parameters are names of the values given."""
    signature = tuple(map(_argument, decl.takes))
    found = match(decl.name, signature, args, lambda e: evaluate(e, frame), span, first)
    given = frame.classes.given(decl, found)
    env = {name: _real(value, frame) if kind == "float" else value for name, kind, value in given}
    formal = frame.classes.function_signature(decl, env)
    values = _tensors(decl.name, {name: _as_tensor(name, *found[name], type, frame) for name, type in formal.inputs})
    binding = bind_types(decl.name, formal, values, span, env, lambda v, t: against(frame, v, t))
    inputs = dict(zip((i.name for i in decl.inputs), values))
    names: dict[str, Semantic] = {**frame.classes.sizes(binding), **env, **inputs}
    with frame.classes.entering(decl.name, span):
        outputs = frame.classes.body(decl, frame.inner(names, frame.path, decl.name), formal, binding)
    return outputs[0] if len(outputs) == 1 else outputs


def _argument(taken: ast.Input | ast.Parameter) -> Arg:
    if isinstance(taken, ast.Input):
        return Arg(taken.name, "tensor")
    return Arg(taken.name, taken.kind, None, taken.default is None)


def _real(value: Semantic, frame: Frame) -> Semantic:
    """What is given for a `float`: an integer is divided as a real number from here on."""
    if not isinstance(value, Scalar) or value.text or isinstance(value.value, float):
        return value
    number = arithmetic.number(value)
    text = frame.size_text(value.value) if isinstance(value.value, Size) else ""
    return Scalar(None if number is None else float(number), text)


def _as_tensor(name: str, value: Semantic, span: Span, type: TensorType, frame: Frame) -> Given:
    """A number, where a tensor of one number is declared, is that tensor."""
    if type.shape or not isinstance(value, Scalar) or is_none(value):
        return value, span
    wanted = type.dtype if value.dtype != "bool" and (type.is_float or value.dtype == "i64") else value.dtype
    dtype = None if wanted == "float" and isinstance(value.value, float) and not value.text else wanted
    attrs: dict[str, Attr] = {
        "size": (),
        "fill_value": attribute(name, Arg(name, "any"), value, span),
        "dtype": dtype,
        "device": frame.builder.device(),
    }
    return frame.builder.rename(frame.record("full", (), attrs, span)[0], name), span


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
        return call_layer(instance, {instance.layer.inputs[0].name: (values[0], span)}, span, frame)
    if isinstance(instance, ListInstance):
        return _list(instance, values[0], span, frame)
    return _module(instance, values, span, frame)


def _module(instance: ModuleInstance, values: list[Value], span: Span, frame: Frame) -> Semantic:
    binding = bind_types(
        instance.decl.name, instance.signature, values, span, instance.env, lambda v, t: against(frame, v, t)
    )
    if instance.inline:
        outputs = frame.classes.inline(instance, values, binding, frame)
    else:
        types = tuple(substituted(t, binding) for t in instance.signature.outputs)
        bound = Bound(OPS["call_module"], tuple(values), {}, span)
        outputs = frame.builder.add(bound, types, inner_path(frame, instance.path))
    return outputs[0] if len(outputs) == 1 else outputs


def _list(instance: ListInstance, value: Value, span: Span, frame: Frame) -> Value:
    """A list is run in order: one node, emitted as a loop; `Sequential` as a call, unless a kernel joins its layers."""
    result = _chained(instance, value.type, span, frame)
    if instance.sequential and _joins(instance):
        for element in instance.elements:
            found = _run(element, [value], span, frame)
            assert isinstance(found, Value)
            value = found
        return value
    op = OPS["call_module" if instance.sequential else "call_list"]
    return frame.builder.add(Bound(op, (value,), {}, span), (result,), inner_path(frame, instance.path))[0]


def _joins(instance: ListInstance) -> bool:
    """Whether a layer of a Sequential is computed with the activation after it."""
    for first, second in pairwise(instance.elements):
        if isinstance(first, LayerInstance) and isinstance(second, LayerInstance) and first.layer.joins:
            op = OPS[second.layer.op]
            if op.kind is Kind.POINTWISE and op.fusible:
                return True
    return any(isinstance(each, ListInstance) and each.sequential and _joins(each) for each in instance.elements)


_BY_ITSELF = "call it by itself, outside a list: `y, state = layer(x)`"


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
            fail("E201", f"element {i} of `{instance.path}` yields several values", span, help=_BY_ITSELF)
        type = found.type
    return type


def replace_builder(frame: Frame, builder: GraphBuilder) -> Frame:
    return Frame(frame.classes, builder, dict(frame.names), frame.path, frame.origin)
