"""Conversions between dtypes: `cast(x, bf16)`, `x.to(bf16)`, `x.to(y)`, `x.float()`, `x.int()`, `x.bool()`."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, movement, signature


def _cast(b: Bound) -> Types:
    dtype = b.attrs["dtype"]
    assert isinstance(dtype, str)
    return (TensorType(dtype, b.type(0).shape),)


def _like(b: Bound) -> Types:
    return (TensorType(b.type(1).dtype, b.type(0).shape),)


# The methods that no function bears the name of, with what they convert to.
METHODS = {
    "float": "float",
    "double": "f64",
    "half": "f16",
    "bfloat16": "bf16",
    "long": "i64",
    "bool": "bool",
}

_as_another = Op(
    "cast", Kind.LIBRARY, signature("input: tensor, other: tensor"), _like, ".to", flops=0, keeps=Keeps.NOTHING
)
movement("cast", "input: tensor, dtype: dtype", _cast, ".to", overloads=(_as_another,))
movement("type_as", "input: tensor, other: tensor", _like, ".type_as")


def _to(name: str, dtype: str) -> None:
    def infer(b: Bound) -> Types:
        return (TensorType(dtype, b.type(0).shape),)

    movement(f"to_{name}", "input: tensor", infer, f".{name}")


for _name, _dtype in METHODS.items():
    _to(_name, _dtype)

internal(*(f"to_{name}" for name in METHODS))
