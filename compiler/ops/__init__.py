"""Every op of the language, each one record: importing this package fills the registry `op.OPS`."""

from __future__ import annotations

from tdsl.compiler.ops import elementwise, random, rows
from tdsl.compiler.ops.op import OPS, Bound, Kind, Op, register

__all__ = ["OPS", "Bound", "Kind", "Op", "elementwise", "random", "register", "rows"]
