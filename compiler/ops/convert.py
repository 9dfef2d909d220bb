"""Conversions between dtypes: `cast(x, bf16)`, `x.to(bf16)`, `x.float()`, `x.int()`, `x.bool()`."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature


def _cast(b: Bound) -> Types:
    dtype = b.attrs["dtype"]
    assert isinstance(dtype, str)
    return (TensorType(dtype, b.type(0).shape),)


register(Op("cast", Kind.LIBRARY, signature("input: tensor, dtype: dtype"), _cast, ".to"))


def _to(dtype: str, torch: str) -> None:
    def infer(b: Bound) -> Types:
        return (TensorType(dtype, b.type(0).shape),)

    register(Op(f"to_{torch}", Kind.LIBRARY, signature("input: tensor"), infer, f".{torch}"))


_to("float", "float")
_to("i64", "long")
_to("bool", "bool")

internal("to_float", "to_long", "to_bool")
