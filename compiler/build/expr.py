"""Elaborate expressions: names looked up, operators and calls recorded as nodes."""

from __future__ import annotations

from dataclasses import replace

from tdsl.compiler.build import arithmetic, compute, origins, regions
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.properties import attribute_of
from tdsl.compiler.build.values import (
    Batch,
    Dtype,
    FunctionRef,
    Infer,
    LayerInstance,
    LayerRef,
    ListInstance,
    ModuleInstance,
    OpRef,
    Poison,
    Results,
    Semantic,
    Skip,
    Training,
    Unbound,
    describe,
    is_called,
    is_none,
)
from tdsl.compiler.ir import FLOATS, INTS, Attr, Scalar, Value
from tdsl.compiler.ops.convert import METHODS as CONVERSIONS
from tdsl.compiler.ops.op import INTERNAL, OPS
from tdsl.compiler.size import Size
from tdsl.dsl import ast, habits
from tdsl.dsl.diagnostics import ProgramError, Span, fail
from tdsl.dsl.names import did_you_mean
from tdsl.dsl.signatures import FACTS

OPERATORS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "//": "floor_divide",
    "%": "remainder",
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
METHODS = {"to": "cast", "int": "to_long", **{name: f"to_{name}" for name in CONVERSIONS}}


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
    if isinstance(found, Poison) or (found is None and expr.id in frame.classes.program.broken):
        raise Skip
    if isinstance(found, Unbound):
        fail("E110", f"`{expr.id}` {found.why}", expr.span, help=found.note)
    if found is None and expr.id == "training":
        return _training(expr, frame)
    if found is None:
        found = frame.classes.lookup(expr.id)
    if found is None and expr.id in OPS and expr.id not in INTERNAL:
        found = OpRef(OPS[expr.id])
    if found is None and expr.id in DTYPES:
        found = Dtype(DTYPES[expr.id])
    if found is None and expr.id == "inf":
        found = Scalar(float("inf"))
    if found is None and expr.id in frame.awaited:
        help = "members are made in the order in which they stand: what one is made from is declared above it"
        fail("E110", f"`{expr.id}` is not yet made here", expr.span, help=help)
    if found is None:
        fail("E110", f"unknown name `{expr.id}`", expr.span, help=_meant(expr.id, frame))
    return found


def _training(expr: ast.Name, frame: Frame) -> Training:
    if not frame.running:
        fail("E208", "`training` is only known when the model runs", expr.span, help="ask for it in `forward`")
    return Training(f"{frame.builder.owner or 'model.'}training")


def _meant(wrong: str, frame: Frame) -> str | None:
    """What a wrong name may have meant, a name of its own case first: there are `gelu` and `GELU`."""
    names = [*frame.names, *frame.classes.names(), *(n for n in OPS if n not in INTERNAL)]
    alike = [name for name in names if name[0].isupper() == wrong[0].isupper()]
    return habits.unknown_name(wrong) or did_you_mean(wrong, alike) or did_you_mean(wrong, names)


def _unary(expr: ast.Unary, frame: Frame) -> Semantic:
    operand = evaluate(expr.operand, frame)
    if isinstance(operand, Training) and expr.op == "not":
        return replace(operand, negated=not operand.negated)
    if isinstance(operand, Scalar):
        return arithmetic.unary(expr.op, operand, expr.span)
    if not isinstance(operand, Value):
        fail("E201", f"`{expr.op}` does not apply to {describe(operand)}", expr.span)
    if expr.op == "+":
        return operand
    return frame.record("neg" if expr.op == "-" else "logical_not", (operand,), {}, expr.span)[0]


def _binary(expr: ast.Binary, frame: Frame) -> Semantic:
    left, right = evaluate(expr.left, frame), evaluate(expr.right, frame)
    if isinstance(left, str) and isinstance(right, str) and expr.op in ("==", "!=", "+"):
        return left + right if expr.op == "+" else Scalar((left == right) == (expr.op == "=="))
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        if not (arithmetic.is_integer(left) and arithmetic.is_integer(right)):
            left, right = frame.scalar(left), frame.scalar(right)
        return arithmetic.binary(expr.op, left, right, expr.span)
    if isinstance(left, Training) or isinstance(right, Training):
        return _of_training(expr, left, right)
    for side, at in ((left, expr.left), (right, expr.right)):
        if not isinstance(side, (Value, Scalar)):
            help = f"call it: `{at.span.text}(...)`" if is_called(side) else None
            fail("E201", f"`{expr.op}` does not apply to {describe(side)}", at.span, help=help)
        if is_none(side) or (expr.op in LOGICAL and isinstance(side, Scalar)):
            fail("E201", f"`{expr.op}` of a tensor does not apply to {describe(side)}", at.span)
    name = OPERATORS.get(expr.op) or LOGICAL.get(expr.op)
    if name is None:
        fail("E206", f"`{expr.op}` of tensors is not supported by this version", expr.span)
    operands = tuple(frame.scalar(s) if isinstance(s, Scalar) else s for s in (left, right))
    return _located(name, operands, expr, frame)


def _of_training(expr: ast.Binary, left: Semantic, right: Semantic) -> Semantic:
    """`training and ...`, `training == false`: `training` itself, its opposite, or what it can't change."""
    (mode, at), (other, there) = (left, expr.left), (right, expr.right)
    if not isinstance(mode, Training):
        (mode, at), (other, there) = (right, expr.right), (left, expr.left)
    assert isinstance(mode, Training)
    if expr.op not in ("and", "or", "==", "!="):
        fail("E201", f"`{expr.op}` does not apply to `training`", at.span)
    if isinstance(other, Training):
        same = mode.negated == other.negated
        fixed = {"and": False, "or": True, "==": same, "!=": not same}
        return mode if same and expr.op in ("and", "or") else Scalar(fixed[expr.op])
    if not isinstance(other, Scalar):
        fail("E208", "a condition is a compile-time value, or `training`", there.span, f"this is {describe(other)}")
    holds = arithmetic.truth(other, there.span)
    if expr.op in ("and", "or"):
        return mode if holds == (expr.op == "and") else Scalar(holds)
    return mode if holds == (expr.op == "==") else replace(mode, negated=not mode.negated)


def _located(name: str, operands: tuple[Semantic, ...], expr: ast.Binary, frame: Frame) -> Value:
    """Record an operator; a mismatch is told with where both sides came from."""
    try:
        return frame.record(name, operands, {}, expr.span)[0]  # type: ignore[arg-type]
    except ProgramError as error:
        tensors, product = [v for v in operands if isinstance(v, Value)], expr.op == "@"
        notes = origins.notes(frame, tensors, product)
        sides = zip((expr.left, expr.right), operands)
        known = (frame.where_from(v, e.span.text) for e, v in sides if len(e.span.text) < 60)
        notes = (*(note for note in known if note and len(notes) != 1), *notes)
        message = error.diagnostic.message.replace(f"`{name}`", f"`{expr.op}`")
        help = origins.cure(tensors, product) or error.diagnostic.help
        raise ProgramError(replace(error.diagnostic, message=message, notes=notes, help=help)) from None


def _conditional(expr: ast.Conditional, frame: Frame) -> Semantic:
    condition = evaluate(expr.condition, frame)
    if isinstance(condition, Training):
        return regions.chosen(condition, expr, evaluate, frame)
    if not isinstance(condition, Scalar):
        help = "choose among tensors with `where(mask, a, b)`" if isinstance(condition, Value) else None
        fail("E208", "a condition is a compile-time value", expr.condition.span, describe(condition), help=help)
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
            return _method(owner, expr, frame)
        return _member(owner, expr, frame)
    return evaluate(expr, frame)


def _method(owner: Value, expr: ast.Attribute, frame: Frame) -> Semantic:
    name = METHODS.get(expr.name, expr.name)
    if name not in OPS or name in INTERNAL:
        own = frame.names.get(expr.name) or frame.classes.lookup(expr.name)
        if isinstance(own, (FunctionRef, OpRef)):
            return replace(own, bound=owner)
    if name not in OPS or (name in INTERNAL and name == expr.name):
        known = [*METHODS, *(n for n in OPS if n not in INTERNAL)]
        help = habits.unknown_method(expr.name) or did_you_mean(expr.name, known)
        fail("E110", f"a tensor has no method `{expr.name}`", expr.name_span, help=help)
    return OpRef(OPS[name], owner)


def _text(expr: ast.Expr) -> str:
    return expr.span.text


def _call(expr: ast.Call, frame: Frame) -> Semantic:
    from tdsl.compiler.build.calls import call

    if compute.is_computed(expr, frame):
        return compute.computed(expr, [evaluate(a.value, frame) for a in expr.args])
    return call(callee(expr.function, frame), expr.args, expr.span, frame, None, _text(expr.function))


def _attribute(expr: ast.Attribute, frame: Frame) -> Semantic:
    if isinstance(expr.value, ast.Name) and expr.value.id in frame.classes.program.data:
        return _fact(expr, frame)
    owner = evaluate(expr.value, frame)
    if isinstance(owner, Value):
        if expr.name in ("T", "mT"):
            return frame.record("swap_last", (owner,), {}, expr.span)[0]
        found = attribute_of(owner, expr.name, expr.span)
        return _method(owner, expr, frame) if found is None else found
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
    if isinstance(owner, Results) and expr.name in owner.names:
        return owner[owner.names.index(expr.name)]
    if isinstance(owner, LayerInstance):
        from tdsl.compiler.build.layer_calls import layer_member

        return layer_member(owner, expr.name, expr.name_span, frame)
    if isinstance(owner, ModuleInstance) and expr.name in owner.ir.members:
        help = "return what is wanted from its `forward`, or let a module that both have compute it"
        fail(
            "E201",
            f"`{expr.name}` is {describe(owner)}'s own: it can't be used from outside",
            expr.name_span,
            help=help,
        )
    fail("E201", f"{describe(owner)} has no `{expr.name}`", expr.name_span)


def _index(expr: ast.Index, frame: Frame) -> Semantic:
    value = evaluate(expr.value, frame)
    if isinstance(value, (tuple, ListInstance)):
        return _element(value, expr, frame)
    if not isinstance(value, Value):
        help = "its fields are named: `batch.label`" if isinstance(value, Batch) else None
        fail("E201", f"{describe(value)} cannot be indexed", expr.span, help=help)
    tensors = [value]
    items = tuple(_item(item, frame, tensors) for item in expr.items)
    name = "index_by" if any(isinstance(item, tuple) and item[0] != "slice" for item in items) else "index"
    return frame.record(name, tuple(tensors), {"items": items}, expr.span)[0]


def _element(value: tuple[Semantic, ...] | ListInstance, expr: ast.Index, frame: Frame) -> Semantic:
    elements = value if isinstance(value, tuple) else value.elements
    at = evaluate(expr.items[0], frame) if len(expr.items) == 1 else None
    index = arithmetic.number(at) if isinstance(at, Scalar) else None
    if not isinstance(index, int) or isinstance(index, bool):
        names = ", ".join("abcdefgh"[: len(elements)])
        help = f"it is {len(elements)} values: take them apart, `{names} = ...`" if isinstance(value, tuple) else None
        fail("E201", "a list is indexed by one compile-time integer", expr.span, help=help)
    if not -len(elements) <= index < len(elements):
        fail("E125", f"index {index} of {len(elements)} values", expr.span)
    return elements[index]


def _item(item: ast.Expr, frame: Frame, tensors: list[Value]) -> Attr:
    """An item as `compiler/ops/index.py` has them; a tensor goes to `tensors`, the first of which is indexed."""
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
        tensors.append(value)
        return ("tensor", len(tensors) - 2)
    if isinstance(value, tuple):
        return ("list", *(_integer(v, item.span) for v in value))
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
