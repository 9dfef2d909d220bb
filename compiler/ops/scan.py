"""Running sums and products."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import axis, given_dtype, known
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, library, register, signature
from tdsl.compiler.ops.rows import DTYPE


def _running(b: Bound) -> Types:
    """Integers and truth values add up in `i64`, as in `torch.cumsum`."""
    x = b.type(0)
    axis(b.attrs["dim"], len(x.shape), b)
    return (TensorType(given_dtype(b) or (x.dtype if x.is_float else "i64"), x.shape),)


# A row that is added up as it goes must be in registers, all of it.
LONGEST = 4096


def _long(b: Bound) -> bool:
    x = b.type(0)
    rank = len(x.shape)
    columns = known(x.shape[-1]) if rank else None
    if given_dtype(b) or not x.is_float or columns is None or columns > LONGEST:
        return True
    return axis(b.attrs["dim"], rank, b) != rank - 1 or rank < 2


register(
    Op(
        "cumsum",
        Kind.ROW,
        signature("input: tensor, dim: int" + DTYPE),
        _running,
        ".cumsum",
        lower=lambda t, x, **_: t.scan_sum(x),
        unfused=_long,
        keeps=Keeps.NOTHING,
    )
)
library("cumprod", "input: tensor, dim: int" + DTYPE, _running, ".cumprod", keeps=Keeps.INPUTS)
