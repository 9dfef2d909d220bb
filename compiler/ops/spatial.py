"""What convolutions, pooling and resizing share: inputs [N, C, *sizes] or [C, *sizes], and one number a dimension."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import known, quotient, stated, tensors
from tdsl.compiler.ops.op import Bound
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

_AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


def spatial(b: Bound, n: int) -> TensorType:
    """The input of an op over the last `n` dimensions, with or without a batch; E203 for any other."""
    x = b.type(0)
    if len(x.shape) not in (n + 1, n + 2):
        wanted = f"[N, channels, {_AXES[n]}] or [channels, {_AXES[n]}]"
        fail("E203", f"`{b.op.name}` needs float{wanted}", b.span, f"this is {x}")
    floating(b)
    return x


def floating(b: Bound) -> None:
    """E205 where the first operand holds no floating-point values."""
    if not b.type(0).is_float:
        help = "convert with `.float()`"
        fail("E205", f"`{b.op.name}` needs floating-point values", b.span, f"this is {b.type(0)}", help=help)


def agreeing(b: Bound, *indices: int) -> None:
    """E205 where tensors, all or those with these numbers, differ in dtype: PyTorch promotes nothing here."""
    types = [b.type(i) for i in indices] or tensors(b)
    if len({"float" if t.dtype == "f32" else t.dtype for t in types}) > 1:
        given = " and ".join(map(str, types[:3]))
        fail("E205", f"dtypes do not match in `{b.op.name}`", b.span, given, help="convert one with `cast(x, dtype)`")


def each(b: Bound, name: str, n: int, least: int | None = None) -> tuple[Size, ...]:
    """An argument that is a number for all dimensions or one for each; E202 where it is neither, or too small."""
    value: Any = b.attrs[name]
    items = value if isinstance(value, tuple) else (value,)
    if len(items) == 1:
        items = items * n
    whole = all(isinstance(v, (int, Size)) and not isinstance(v, bool) for v in items)
    if len(items) != n or not whole:
        fail("E202", f"`{name}` of `{b.op.name}` is an integer or {n} of them", b.span, f"this is {shown(value)}")
    found = tuple(Size.of(v) for v in items)
    if least is not None and any(below(size, least) for size in found):
        fail("E202", f"`{name}` of `{b.op.name}` is at least {least}", b.span, f"this is {shown(value)}")
    return found


def below(size: Size, least: int) -> bool:
    """Whether a size is known to be less."""
    number = known(size)
    return number is not None and number < least


def shown(value: Any) -> str:
    """An attribute as the program writes it."""
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return "none" if value is None else str(value)


def fitting(b: Bound, name: str, room: Size) -> None:
    """E203 where a window is larger than what it goes over: `room` is what is left beside it, less than 0."""
    number = known(room)
    if number is not None and number < 0:
        fail("E203", f"the {name} of `{b.op.name}` is larger than its input", b.span, f"this is {b.type(0)}")


def divided(b: Bound, what: str, size: Size, by: Size) -> Size:
    """`size / by`; E203 where that is known to leave a remainder, E208 where nothing proves that it leaves none."""
    found = quotient(size, by)
    if found is not None:
        return found
    if known(size) is None or known(by) is None:
        given, help = f"{size} by {by}", stated(size, by)
        fail("E208", f"can't prove that {what} of `{b.op.name}` divide evenly", b.span, given, help=help)
    fail("E203", f"{what} of `{b.op.name}` do not divide evenly", b.span, f"{size} by {by}")
