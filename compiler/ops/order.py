"""Places of the largest and the smallest."""

from __future__ import annotations

from tdsl.compiler.ops.infer import reduced
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.dsl.diagnostics import fail


def _argmax(b: Bound) -> Types:
    if b.type(0).dtype == "bool":
        fail("E205", f"`{b.op.name}` compares numbers", b.span, str(b.type(0)), help="convert with `.int()`")
    return reduced(b, "i64")


for _name in ("argmax", "argmin"):
    library(_name, "input: tensor, dim: int? = none, keepdim: bool = false", _argmax, f".{_name}")
