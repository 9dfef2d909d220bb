"""Order: the largest and the smallest, where they are, sorting."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.bounds import at_least
from tdsl.compiler.ops.infer import axis, known, refuse_booleans
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.reduce import ALONG, PLACED, form, with_places
from tdsl.compiler.ops.rows import extreme
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _place(b: Bound) -> Types:
    refuse_booleans(b, b.type(0).dtype)
    return (TensorType("i64", extreme(b)[0].shape),)


def _sorted(b: Bound) -> Types:
    x = b.type(0)
    axis(b.attrs["dim"], len(x.shape), b)
    return (x, TensorType("i64", x.shape))


def _topk(b: Bound) -> Types:
    x = b.type(0)
    refuse_booleans(b, x.dtype)
    dim = axis(b.attrs["dim"], len(x.shape), b)
    count = Size.of(b.attrs["k"])  # type: ignore[arg-type]
    if (known(count) or 0) < 0:
        fail("E202", "`k` of `topk` is negative", b.span, str(count))
    if not x.shape:
        return (x, TensorType("i64", ()))
    size = x.shape[dim]
    if not at_least(size, count):
        if known(size) is not None and known(count) is not None:
            fail("E203", f"`topk` of {count} where there are {size}", b.span, str(x))
        fail("E208", f"can't prove that {size} is {count} or more", b.span, str(x), help=f"`assume {size} >= {count}`")
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :])
    return (TensorType(x.dtype, shape), TensorType("i64", shape))


def _median(b: Bound) -> Types:
    refuse_booleans(b, b.type(0).dtype)
    return with_places(b) if "dim" in b.attrs else extreme(b)


for _name in ("argmax", "argmin"):
    library(_name, "input: tensor, dim: int? = none, keepdim: bool = false", _place, f".{_name}")
_ORDER = "dim: int = -1, descending: bool = false"
library(
    "sort",
    f"input: tensor, {_ORDER}",
    _sorted,
    ".sort",
    results=PLACED,
    overloads=(form("sort", f"input: tensor, *, stable: bool?, {_ORDER}", _sorted, PLACED),),
)
library("argsort", f"input: tensor, {_ORDER}, stable: bool = false", lambda b: _sorted(b)[1:], ".argsort")
library(
    "topk",
    "input: tensor, k: size, dim: int = -1, largest: bool = true, sorted: bool = true",
    _topk,
    ".topk",
    results=PLACED,
)
library("median", "input: tensor", _median, ".median", overloads=(form("median", ALONG, _median, PLACED),))
