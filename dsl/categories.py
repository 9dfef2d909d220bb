"""`categories("species", ["setosa", "virginica"])` in a field: a column whose values are numbered by their places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TypeGuard

from tdsl.dsl import ast
from tdsl.dsl.constants import Lookup, fold
from tdsl.dsl.declared_names import walk
from tdsl.dsl.diagnostics import fail
from tdsl.dsl.program import Categories

NAME = "categories"
HELP = 'write `categories("name", ["first", "second"])`'


def is_categories(expr: ast.Node) -> TypeGuard[ast.Call]:
    """Whether an expression is such a call."""
    return called(expr) == NAME


def called(expr: ast.Node) -> str:
    """The name of the built-in that an expression calls; empty where it is no such call."""
    found = expr.function if isinstance(expr, ast.Call) else None
    return found.id if isinstance(found, ast.Name) else ""


def column_named(call: ast.Call) -> str:
    """The column of such a call. Raises `ProgramError`."""
    name = call.args[0].value if call.args else call.function
    if not isinstance(name, ast.Literal) or not isinstance(name.value, str):
        fail("E302", "a column is named by a string", name.span, help=HELP)
    return name.value


def numbering(call: ast.Call, lookup: Lookup) -> tuple[str, Categories]:
    """The column of such a call, and the values in their order. Raises `ProgramError`."""
    if len(call.args) != 2 or any(arg.name is not None for arg in call.args):
        fail("E302", "`categories` takes the name of a column and the list of its values", call.span, help=HELP)
    listed = call.args[1].value.span
    values = fold(call.args[1].value, lookup)
    if not isinstance(values, tuple) or not values:
        fail("E408", "the categories are a list of one or more", listed, help=HELP)
    if {type(value) for value in values} not in ({str}, {int}):
        fail("E408", "categories are strings, or whole numbers", listed, help="write all of them as the file has them")
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        fail("E408", f"the category {shown(twice)} is there twice", listed, help="each value has one number")
    return column_named(call), values  # type: ignore[return-value]


def shown(value: object) -> str:
    """A category as a program writes it."""
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def all_categories(fields: Iterable[ast.Field], lookup: Lookup) -> Mapping[str, Categories]:
    """The numbered columns of a dataset. Raises `ProgramError` for one that is read in another way, too."""
    fields = list(fields)
    found: dict[str, Categories] = {}
    for call in _calls(fields, NAME):
        column, values = numbering(call, lookup)
        if found.setdefault(column, values) != values:
            message = f"column `{column}` has other categories in another field"
            fail("E408", message, call.span, help="give both the same list, a `const` say")
    for call in (*_calls(fields, "column"), *_calls(fields, "columns")):
        for arg in (arg for arg in call.args if arg.name is None):
            pattern = str(fold(arg.value, lookup))
            numbered = next((name for name in found if fnmatchcase(name, pattern)), None)
            if numbered is not None:
                message = f"column `{numbered}` has categories, and is read as it stands here"
                fail("E408", message, arg.value.span, help="a dataset reads a column in one way")
    return found


def _calls(fields: Iterable[ast.Field], name: str) -> Iterator[ast.Call]:
    for field in fields:
        yield from (each for each in walk(field.value) if isinstance(each, ast.Call) and called(each) == name)
