"""What stands between a value and its gradient."""

from __future__ import annotations

from tdsl.compiler.ops.op import Bound, Types, library


def _detach(b: Bound) -> Types:
    return (b.type(0),)


library("detach", "input: tensor", _detach, ".detach")
