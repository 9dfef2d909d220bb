"""Every op of the language, each one record: importing this package fills the registry `op.OPS`."""

from __future__ import annotations

from tdsl.compiler.ops import (
    attention,
    autograd,
    calls,
    conv,
    convert,
    create,
    elementwise,
    embedding,
    linalg,
    loss,
    norm,
    order,
    random,
    rows,
    shape,
)
from tdsl.compiler.ops.op import OPS, Bound, Kind, Op, register

__all__ = [
    "OPS",
    "Bound",
    "Kind",
    "Op",
    "attention",
    "autograd",
    "calls",
    "conv",
    "convert",
    "create",
    "elementwise",
    "embedding",
    "linalg",
    "loss",
    "norm",
    "order",
    "random",
    "register",
    "rows",
    "shape",
]
