"""Conversions between dtypes: `cast(x, bf16)`, `x.to(bf16)`, `x.to(y)`, `x.float()`, `x.int()`, `x.bool()`."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, movement, register, signature
from tdsl.compiler.ops.trace import Expr, Tracer


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

# Between these a kernel converts: the run's precision, whole numbers and truth values.
WITHIN = ("float", "i64", "i32", "bool")


def _beyond(b: Bound) -> bool:
    """A dtype that only memory has is PyTorch's affair."""
    (found,) = b.op.infer(b)
    return b.type(0).dtype not in WITHIN or found.dtype not in ("float", "i64", "bool")


def _converted(t: Tracer, x: Expr, dtype: str) -> Expr:
    if dtype == "bool":
        return x if x.type.dtype == "bool" else t.ne(x, 0)
    if dtype == "i64":
        return t.integer(x)
    return x if x.type.is_float else t.real(x)


_as_another = Op(
    "cast", Kind.LIBRARY, signature("input: tensor, other: tensor"), _like, ".to", flops=0, keeps=Keeps.NOTHING
)
register(
    Op(
        "cast",
        Kind.POINTWISE,
        signature("input: tensor, dtype: dtype"),
        _cast,
        ".to",
        lower=_converted,
        unfused=_beyond,
        flops=0,
        keeps=Keeps.NOTHING,
        overloads=(_as_another,),
    )
)
movement("type_as", "input: tensor, other: tensor", _like, ".type_as")


def _to(name: str, dtype: str) -> None:
    def infer(b: Bound) -> Types:
        return (TensorType(dtype, b.type(0).shape),)

    def lower(t: Tracer, x: Expr) -> Expr:
        return _converted(t, x, dtype)

    if dtype not in WITHIN:
        movement(f"to_{name}", "input: tensor", infer, f".{name}")
        return
    register(
        Op(
            f"to_{name}",
            Kind.POINTWISE,
            signature("input: tensor"),
            infer,
            f".{name}",
            lower=lower,
            unfused=_beyond,
            flops=0,
            keeps=Keeps.NOTHING,
        )
    )


for _name, _dtype in METHODS.items():
    _to(_name, _dtype)

internal(*(f"to_{name}" for name in METHODS))
