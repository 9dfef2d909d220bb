"""Running sums and products."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import axis, given_dtype
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.rows import DTYPE


def _running(b: Bound) -> Types:
    """Integers and truth values add up in `i64`, as in `torch.cumsum`."""
    x = b.type(0)
    axis(b.attrs["dim"], len(x.shape), b)
    return (TensorType(given_dtype(b) or (x.dtype if x.is_float else "i64"), x.shape),)


for _name, _keeps in (("cumsum", Keeps.NOTHING), ("cumprod", Keeps.INPUTS)):
    library(_name, "input: tensor, dim: int" + DTYPE, _running, f".{_name}", keeps=_keeps)
