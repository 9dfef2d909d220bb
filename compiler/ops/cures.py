"""What is offered where shapes do not match: the usual reasons, each with its cure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tdsl.compiler.ir import Shape, TensorType


def broadcasting(types: Sequence[TensorType]) -> str | None:
    """The cure of shapes that do not broadcast, where they look like a mistake that is often made."""
    if len(types) != 2:
        return None
    left, right = (tuple(map(str, each.shape)) for each in types)
    if left[::-1] == right and len(left) == 2:
        return "transpose one of them: `x.T`"
    longer, shorter = (left, right) if len(left) > len(right) else (right, left)
    if len(longer) > len(shorter):
        return _lost(longer, shorter)
    return _halved(types[0].shape, types[1].shape) or _halved(types[1].shape, types[0].shape)


def _lost(longer: tuple[str, ...], shorter: tuple[str, ...]) -> str | None:
    """A dimension that a reduction has taken, or that was never there."""
    for i in range(len(longer)):
        if (*longer[:i], *longer[i + 1 :]) == shorter:
            at = i - len(longer)
            return f"keep the dimension: `keepdim=true`, or put it back: `.unsqueeze({at})`"
    if shorter and longer[: len(shorter)] == shorter:
        new = ", ".join(["..."] + ["none"] * (len(longer) - len(shorter)))
        return f"sizes are compared from the last on: add new ones behind them, `x[{new}]`"
    return None


def _halved(whole: Shape, part: Shape) -> str | None:
    """Images of which one was pooled, or went through a stride."""
    if len(whole) != 4:
        return None
    found = [re.fullmatch(rf"{re.escape(str(a))} // (\d+)", str(b)) for a, b in zip(whole[2:], part[2:])]
    if not all(found) or len({match[1] for match in found if match}) != 1:
        return None
    stride = next(match[1] for match in found if match)
    return f"downsample the other, as with `Conv2d({whole[1]}, {part[1]}, 1, stride={stride})`"


def product(left: TensorType, right: TensorType) -> str | None:
    """The cure of matrices that do not multiply."""
    if len(left.shape) < 2 or len(right.shape) < 2:
        return None
    if str(left.shape[-1]) == str(right.shape[-1]):
        return "transpose the second: `a @ b.T`"
    return "transpose the first: `a.T @ b`" if str(left.shape[-2]) == str(right.shape[-2]) else None
