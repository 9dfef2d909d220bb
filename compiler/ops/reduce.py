"""Reductions left to PyTorch: `prod`, `max`, `min`, `all`, `any`."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import reduced, reduced_sum
from tdsl.compiler.ops.op import OPS, Bound, Kind, Op, Types, library, signature
from tdsl.compiler.ops.rows import DTYPE, extreme

ALONG = "input: tensor, dim: int, keepdim: bool = false"


def form(name: str, arguments: str, infer: object, results: tuple[str, ...] = ()) -> Op:
    """A further form of an op, of the same name."""
    return Op(name, Kind.LIBRARY, signature(arguments), infer, f".{name}", results=results)  # type: ignore[arg-type]


def with_places(b: Bound) -> Types:
    """Values and where they are."""
    (values,) = extreme(b)
    return values, TensorType("i64", values.shape)


def _truth(b: Bound) -> Types:
    return reduced(b, "u8" if b.type(0).dtype == "u8" else "bool")


PLACED = ("values", "indices")
for _name, _of_two in (("max", "maximum"), ("min", "minimum")):
    along = form(_name, ALONG, with_places, PLACED)
    library(_name, "input: tensor", extreme, f".{_name}", overloads=(along, OPS[_of_two]))
for _name in ("all", "any"):
    over = form(_name, "input: tensor, dim: sizes?, keepdim: bool = false", _truth)
    library(_name, "input: tensor", _truth, f".{_name}", overloads=(over,))
library("prod", "input: tensor" + DTYPE, reduced_sum, ".prod", overloads=(form("prod", ALONG + DTYPE, reduced_sum),))
