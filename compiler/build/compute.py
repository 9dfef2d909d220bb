"""Functions of compile-time numbers, as in `int(8 * dim / 3)` and `len(blocks)`: they are computed, not recorded."""

from __future__ import annotations

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import ListInstance, Semantic, describe
from tdsl.compiler.ir import Scalar
from tdsl.dsl import ast
from tdsl.dsl.constants import FUNCTIONS
from tdsl.dsl.diagnostics import fail


def is_computed(expr: ast.Call, frame: Frame) -> bool:
    """Whether this calls a function of numbers alone; the same names are functions of tensors."""
    name = expr.function.id if isinstance(expr.function, ast.Name) else ""
    if name not in FUNCTIONS or name in frame.names or frame.classes.lookup(name) is not None:
        return False
    return name == "len" or all(_is_number(a.value, frame) for a in expr.args)


def _is_number(expr: ast.Expr, frame: Frame) -> bool:
    if isinstance(expr, ast.Literal):
        return True
    if isinstance(expr, ast.Name):
        # A name that means nothing is told where it is evaluated.
        value = frame.names[expr.id] if expr.id in frame.names else frame.classes.lookup(expr.id)
        return (
            value is None
            or isinstance(value, Scalar)
            or (isinstance(value, tuple) and all(isinstance(v, Scalar) for v in value))
        )
    if isinstance(expr, ast.Unary):
        return _is_number(expr.operand, frame)
    if isinstance(expr, ast.Binary):
        return _is_number(expr.left, frame) and _is_number(expr.right, frame)
    if isinstance(expr, (ast.ListExpr, ast.TupleExpr)):
        return bool(expr.items) and all(_is_number(item, frame) for item in expr.items)
    if isinstance(expr, ast.Index):
        return _is_number(expr.value, frame)
    return isinstance(expr, ast.Call) and is_computed(expr, frame)


def computed(expr: ast.Call, values: list[Semantic]) -> Semantic:
    """The number that a function yields."""
    assert isinstance(expr.function, ast.Name)
    name = expr.function.id
    if name == "len" and len(values) == 1 and isinstance(values[0], ListInstance):
        return Scalar(len(values[0].elements))
    if name == "len" and (len(values) != 1 or not isinstance(values[0], tuple)):
        fail("E202", "`len` counts the values of a list", expr.span, describe(values[0]) if values else "")
    if name == "len":
        return Scalar(len(values[0]))  # type: ignore[arg-type]
    flat = values[0] if len(values) == 1 and isinstance(values[0], tuple) else values
    numbers = [arithmetic.number(v) if isinstance(v, Scalar) else None for v in flat]
    if any(n is None or isinstance(n, bool) for n in numbers):
        help = "it is where every parameter in it is: give them defaults"
        fail("E208", f"`{expr.span.text}` is not known at compile time", expr.span, help=help)
    try:
        return Scalar(FUNCTIONS[name](*numbers))
    except (TypeError, ValueError, OverflowError):
        return fail("E124", f"`{name}` does not apply to these numbers", expr.span)
