"""The shapes that indices and views give to the columns of a field.

A shape is that of all rows, and begins with `ROWS` where it is of columns, not of constants alone. None is a shape that
is not known. What would pick or mix rows is an error, as is what the shape of a row does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TypeAlias

from tdsl.dsl import ast
from tdsl.dsl.constants import Lookup, fold
from tdsl.dsl.diagnostics import ProgramError, fail

# In a shape: the number of rows.
ROWS = -1
Shape: TypeAlias = tuple[int, ...]


def row(shape: Shape) -> str:
    """`[3, 8] a row`."""
    return f"{list(shape[1:])} a row" if shape[:1] == (ROWS,) else str(list(shape))


# Indices ------------------------------------------------------------------------------------------------------------


def indexed(index: ast.Index, shape: Shape | None, lookup: Lookup) -> Shape | None:
    """The shape of `value[items]`. Raises ProgramError where rows are picked, and for what a row does not have."""
    if shape is None:
        return None
    items = _spread(index, len(shape))
    found: list[int] = []
    left = list(shape)
    for item in items:
        if isinstance(item, ast.Literal) and item.value is None:
            found.append(1)
            continue
        taken = _taken(item, left.pop(0), lookup)
        if taken is None:
            return None
        found += taken
    if shape[:1] == (ROWS,) and found[:1] != [ROWS]:
        help = "the first place of an index is that of the rows: keep it whole, as in `[:, 0]`"
        fail("E406", "a field has a value for each row", index.span, f"its columns give {row(shape)}", help=help)
    return (*found, *left)


def _spread(index: ast.Index, rank: int) -> list[ast.Expr]:
    """The items of an index with `...` written out."""
    items = list(index.items)
    whole = ast.Slice(index.span, None, None, None)
    dots = [at for at, item in enumerate(items) if isinstance(item, ast.Ellipsis_)]
    taken = sum(not (isinstance(item, ast.Literal) and item.value is None) for item in items) - len(dots)
    if taken > rank:
        dimensions = f"{rank} dimension{'s' * (rank != 1)}, the rows' included"
        fail("E406", f"an index of {taken} places into {dimensions}", index.span, help="leave out those beyond them")
    for at in dots[:1]:
        items[at : at + 1] = [whole] * (rank - taken)
    return items


def _taken(item: ast.Expr, size: int, lookup: Lookup) -> Shape | None:
    """What an item leaves of a dimension; None where that is not known."""
    if isinstance(item, ast.Slice):
        parts = [None if part is None else _number(part, lookup) for part in (item.start, item.stop, item.step)]
        if any(part is None and given is not None for part, given in zip(parts, (item.start, item.stop, item.step))):
            return None
        start, stop, step = parts
        if size == ROWS:
            return (ROWS,) if start in (None, 0) and stop is None and step in (None, 1) else (0,)
        return None if step is not None and step < 1 else (len(range(size)[start:stop:step]),)
    number = _number(item, lookup)
    if number is None:
        return None
    if size != ROWS and not -size <= number < size:
        fail("E406", f"no place {number} among {size}", item.span, help=f"the places are 0 to {size - 1}")
    return ()


def _number(expr: ast.Expr, lookup: Lookup) -> int | None:
    try:
        found = fold(expr, lookup)
    except ProgramError:
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


# Views --------------------------------------------------------------------------------------------------------------


def viewed(call: ast.Call, shape: Shape | None, lookup: Lookup) -> Shape | None:
    """The shape of `value.flatten(-2)` or `value.reshape(8, 8)`; None of other methods.

    Raises ProgramError for a dimension that a row does not have, and for sizes that its values do not make up.
    """
    assert isinstance(call.function, ast.Attribute)
    name = call.function.name
    numbers = {arg.name or at: _number(arg.value, lookup) for at, arg in enumerate(call.args)}
    if shape is None or shape[:1] != (ROWS,) or None in numbers.values():
        return None
    known = {key: value for key, value in numbers.items() if value is not None}
    if name in ("reshape", "view"):
        return _reshaped(call, shape, tuple(known.values()))
    if name not in VIEWS:
        return None
    (first, second), view = VIEWS[name]
    dims = known.get(0, known.get(first)), known.get(1, known.get(second, -1 if name == "flatten" else None))
    # Those that are counted from the front are refused elsewhere.
    places = [_place(dim, shape, call) for dim in dims if dim is not None and dim < 0]
    return view(shape, *places) if len(places) == 2 else None


def _place(dim: int, shape: Shape, call: ast.Call) -> int:
    if dim + len(shape) < 1:
        help = f"those of a row are {1 - len(shape)} to -1" if len(shape) > 1 else "a row is one number"
        fail("E406", f"a row has no dimension {dim}", call.span, f"its columns give {row(shape)}", help=help)
    return dim + len(shape)


def _reshaped(call: ast.Call, shape: Shape, sizes: Shape) -> Shape | None:
    if any(size < 0 for size in sizes):
        return None
    if prod(sizes) != prod(shape[1:]):
        fail("E406", f"{prod(shape[1:])} values do not make up {list(sizes)}", call.span,
             f"its columns give {row(shape)}", help="give sizes of as many values")  # fmt: skip
    return (ROWS, *sizes)


def _flattened(shape: Shape, first: int, last: int) -> Shape:
    return (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]) if first <= last else shape


def _transposed(shape: Shape, first: int, second: int) -> Shape:
    found = list(shape)
    found[first], found[second] = found[second], found[first]
    return tuple(found)


def _moved(shape: Shape, source: int, destination: int) -> Shape:
    found = list(shape)
    found.insert(destination, found.pop(source))
    return tuple(found)


# Of views whose dimensions may be counted from the end: what these are called, and the shape that comes out.
VIEWS: Mapping[str, tuple[tuple[str, str], Callable[[Shape, int, int], Shape]]] = {
    "flatten": (("start_dim", "end_dim"), _flattened),
    "transpose": (("dim0", "dim1"), _transposed),
    "movedim": (("source", "destination"), _moved),
}
