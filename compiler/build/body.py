"""Elaborate the statements of a body, going on after a mistake so that every independent one is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tdsl.compiler.build import arithmetic, loops, origins, regions
from tdsl.compiler.build.assume import assume
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.regions import Returned
from tdsl.compiler.build.types import Binding, substituted
from tdsl.compiler.build.values import (
    Infer,
    ListInstance,
    Poison,
    Results,
    Semantic,
    Signature,
    Skip,
    Training,
    describe,
)
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
        declared = f"{len(expected)} value{'s' if len(expected) != 1 else ''}"
        help = f"declare what it returns: `-> ({', '.join(str(v.type) for v in values)})`"
        fail("E207", f"`{decl.name}` is declared to return {declared}", span, f"this is {len(values)}", help=help)
    for value, type, declared_at in zip(values, expected, decl.outputs):
        _check_result(decl.name, value, type, span, declared_at.span, frame)
    return values


def _check_result(name: str, value: Value, type: TensorType, span: Span, declared_at: Span, frame: Frame) -> None:
    fits = len(value.type.shape) == len(type.shape) and all(map(same, value.type.shape, type.shape))
    if not fits or (value.type.is_float != type.is_float) or (not type.is_float and value.type.dtype != type.dtype):
        notes = (f"the result is declared at {declared_at}", *origins.against(frame, value, type))
        help = f"write `-> {value.type}`, or return what is declared"
        fail("E207", f"`{name}` is declared to return {type}", span, f"this is {value.type}", notes=notes, help=help)


def statements(body: Sequence[ast.Statement], frame: Frame, reporter: Reporter) -> Returned | None:
    """Run statements up to the first `return`."""
    wrong = len(reporter.errors)
    frame.running = True
    for i, statement in enumerate(body):
        found: Returned | None = None
        before = len(reporter.errors)
        with guarded(reporter, frame, _targets(statement)):
            found = _statement(statement, body[i + 1 :], frame, reporter)
        if found is not None:
            return found
        # What follows a mistaken branch that returns was looked at as part of the other.
        if isinstance(statement, ast.Return) or (_returns(statement) and len(reporter.errors) > before):
            raise Skip
    if len(reporter.errors) > wrong:
        raise Skip
    return None


def _targets(statement: ast.Statement) -> list[str]:
    """The names that a statement binds."""
    if isinstance(statement, ast.Assign):
        return [t.id for t in statement.names]
    if isinstance(statement, (ast.NoGrad, ast.If)):
        return [name for inner in _inner(statement) for name in _targets(inner)]
    return []


def _inner(statement: ast.NoGrad | ast.If) -> tuple[ast.Statement, ...]:
    return (*statement.body, *(statement.otherwise if isinstance(statement, ast.If) else ()))


def _statement(
    statement: ast.Statement, rest: Sequence[ast.Statement], frame: Frame, reporter: Reporter
) -> Returned | None:
    """Run one statement; `rest` are those after it."""
    if isinstance(statement, ast.Assign):
        _assign(statement, frame)
    elif isinstance(statement, ast.Return):
        return _return(statement, frame)
    elif isinstance(statement, ast.If):
        return _if(statement, rest, frame, reporter)
    elif isinstance(statement, ast.For):
        return _for(statement, frame, reporter)
    elif isinstance(statement, ast.Track):
        _track(statement, frame)
    elif isinstance(statement, ast.NoGrad):
        return regions.no_grad(lambda inner: statements(statement.body, inner, reporter), statement.span, frame)
    elif isinstance(statement, ast.Assume):
        assume(statement.condition, frame)
    return None


def _assign(statement: ast.Assign, frame: Frame) -> None:
    values = tuple(evaluate(v, frame) for v in statement.values)
    only = len(values) == 1 and len(statement.targets) > 1
    # Nothing else holds what a call has just made, so that a layer's own names for it give way.
    fresh = only and isinstance(statement.values[0], (ast.Call, ast.Pipe))
    _bind(statement.targets, values[0] if only else values, statement.span, frame, fresh)


def _bind(targets: Sequence[ast.Target | ast.Nested], values: Semantic, span: Span, frame: Frame, fresh: bool) -> None:
    """Give each target its part of what several values are."""
    count = f"{len(targets)} name{'s' if len(targets) > 1 else ''}"
    if not isinstance(values, tuple):
        help = "take it apart: `a, b = x.chunk(2, dim=-1)`, or `unbind`"
        fail("E207", f"{count} for one value", span, f"this is {describe(values)}", help=help)
    if len(values) != len(targets):
        help = _parts(targets, values) or "write as many names as values; one that nothing uses may be `_`"
        fail("E207", f"{count} for {len(values)} values", span, help=help)
    for target, value in zip(targets, values):
        if isinstance(target, ast.Nested):
            _bind(target.targets, value, target.span, frame, fresh)
            continue
        if isinstance(value, Infer):
            fail("E201", "`_` stands for a size of a layer", span)
        frame.names[target.id] = _named(value, target.id, frame, fresh) if isinstance(value, Value) else value
        frame.saw(target, frame.names[target.id])


def _named(value: Value, name: str, frame: Frame, fresh: bool) -> Value:
    """The value under the name it is bound to, wherever else the body holds it."""
    named = frame.builder.rename(value, name, fresh)
    if named is not value:
        frame.names |= {key: _swapped(held, value, named) for key, held in frame.names.items()}
    return named


def _swapped(held: Semantic, value: Value, by: Value) -> Semantic:
    if isinstance(held, tuple):
        found = [_swapped(each, value, by) for each in held]
        return Results(found, held.names) if isinstance(held, Results) else tuple(found)
    return by if held is value else held


def _parts(targets: Sequence[ast.Target | ast.Nested], values: tuple[Semantic, ...]) -> str | None:
    """The cure of `y, h, c = lstm(x)`: parentheses around the names of what is several values itself."""
    widths = [len(each) if isinstance(each, tuple) else 1 for each in values]
    if len(values) == 1 or sum(widths) != len(targets):
        return None
    names = iter([target.span.text for target in targets])
    groups = [", ".join(next(names) for _ in range(width)) for width in widths]
    written = ", ".join(f"({group})" if isinstance(each, tuple) else group for group, each in zip(groups, values))
    return f"some of these are several: `{written} = ...`"


def _return(statement: ast.Return, frame: Frame) -> Returned:
    found: list[Semantic] = []
    for expr in statement.values:
        value = evaluate(expr, frame)
        found += value if isinstance(value, tuple) else [value]
    for value in found:
        if not isinstance(value, Value):
            help = "make a tensor of it, as with `full([], 3.0)`" if isinstance(value, Scalar) else None
            fail("E207", "a result is a tensor", statement.span, f"this is {describe(value)}", help=help)
    return tuple(v for v in found if isinstance(v, Value)), statement.span


def _if(statement: ast.If, rest: Sequence[ast.Statement], frame: Frame, reporter: Reporter) -> Returned | None:
    condition = evaluate(statement.condition, frame)
    if isinstance(condition, Training):
        # Where one branch returns, what follows belongs to the other.
        rest = rest if any(_returns(s) for s in _inner(statement)) else ()
        sides = [(*side, *rest) for side in (statement.body, statement.otherwise)]
        runs = [lambda inner, side=side: statements(side, inner, reporter) for side in sides]
        return regions.branch(condition, runs[0], runs[1], statement.span, frame)
    if not isinstance(condition, Scalar):
        label = f"this is {describe(condition)}"
        help = "choose among tensors with `where(mask, x, other)`" if isinstance(condition, Value) else None
        fail("E208", "a condition is a compile-time value, or `training`", statement.condition.span, label, help=help)
    taken = arithmetic.truth(condition, statement.condition.span)
    return statements(statement.body if taken else statement.otherwise, frame, reporter)


def _returns(statement: ast.Statement) -> bool:
    if isinstance(statement, (ast.NoGrad, ast.If)):
        return any(map(_returns, _inner(statement)))
    return isinstance(statement, ast.Return)


def _for(statement: ast.For, frame: Frame, reporter: Reporter) -> Returned | None:
    items = loops.items(statement.iterable, frame)
    looped = _as_list_call(statement, items, frame)
    if looped:
        return None
    for item in items.elements if isinstance(items, ListInstance) else items:
        frame.names[statement.variable.id] = item
        frame.saw(statement.variable, item)
        found = statements(statement.body, frame, reporter)
        if found is not None:
            help = "return after it: a name bound in the loop keeps its last value"
            fail("E207", "`return` within a loop", found[1], help=help)
    return None


def _as_list_call(statement: ast.For, items: ListInstance | tuple[Semantic, ...], frame: Frame) -> bool:
    """`for block in blocks { x = block(x) }` is `x |> blocks`, and stays a loop."""
    if not isinstance(items, ListInstance) or len(statement.body) != 1 or not items.path:
        return False
    only = statement.body[0]
    if not isinstance(only, ast.Assign) or len(only.targets) != 1 or not isinstance(only.values[0], ast.Call):
        return False
    made = only.values[0]
    if not isinstance(only.targets[0], ast.Target):
        return False
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
    frame.saw(statement.variable, items)
    frame.saw(only.targets[0], frame.names[target])
    return True


def _track(statement: ast.Track, frame: Frame) -> None:
    value = evaluate(statement.value, frame)
    if not isinstance(value, Value) or value.type.shape:
        help = "reduce it, as with `.mean()`"
        fail("E207", "a tracked value is a scalar", statement.value.span, f"this is {describe(value)}", help=help)
    frame.builder.tracked[statement.target.id] = value
    frame.saw(statement.target, value)
