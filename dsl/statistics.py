"""What fields take from the rows of the train split: `standardized(...)`, and `missing="mean"` of columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn, TypeGuard

from tdsl.dsl import ast
from tdsl.dsl.categories import called
from tdsl.dsl.constants import Lookup, describe, fold
from tdsl.dsl.declared_names import walk
from tdsl.dsl.diagnostics import Span, fail
from tdsl.dsl.program import Call

NAME = "standardized"
MISSING = "missing"
MEAN = "mean"
COLUMNS = ("column", "columns")
# Sources whose rows are all in memory once they are read.
IN_MEMORY = ("csv", "parquet", "jsonl", "npz", "npy", "safetensors", "idx", "synthetic")
HELP = 'write `standardized(columns("a*"))`'


def is_standardized(expr: ast.Node) -> TypeGuard[ast.Call]:
    """Whether an expression is a call of `standardized`."""
    return called(expr) == NAME


def fitted(expr: ast.Expr, lookup: Lookup) -> bool:
    """Whether an expression takes numbers from the rows of the train split. Raises `ProgramError` for a wrong one."""
    return next(_fits(expr, lookup), None) is not None


def check(field: ast.Field, sources: Mapping[str, Call], splits: Collection[str], by: object, lookup: Lookup) -> None:
    """Refuse a field whose statistics can't be had: its source, its type or the split is another than they need.

    `by` is the field that rows are divided by. Raises `ProgramError`.
    """
    calls = list(_fits(field.value, lookup))
    if not calls:
        return
    place = calls[0].function.span
    twice = [call for call in calls if is_standardized(call)][1:]
    if twice:
        _no("a field is standardized once", twice[0].function.span, "make a field of each")
    for call in sources.values():
        if call.name not in IN_MEMORY:
            message = f"the rows of `{call.name}` are read one by one, and no statistics are taken of them"
            _no(message, place, f"write the numbers, or read {', '.join(IN_MEMORY[:-2])} or {IN_MEMORY[-2]}")
    if sources and "train" not in splits:
        _no("statistics are those of the train split, which has no rows", place, "give it some: `train=0.8`")
    if by == field.name:
        message = f"rows are divided by `{field.name}`, which needs to know those of the train split"
        _no(message, place, 'divide them by a column: `by="name"`')
    dtype = field.type.dtype or "float"
    if field.value in calls and not dtype.startswith(("f", "bf")):
        _no(f"a mean is no whole number, and `{field.name}` is declared as {dtype}", field.type.span, "declare `float`")


def _fits(expr: ast.Expr, lookup: Lookup) -> Iterator[ast.Call]:
    """The calls that take numbers from the train split, once all are known to be well-formed."""
    for each in walk(expr):
        if is_standardized(each):
            _check_standardized(each)
            yield each
        elif isinstance(each, ast.Call) and called(each) in COLUMNS and _filling(each, lookup) == MEAN:
            yield each


def _filling(call: ast.Call, lookup: Lookup) -> object:
    """What stands for the missing values of columns; None where nothing does."""
    value = next((arg.value for arg in call.args if arg.name == MISSING), None)
    if value is None:
        return None
    found = fold(value, lookup)
    number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if not number and found != MEAN:
        help = 'write `missing=0`, or `missing="mean"` for the mean over the train split'
        fail("E409", "missing values become a number, or the mean", value.span, f"this is {describe(found)}", help=help)
    return found


def _check_standardized(call: ast.Call) -> None:
    named = next((arg for arg in call.args if arg.name is not None), None)
    if named is not None and named.name == MISSING:
        fail("E302", "`standardized` has no argument `missing`", named.value.span,
             help='columns have it: `standardized(columns("a*", missing="mean"))`')  # fmt: skip
    if named is not None or len(call.args) != 1:
        fail("E302", "`standardized` takes one expression over columns", call.span, help=HELP)
    value = call.args[0].value
    if not any(called(each) in (*COLUMNS, "categories") for each in walk(value)):
        quoted = isinstance(value, ast.Literal) and isinstance(value.value, str)
        help = f'write `standardized(column("{value.value}"))`' if quoted else HELP  # type: ignore[attr-defined]
        fail("E409", "only columns have statistics", value.span, help=help)


def _no(message: str, span: Span, help: str) -> NoReturn:
    fail("E409", message, span, help=help)
