"""Elaborate the statements of a body, going on after a mistake so that every independent one is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.types import Binding, substituted
from tdsl.compiler.build.values import Infer, ListInstance, Poison, Semantic, Signature, Skip, describe
from tdsl.compiler.ir import Scalar, TensorType, Value
from tdsl.compiler.ops.infer import same
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import ProgramError, Reporter, Span, fail


@contextmanager
def guarded(reporter: Reporter, frame: Frame, targets: Sequence[str]) -> Iterator[None]:
    """Tell the mistake that the body raises; the names it should have bound mean nothing from here on."""
    try:
        yield
    except ProgramError as error:
        reporter.add(error.diagnostic)
    except Skip:
        pass
    else:
        return
    for name in targets:
        frame.names[name] = Poison()  # type: ignore[assignment]


def run(
    decl: ast.Function, frame: Frame, signature: Signature, binding: Binding, reporter: Reporter
) -> tuple[Value, ...]:
    """Run a function's body; its results, checked against the declared types."""
    returned = statements(decl.body, frame, reporter)
    if returned is None:
        if reporter.errors:
            raise Skip
        fail("E207", f"`{decl.name}` returns nothing", decl.name_span, help="end it with `return`")
    values, span = returned
    expected = tuple(substituted(t, binding) for t in signature.outputs)
    if len(values) != len(expected):
        fail("E207", f"`{decl.name}` is declared to return {len(expected)} values", span, f"this is {len(values)}")
    for value, type in zip(values, expected):
        _check_result(decl.name, value, type, span)
    return values


def _check_result(name: str, value: Value, type: TensorType, span: Span) -> None:
    fits = len(value.type.shape) == len(type.shape) and all(map(same, value.type.shape, type.shape))
    if not fits or (value.type.is_float != type.is_float) or (not type.is_float and value.type.dtype != type.dtype):
        fail("E207", f"`{name}` is declared to return {type}", span, f"this is {value.type}")


Returned = tuple[tuple[Value, ...], Span]


def statements(body: Sequence[ast.Statement], frame: Frame, reporter: Reporter) -> Returned | None:
    """Run statements up to the first `return`."""
    wrong = len(reporter.errors)
    for statement in body:
        found: Returned | None = None
        with guarded(reporter, frame, _targets(statement)):
            found = _statement(statement, frame, reporter)
        if found is not None:
            return found
        if isinstance(statement, ast.Return):
            raise Skip
    if len(reporter.errors) > wrong:
        raise Skip
    return None


def _targets(statement: ast.Statement) -> list[str]:
    return [t.id for t in statement.targets] if isinstance(statement, ast.Assign) else []


def _statement(statement: ast.Statement, frame: Frame, reporter: Reporter) -> Returned | None:
    if isinstance(statement, ast.Assign):
        _assign(statement, frame)
    elif isinstance(statement, ast.Return):
        return _return(statement, frame)
    elif isinstance(statement, ast.If):
        return _if(statement, frame, reporter)
    elif isinstance(statement, ast.For):
        return _for(statement, frame, reporter)
    elif isinstance(statement, ast.Track):
        _track(statement, frame)
    else:
        name = {"Assume": "assume", "NoGrad": "no_grad"}.get(type(statement).__name__, "this statement")
        fail("E206", f"`{name}` is not supported by this version", statement.span)
    return None


def _assign(statement: ast.Assign, frame: Frame) -> None:
    values = [evaluate(v, frame) for v in statement.values]
    found: Sequence[Semantic] = values
    if len(values) == 1 and len(statement.targets) > 1:
        only = values[0]
        if not isinstance(only, tuple):
            fail("E207", f"{len(statement.targets)} names for one value", statement.span, f"this is {describe(only)}")
        found = only
    if len(found) != len(statement.targets):
        fail("E207", f"{len(statement.targets)} names for {len(found)} values", statement.span)
    for target, value in zip(statement.targets, found):
        if isinstance(value, Infer):
            fail("E201", "`_` stands for a size of a layer", statement.span)
        frame.names[target.id] = frame.builder.rename(value, target.id) if isinstance(value, Value) else value
        frame.saw(target, frame.names[target.id])


def _return(statement: ast.Return, frame: Frame) -> Returned:
    found: list[Semantic] = []
    for expr in statement.values:
        value = evaluate(expr, frame)
        found += value if isinstance(value, tuple) else [value]
    for value in found:
        if not isinstance(value, Value):
            fail("E207", "a result is a tensor", statement.span, f"this is {describe(value)}")
    return tuple(v for v in found if isinstance(v, Value)), statement.span


def _if(statement: ast.If, frame: Frame, reporter: Reporter) -> Returned | None:
    if isinstance(statement.condition, ast.Name) and statement.condition.id == "training":
        fail("E206", "`if training` is not supported by this version", statement.condition.span)
    condition = evaluate(statement.condition, frame)
    if not isinstance(condition, Scalar):
        fail("E208", "a condition is a compile-time value", statement.condition.span, f"this is {describe(condition)}")
    taken = arithmetic.truth(condition, statement.condition.span)
    return statements(statement.body if taken else statement.otherwise, frame, reporter)


def _for(statement: ast.For, frame: Frame, reporter: Reporter) -> Returned | None:
    items = _items(statement.iterable, frame)
    looped = _as_list_call(statement, items, frame)
    if looped:
        return None
    for item in items.elements if isinstance(items, ListInstance) else items:
        frame.names[statement.variable.id] = item
        found = statements(statement.body, frame, reporter)
        if found is not None:
            fail("E207", "`return` within a loop", found[1])
    return None


def _items(expr: ast.Expr, frame: Frame) -> ListInstance | tuple[Semantic, ...]:
    if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Name) and expr.function.id == "range":
        numbers = [evaluate(a.value, frame) for a in expr.args]
        known = [arithmetic.number(n) if isinstance(n, Scalar) else None for n in numbers]
        if not 1 <= len(known) <= 3 or not all(isinstance(n, int) for n in known):
            fail("E208", "the range of a loop is known at compile time", expr.span)
        return tuple(Scalar(i) for i in range(*(n for n in known if isinstance(n, int))))
    value = evaluate(expr, frame)
    if not isinstance(value, (ListInstance, tuple)):
        fail("E201", "a loop goes over a list or a range", expr.span, f"this is {describe(value)}")
    return value


def _as_list_call(statement: ast.For, items: ListInstance | tuple[Semantic, ...], frame: Frame) -> bool:
    """`for block in blocks { x = block(x) }` is `x |> blocks`, and stays a loop."""
    if not isinstance(items, ListInstance) or len(statement.body) != 1 or not items.path:
        return False
    only = statement.body[0]
    if not isinstance(only, ast.Assign) or len(only.targets) != 1 or not isinstance(only.values[0], ast.Call):
        return False
    made = only.values[0]
    target = only.targets[0].id
    plain = len(made.args) == 1 and made.args[0].name is None and isinstance(made.args[0].value, ast.Name)
    if not plain or not isinstance(made.function, ast.Name) or made.function.id != statement.variable.id:
        return False
    given = made.args[0].value
    if not isinstance(given, ast.Name) or given.id != target:
        return False
    from tdsl.compiler.build.calls import call

    value = call(items, (), statement.span, frame, (evaluate(given, frame), given.span), statement.iterable.span.text)
    frame.names[target] = frame.builder.rename(value, target) if isinstance(value, Value) else value
    return True


def _track(statement: ast.Track, frame: Frame) -> None:
    value = evaluate(statement.value, frame)
    if not isinstance(value, Value) or value.type.shape:
        fail("E207", "a tracked value is a scalar", statement.value.span, f"this is {describe(value)}")
    frame.builder.tracked[statement.target.id] = value
