"""Arithmetic at compile time: numbers, sizes, and numbers that only the run knows."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from tdsl.compiler.ir import Scalar
from tdsl.compiler.ops.bounds import at_least
from tdsl.compiler.ops.infer import known, quotient, same, stated
from tdsl.compiler.size import Size, product
from tdsl.dsl.diagnostics import Span, fail

_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARE = ("==", "!=", "<", "<=", ">", ">=")
_BOUNDS = ("<", "<=", ">", ">=")
MOST = 1 << 63


def is_integer(scalar: Scalar) -> bool:
    return isinstance(scalar.value, (int, Size)) and not isinstance(scalar.value, bool)


def number(scalar: Scalar) -> int | float | bool | None:
    """The value where it is known: of a size, for the arguments at hand."""
    return known(scalar.value) if isinstance(scalar.value, Size) else scalar.value


def binary(op: str, left: Scalar, right: Scalar, span: Span) -> Scalar:
    """`left op right` for two numbers."""
    if op in ("and", "or"):
        a, b = truth(left, span), truth(right, span)
        return Scalar(a and b if op == "and" else a or b)
    if is_integer(left) and is_integer(right) and not left.text and not right.text:
        return _sizes(op, left, right, span)
    return _numbers(op, left, right, span)


def _sizes(op: str, left: Scalar, right: Scalar, span: Span) -> Scalar:
    a, b = Size.of(left.value), Size.of(right.value)  # type: ignore[arg-type]
    if op in _COMPARE:
        return Scalar(_compare(op, a, b, span))
    if op in ("/", "//", "%") and known(b) == 0:
        fail("E122", "division by zero", span)
    if op == "/":
        return _plain(_exact(a, b, span))
    if op == "**":
        return _power(a, b, span)
    if op not in _PLAIN:
        fail("E201", f"`{op}` does not apply to numbers", span)
    return _plain(_PLAIN[op](a, b))


def _plain(size: Size) -> Scalar:
    constant = size.constant
    return Scalar(size if constant is None else constant)


def _exact(a: Size, b: Size, span: Span) -> Size:
    found = quotient(a, b)
    if found is not None:
        return found
    x, y = known(a), known(b)
    if x is None or y is None:
        help = f"{stated(a, b)}; `//` rounds down"
        fail("E208", f"can't prove that {a} / {b} leaves no remainder", span, help=help)
    fail("E121", f"{x} / {y} leaves a remainder", span, help="use `//` to round down")


def _power(a: Size, b: Size, span: Span) -> Scalar:
    x, y = a.constant, b.constant
    if x is not None and y is not None and abs(y) <= 64 and abs(x) <= 1 << 32:
        return Scalar(x**y)
    if y is None or not 0 <= y <= 8:
        fail("E201", "the exponent of a size is a constant from 0 to 8", span, f"this is {b}", help="multiply it out")
    return _plain(product((a,) * y))


def _compare(op: str, a: Size, b: Size, span: Span) -> bool:
    if op in ("==", "!=") and same(a, b):
        return op == "=="
    x, y = known(a), known(b)
    if x is not None and y is not None:
        return holds(op, x, y)
    if op in _BOUNDS:
        low, high = (a, b) if op in ("<", "<=") else (b, a)
        strict = op in ("<", ">")
        if at_least(high, low + int(strict)):
            return True
        if at_least(low, high + int(not strict)):
            return False
    help = "make the size a constant or a parameter, or choose among tensors with `where`"
    fail("E208", f"`{a} {op} {b}` is not known at compile time", span, help=help)


def holds(op: str, left: int, right: int) -> bool:
    """Whether two integers compare so."""
    return bool(_PLAIN[op](left, right))


def _numbers(op: str, left: Scalar, right: Scalar, span: Span) -> Scalar:
    a, b = number(left), number(right)
    value: Any = None
    if op not in _PLAIN:
        fail("E201", f"`{op}` does not apply to numbers", span)
    if a is not None and b is not None:
        try:
            value = _PLAIN[op](a, b)
        except ZeroDivisionError:
            fail("E122", "division by zero", span)
        except OverflowError:
            fail("E123", "the value is too large", span)
        if isinstance(value, complex):
            fail("E124", "a fractional power of a negative number", span)
    elif op in _COMPARE and not (left.text or right.text):
        fail("E201", f"`{op}` does not apply here", span)
    text = f"{_operand(left)} {op} {_operand(right)}" if left.text or right.text else ""
    return Scalar(value, text)


def _operand(scalar: Scalar) -> str:
    text = scalar.text or str(scalar.value)
    return text if re.fullmatch(r"[\w.]+(\[-?\d+\])?", text) else f"({text})"


def unary(op: str, operand: Scalar, span: Span) -> Scalar:
    if op == "not":
        return Scalar(not truth(operand, span))
    if op == "+":
        return operand
    return binary("-", Scalar(0), operand, span) if is_integer(operand) else _negated(operand, span)


def _negated(operand: Scalar, span: Span) -> Scalar:
    if operand.value is None and not operand.text:
        fail("E201", "`-` does not apply to none", span)
    value = None if number(operand) is None else -number(operand)  # type: ignore[operator]
    return Scalar(value, f"-{_operand(operand)}" if operand.text else "")


def truth(scalar: Scalar, span: Span) -> bool:
    """The truth of a compile-time condition."""
    value = number(scalar)
    if value is None and (scalar.text or isinstance(scalar.value, Size)):
        fail("E208", "this is not known at compile time", span)
    return bool(value)
