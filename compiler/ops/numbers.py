"""Sizes and numbers as a kernel is given them: constants, or arguments that the module reads from itself."""

from __future__ import annotations

import re

from tdsl.compiler.ir import Attr, Scalar
from tdsl.compiler.size import Size

Number = int | float | Scalar


def argument(attr: Attr) -> Number | None:
    """A number as an argument: a constant as itself, one in terms of the module's parameters with how it is read.

    `dim // heads` is read `self.dim // self.heads`. None for what depends on sizes of the run, and for no number.
    """
    if isinstance(attr, Scalar):
        return attr if attr.text else argument(attr.value)
    if isinstance(attr, Size):
        if attr.constant is not None:
            return attr.constant
        return Scalar(attr, _read(attr)) if all(symbol.param for symbol in attr.symbols()) else None
    return attr if isinstance(attr, (int, float)) and not isinstance(attr, bool) else None


def _read(size: Size) -> str:
    return re.sub(r"[A-Za-z_]\w*", r"self.\g<0>", str(size))
