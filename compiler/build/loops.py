"""What loops go over: ranges, lists of values, lists of modules. All of it is known at compile time."""

from __future__ import annotations

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import ListInstance, Semantic, describe
from tdsl.compiler.ir import Scalar
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import fail

MOST_TURNS = 10_000


def items(expr: ast.Expr, frame: Frame) -> ListInstance | tuple[Semantic, ...]:
    """A list of modules as it is, or the values that a loop goes over."""
    if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Name) and expr.function.id == "range":
        return _ranged(expr, frame)
    value = evaluate(expr, frame)
    if not isinstance(value, (ListInstance, tuple)):
        fail("E201", "a loop goes over a list or a range", expr.span, f"this is {describe(value)}")
    return value


def loop_items(expr: ast.Expr, frame: Frame) -> tuple[Semantic, ...]:
    """The values of a list or a range, one by one."""
    found = items(expr, frame)
    return found if isinstance(found, tuple) else found.elements


def _ranged(expr: ast.Call, frame: Frame) -> tuple[Semantic, ...]:
    numbers = [evaluate(a.value, frame) for a in expr.args]
    known = [arithmetic.number(n) if isinstance(n, Scalar) else None for n in numbers]
    bounds = [n for n in known if isinstance(n, int) and not isinstance(n, bool)]
    if not 1 <= len(known) <= 3 or len(bounds) != len(known):
        help = "loops are unrolled: count to a constant or to a parameter of the module"
        fail("E208", "the range of a loop is known at compile time", expr.span, help=help)
    if len(bounds) == 3 and bounds[2] == 0:
        fail("E202", "the step of a range is not 0", expr.args[2].span)
    turns = range(*bounds)
    if len(turns) > MOST_TURNS:
        fail("E209", f"a loop of {len(turns):,} turns", expr.span, help=f"a loop has at most {MOST_TURNS:,}")
    return tuple(map(Scalar, turns))
