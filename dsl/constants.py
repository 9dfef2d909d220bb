"""Compile-time values: the arithmetic that a program does before any tensor exists."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail
from tdsl.dsl.program import Constant

INT64 = 1 << 63
LARGEST = "integers go up to 9223372036854775807, other numbers to about 1.8e308"
NONZERO = "divide by something else"

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}
# Functions of compile-time values, beside the arithmetic.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "exp": math.exp,
    "float": float,
    "floor": math.floor,
    "int": int,
    "len": len,
    "log": math.log,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
}

Lookup = Callable[[ast.Expr], Constant]


def fold(expr: ast.Expr, lookup: Lookup) -> Constant:
    """The value of a compile-time expression; `lookup` gives that of names, attributes and other calls.

    Raises ProgramError: an expression that is no compile-time value, or one that has no value (`1 / 0`).
    """
    if isinstance(expr, ast.Literal):
        return expr.value
    if isinstance(expr, (ast.ListExpr, ast.TupleExpr)):
        return tuple(fold(item, lookup) for item in expr.items)
    if isinstance(expr, ast.Unary):
        return unary(expr.op, fold(expr.operand, lookup), expr.span)
    if isinstance(expr, ast.Binary):
        return _binary(expr, lookup)
    if isinstance(expr, ast.Conditional):
        return fold(expr.then if _truth(expr.condition, lookup) else expr.otherwise, lookup)
    if isinstance(expr, ast.Index):
        return _index(expr, lookup)
    if isinstance(expr, ast.Call) and isinstance(expr.function, ast.Name) and expr.function.id in FUNCTIONS:
        return _call(expr, expr.function.id, lookup)
    if isinstance(expr, (ast.Name, ast.Attribute, ast.Call)):
        return lookup(expr)
    help = "write a number, a string, a list or a constant"
    return fail("E120", "this is not a compile-time value", expr.span, help=help)


def unary(op: str, value: Constant, span: Span) -> Constant:
    if op == "not" and isinstance(value, bool):
        return not value
    if op != "not" and _numeric(value):
        return _checked(-value if op == "-" else value, span)  # type: ignore[operator]
    help = "`not` is of `true` and `false`" if op == "not" else "it is of numbers"
    return fail("E124", f"`{op}` does not apply to {describe(value)}", span, help=help)


def binary(op: str, left: Constant, right: Constant, span: Span) -> Constant:
    """`left op right`; `/` of two integers is exact, and powers, sums and products stay within 64 bits."""
    if op in ("==", "!="):
        return COMPARISONS[op](left, right)
    if isinstance(left, tuple) and isinstance(right, tuple) and op == "+":
        return left + right
    if isinstance(left, str) and isinstance(right, str) and op == "+":
        return left + right
    if not _numeric(left) or not _numeric(right) or op not in (*COMPARISONS, *ARITHMETIC, "/", "**"):
        help = "it is of two numbers" + (", two strings or two lists" if op == "+" else "")
        fail("E124", f"`{op}` does not apply to {describe(left)} and {describe(right)}", span, help=help)
    if op in COMPARISONS:
        return COMPARISONS[op](left, right)
    return _checked(_arithmetic(op, left, right, span), span)


def _arithmetic(op: str, left: Any, right: Any, span: Span) -> Any:
    if op in ("/", "//", "%") and right == 0:
        fail("E122", "division by zero", span, help=NONZERO)
    if op == "**":
        return _power(left, right, span)
    if op != "/":
        return ARITHMETIC[op](left, right)
    if isinstance(left, float) or isinstance(right, float):
        return left / right
    if left % right:
        help = "`//` rounds down; for a fraction make one of them a float"
        fail("E121", f"{left} / {right} leaves a remainder", span, help=help)
    return left // right


def _power(left: Any, right: Any, span: Span) -> Any:
    if left == 0 and right < 0:
        fail("E122", "division by zero", span, help=NONZERO)
    if isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 64:
        fail("E123", "the value has more than 64 bits", span, help=LARGEST)
    if left < 0 and isinstance(right, float) and not right.is_integer():
        fail("E124", "a fractional power of a negative number", span)
    try:
        return left**right
    except OverflowError:
        return fail("E123", "the value is too large", span, help=LARGEST)


def _checked(value: Any, span: Span) -> Constant:
    if isinstance(value, int) and not -INT64 <= value < INT64:
        fail("E123", "the value has more than 64 bits", span, help=LARGEST)
    if isinstance(value, float) and not math.isfinite(value):
        fail("E123", "the value is too large", span, help=LARGEST)
    result: Constant = value
    return result


def _binary(expr: ast.Binary, lookup: Lookup) -> Constant:
    if expr.op in ("and", "or"):
        left = _truth(expr.left, lookup)
        return left if left is (expr.op == "or") else _truth(expr.right, lookup)
    return binary(expr.op, fold(expr.left, lookup), fold(expr.right, lookup), expr.span)


def _truth(expr: ast.Expr, lookup: Lookup) -> bool:
    value = fold(expr, lookup)
    if not isinstance(value, bool):
        fail("E124", f"expected `true` or `false`, found {describe(value)}", expr.span, help="compare it: `x > 0`")
    return value


def _index(expr: ast.Index, lookup: Lookup) -> Constant:
    value = fold(expr.value, lookup)
    at = fold(expr.items[0], lookup)
    if not isinstance(value, tuple) or not isinstance(at, int) or isinstance(at, bool) or len(expr.items) > 1:
        fail("E124", f"{describe(value)} cannot be indexed by {describe(at)}", expr.span,
             help="a list is indexed by one integer")  # fmt: skip
    if not -len(value) <= at < len(value):
        fail("E125", f"index {at} of {len(value)} values", expr.span, help=f"the last is {len(value) - 1}, or -1")
    return value[at]


def _call(expr: ast.Call, name: str, lookup: Lookup) -> Constant:
    values = [fold(argument.value, lookup) for argument in expr.args if argument.name is None]
    flat = values[0] if len(values) == 1 and isinstance(values[0], tuple) else values
    listed = ", ".join(describe(value) for value in values)
    if len(values) != len(expr.args) or (name != "len" and not all(_numeric(value) for value in flat)):
        help = "it takes numbers, without their names"
        fail("E124", f"`{name}` does not apply to {listed or 'these arguments'}", expr.span, help=help)
    try:
        return _checked(FUNCTIONS[name](*values), expr.span)
    except (TypeError, ValueError, OverflowError):
        help = "give it a value that it is defined for"
        return fail("E124", f"`{name}` does not apply to {listed or 'no arguments'}", expr.span, help=help)


def _numeric(value: Constant) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def describe(value: Constant) -> str:
    """A value as the program would write it."""
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, tuple):
        return "a list" if len(value) != 1 else "a list of one"
    return f"`{value.name}(...)`" if not isinstance(value, (int, float)) else f"{value}"
