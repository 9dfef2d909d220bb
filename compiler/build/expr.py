"""Elaborate expressions: names looked up, operators and calls recorded as nodes."""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.unsupported import is_unsupported
from tdsl.compiler.build.values import (
    Batch,
    Dtype,
    Infer,
    LayerInstance,
    LayerRef,
    ListInstance,
    ModuleInstance,
    OpRef,
    Poison,
    Semantic,
    Skip,
    describe,
    is_none,
)
from tdsl.compiler.ir import FLOATS, INTS, Attr, Scalar, Value
from tdsl.compiler.ops.op import INTERNAL, OPS
from tdsl.compiler.size import Size
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import ProgramError, Span, fail
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.signatures import FACTS

OPERATORS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "@": "matmul",
    "**": "pow",
    "==": "eq",
    "!=": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
}
DTYPES = {**{name: name for name in (*FLOATS, *INTS, "bool")}, "int": "i64"}
LOGICAL = {"and": "logical_and", "or": "logical_or"}
# What a program calls otherwise than the registry does.
METHODS = {"expand": "expand_to", "to": "cast", "float": "to_float", "int": "to_long", "bool": "to_bool"}


def evaluate(expr: ast.Expr, frame: Frame) -> Semantic:
    """What an expression is, its nodes recorded in the frame's graph."""
    value: Semantic = _EVALUATORS[type(expr)](expr, frame)  # type: ignore[operator]
    frame.saw(expr, value)
    return value


def tensor(expr: ast.Expr, frame: Frame) -> Value:
    """An expression that must be a tensor."""
    value = evaluate(expr, frame)
    if not isinstance(value, Value):
        fail("E201", "expected a tensor", expr.span, f"this is {describe(value)}")
    return value


def _literal(expr: ast.Literal, frame: Frame) -> Semantic:
    return expr.value if isinstance(expr.value, str) else Scalar(expr.value)


def _name(expr: ast.Name, frame: Frame) -> Semantic:
    if expr.id == "_":
        return Infer()
    found = frame.names.get(expr.id)
    if isinstance(found, Poison):
        raise Skip
    if found is None:
        found = frame.classes.lookup(expr.id)
    if found is None and expr.id in OPS and expr.id not in INTERNAL:
        found = OpRef(OPS[expr.id])
    if found is None and expr.id in DTYPES:
        found = Dtype(DTYPES[expr.id])
    if found is None:
        _supported(expr.id, expr.span)
        if expr.id in frame.classes.program.externs:
            fail("E206", "`extern module` is not supported by this version", expr.span)
        fail("E110", f"unknown name `{expr.id}`", expr.span, help=_meant(expr.id, frame))
    return found


def _meant(wrong: str, frame: Frame) -> str | None:
    """What a wrong name may have meant, a name of its own case first: there are `gelu` and `GELU`."""
    names = [*frame.names, *frame.classes.names(), *(n for n in OPS if n not in INTERNAL)]
    alike = [name for name in names if name[0].isupper() == wrong[0].isupper()]
    return did_you_mean(wrong, alike) or did_you_mean(wrong, names)


def _unary(expr: ast.Unary, frame: Frame) -> Semantic:
    operand = evaluate(expr.operand, frame)
    if isinstance(operand, Scalar):
        return arithmetic.unary(expr.op, operand, expr.span)
    if not isinstance(operand, Value):
        fail("E201", f"`{expr.op}` does not apply to {describe(operand)}", expr.span)
    if expr.op == "+":
        return operand
    return frame.record("neg" if expr.op == "-" else "logical_not", (operand,), {}, expr.span)[0]


def _binary(expr: ast.Binary, frame: Frame) -> Semantic:
    left, right = evaluate(expr.left, frame), evaluate(expr.right, frame)
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        return arithmetic.binary(expr.op, left, right, expr.span)
    for side, at in ((left, expr.left), (right, expr.right)):
        if not isinstance(side, (Value, Scalar)):
            fail("E201", f"`{expr.op}` does not apply to {describe(side)}", at.span)
        if is_none(side) or (expr.op in LOGICAL and isinstance(side, Scalar)):
            fail("E201", f"`{expr.op}` of a tensor does not apply to {describe(side)}", at.span)
    name = OPERATORS.get(expr.op) or LOGICAL.get(expr.op)
    if name is None:
        fail("E206", f"`{expr.op}` of tensors is not supported by this version", expr.span)
    operands = tuple(frame.scalar(s) if isinstance(s, Scalar) else s for s in (left, right))
    return _located(name, operands, expr, frame)


def _located(name: str, operands: tuple[Semantic, ...], expr: ast.Binary, frame: Frame) -> Value:
    """Record an operator; a mismatch is told with where both sides came from."""
    try:
        return frame.record(name, operands, {}, expr.span)[0]  # type: ignore[arg-type]
    except ProgramError as error:
        sides = zip((expr.left, expr.right), operands)
        notes = tuple(n for n in (frame.where_from(v, e.span.text) for e, v in sides if len(e.span.text) < 60) if n)
        message = error.diagnostic.message.replace(f"`{name}`", f"`{expr.op}`")
        raise ProgramError(replace(error.diagnostic, message=message, notes=notes)) from None


def _conditional(expr: ast.Conditional, frame: Frame) -> Semantic:
    condition = evaluate(expr.condition, frame)
    if not isinstance(condition, Scalar):
        fail("E208", "a condition is a compile-time value", expr.condition.span, describe(condition))
    return evaluate(expr.then if arithmetic.truth(condition, expr.condition.span) else expr.otherwise, frame)


def _pipe(expr: ast.Pipe, frame: Frame) -> Semantic:
    from tdsl.compiler.build.calls import call

    value = evaluate(expr.value, frame)
    first = (value, expr.value.span)
    stage = expr.stage
    if isinstance(stage, ast.Call):
        return call(callee(stage.function, frame), stage.args, stage.span, frame, first, _text(stage.function))
    return call(callee(stage, frame), (), expr.span, frame, first, _text(stage))


def callee(expr: ast.Expr, frame: Frame) -> Semantic:
    """What is called: a method's object is bound as the first argument."""
    if isinstance(expr, ast.Attribute):
        owner = evaluate(expr.value, frame)
        if isinstance(owner, Value):
            return _method(owner, expr)
        return _member(owner, expr, frame)
    return evaluate(expr, frame)


def _method(owner: Value, expr: ast.Attribute) -> Semantic:
    name = METHODS.get(expr.name, expr.name)
    if name not in OPS or (name in INTERNAL and name == expr.name):
        _supported(expr.name, expr.name_span)
        known = [*METHODS, *(n for n in OPS if n not in INTERNAL)]
        help = did_you_mean(name, known)
        fail("E110", f"a tensor has no method `{name}`", expr.name_span, help=help)
    return OpRef(OPS[name], owner)


def _supported(name: str, span: Span) -> None:
    if is_unsupported(name):
        fail("E206", f"`{name}` is not supported by this version", span)


def _text(expr: ast.Expr) -> str:
    return expr.span.text


def _call(expr: ast.Call, frame: Frame) -> Semantic:
    from tdsl.compiler.build.calls import call, special

    if isinstance(expr.function, ast.Name) and expr.function.id not in frame.names:
        found = special(expr, frame)
        if found is not None:
            return found
    return call(callee(expr.function, frame), expr.args, expr.span, frame, None, _text(expr.function))


def _attribute(expr: ast.Attribute, frame: Frame) -> Semantic:
    if isinstance(expr.value, ast.Name) and expr.value.id in frame.classes.program.data:
        return _fact(expr, frame)
    owner = evaluate(expr.value, frame)
    if isinstance(owner, Value):
        if expr.name == "T":
            return frame.record("swap_last", (owner,), {}, expr.span)[0]
        return _method(owner, expr)
    return _member(owner, expr, frame)


def _fact(expr: ast.Attribute, frame: Frame) -> Semantic:
    assert isinstance(expr.value, ast.Name)
    facts = frame.classes.program.data[expr.value.id].facts
    if expr.name in FACTS and expr.name not in facts:
        raise Skip  # the resolver has told why
    if expr.name not in facts:
        help = did_you_mean(expr.name, facts)
        fail("E113", f"`{expr.value.id}` has no `{expr.name}`", expr.name_span, help=help)
    return Scalar(facts[expr.name])


def _member(owner: Semantic, expr: ast.Attribute, frame: Frame) -> Semantic:
    if isinstance(owner, Batch):
        if expr.name not in owner.fields:
            help = did_you_mean(expr.name, owner.fields) or f"it has {', '.join(owner.fields)}"
            fail("E114", f"the batch has no field `{expr.name}`", expr.name_span, help=help)
        return owner.fields[expr.name]
    if isinstance(owner, LayerInstance):
        from tdsl.compiler.build.layer_calls import layer_parameter

        found = layer_parameter(owner, expr.name, expr.name_span, frame)
        assert found is not None
        return found
    fail("E201", f"{describe(owner)} has no `{expr.name}`", expr.name_span)


def _index(expr: ast.Index, frame: Frame) -> Semantic:
    value = evaluate(expr.value, frame)
    if isinstance(value, (tuple, ListInstance)):
        return _element(value, expr, frame)
    if not isinstance(value, Value):
        fail("E201", f"{describe(value)} cannot be indexed", expr.span)
    items = tuple(_item(item, frame) for item in expr.items)
    return frame.record("index", (value,), {"items": items}, expr.span)[0]


def _element(value: tuple[Semantic, ...] | ListInstance, expr: ast.Index, frame: Frame) -> Semantic:
    elements = value if isinstance(value, tuple) else value.elements
    at = evaluate(expr.items[0], frame) if len(expr.items) == 1 else None
    index = arithmetic.number(at) if isinstance(at, Scalar) else None
    if not isinstance(index, int) or isinstance(index, bool):
        fail("E201", "a list is indexed by one compile-time integer", expr.span)
    if not -len(elements) <= index < len(elements):
        fail("E125", f"index {index} of {len(elements)} values", expr.span)
    return elements[index]


def _item(item: ast.Expr, frame: Frame) -> Attr:
    if isinstance(item, ast.Ellipsis_):
        return "..."
    if isinstance(item, ast.Slice):
        return ("slice", *(_bound(e, frame) for e in (item.start, item.stop, item.step)))
    value = evaluate(item, frame)
    if is_none(value):
        return None
    if isinstance(value, Value):
        if value.type.dtype == "bool":
            fail(
                "E206",
                "a boolean mask as an index has no static shape",
                item.span,
                help="choose with `where(mask, x, other)`",
            )
        fail("E206", "indexing by a tensor is not supported by this version", item.span)
    return _integer(value, item.span)


def _bound(expr: ast.Expr | None, frame: Frame) -> Attr:
    return None if expr is None else _integer(evaluate(expr, frame), expr.span)


def _integer(value: Semantic, span: Span) -> Attr:
    if not isinstance(value, Scalar) or not arithmetic.is_integer(value):
        fail("E201", "an index is an integer", span, f"this is {describe(value)}")
    found = value.value
    assert isinstance(found, (int, Size))
    return found


def _listed(expr: ast.ListExpr | ast.TupleExpr, frame: Frame) -> Semantic:
    items = tuple(evaluate(item, frame) for item in expr.items)
    if items and all(isinstance(i, (LayerInstance, ModuleInstance, ListInstance, LayerRef)) for i in items):
        return frame.classes.listed(items, expr.span)
    return items


def _slice(expr: ast.Expr, frame: Frame) -> Semantic:
    fail("E201", f"`{expr.span.text}` belongs into the index of a tensor", expr.span)


def _comprehension(expr: ast.Comprehension, frame: Frame) -> Semantic:
    return frame.classes.comprehension(expr, frame)


_EVALUATORS = {
    ast.Literal: _literal,
    ast.Name: _name,
    ast.Unary: _unary,
    ast.Binary: _binary,
    ast.Conditional: _conditional,
    ast.Pipe: _pipe,
    ast.Call: _call,
    ast.Attribute: _attribute,
    ast.Index: _index,
    ast.ListExpr: _listed,
    ast.TupleExpr: _listed,
    ast.Comprehension: _comprehension,
    ast.Slice: _slice,
    ast.Ellipsis_: _slice,
}
