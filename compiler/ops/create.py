"""Tensors from nothing but numbers, and parts of a triangle. They are made where the inputs lie, not copied there."""

from __future__ import annotations

import math
from typing import Any

from tdsl.compiler.ir import Attr, Scalar, Shape, TensorType
from tdsl.compiler.ops.bounds import at_least
from tdsl.compiler.ops.infer import known
from tdsl.compiler.ops.op import Bound, Types, library, movement
from tdsl.compiler.ops.shape import need_rank, several, typed
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

OPTIONS = "*, dtype: dtype? = none, device: device = none"


def made(b: Bound, shape: Shape, default: str = "float") -> Types:
    """A new tensor: of the dtype that the call asks for, or of its default."""
    dtype = b.attrs["dtype"]
    return (TensorType(dtype if isinstance(dtype, str) else default, shape),)


def shape_of(b: Bound, name: str) -> Shape:
    """The sizes in an attribute; E203 for a negative one."""
    sizes = tuple(Size.of(s) for s in several(b.attrs[name]))
    for size in sizes:
        if (known(size) or 0) < 0 or at_least(-1, size):
            fail("E203", f"`{b.op.name}` of a negative size", b.span, str(size))
    return sizes


def dtype_of(value: Attr) -> str:
    """Of a number, as `torch.tensor` and `torch.full` have it."""
    if isinstance(value, Scalar):
        return value.dtype
    return "bool" if isinstance(value, bool) else "i64" if isinstance(value, (int, Size)) else "float"


def options(attrs: dict[str, Any]) -> str:
    """`, dtype=torch.int64, device=x.device`: what of it is given."""
    dtype, device = attrs["dtype"], attrs["device"]
    texts = [f"dtype={torch_dtype(dtype)}"] if dtype is not None else []
    texts += [f"device={device.text}"] if device is not None else []
    return "".join(f", {text}" for text in texts)


def torch_dtype(name: str) -> str:
    """`bf16` as `torch.bfloat16`."""
    kind = name.rstrip("0123456789")
    words = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint", "float": "float32"}
    return f"torch.{words.get(kind, kind)}{name[len(kind) :]}"


def number(value: Any) -> str:
    """A number as Python writes it: a literal, a size, or one that the module has."""
    if isinstance(value, Scalar):
        return value.text or number(value.value)
    return f'float("{value}")' if isinstance(value, float) and not math.isfinite(value) else str(value)


# From a list ---------------------------------------------------------------------------------------------------------


def _tensor(b: Bound) -> Types:
    data = b.attrs["data"]
    dtypes = {dtype_of(value) for value in _leaves(b, data)}
    rank = ("bool", "i64", "float")
    return made(b, _list_shape(b, data), max(dtypes, key=rank.index, default="float"))


def _leaves(b: Bound, data: Attr) -> list[Attr]:
    if isinstance(data, tuple):
        return [leaf for item in data for leaf in _leaves(b, item)]
    if data is None or isinstance(data, str):
        fail("E202", "`tensor` takes numbers and lists of them", b.span)
    return [data]


def _list_shape(b: Bound, data: Attr) -> Shape:
    if not isinstance(data, tuple):
        return ()
    shapes = [_list_shape(b, item) for item in data]
    if any(shape != shapes[0] for shape in shapes):
        fail("E203", "the lists of `tensor` are not equally long", b.span)
    return (Size.of(len(data)), *(shapes[0] if shapes else ()))


def _tensor_text(texts: list[str], attrs: dict[str, Any]) -> str:
    return f"torch.tensor({_listed(attrs['data'])}{options(attrs)})"


def _listed(value: Any) -> str:
    return f"[{', '.join(map(_listed, value))}]" if isinstance(value, tuple) else number(value)


movement("tensor", f"data: any, {OPTIONS}", _tensor, _tensor_text)

# Filled --------------------------------------------------------------------------------------------------------------


def _filled(b: Bound) -> Types:
    return made(b, shape_of(b, "size"))


def _full(b: Bound) -> Types:
    return made(b, shape_of(b, "size"), dtype_of(_fill(b)))


def _fill(b: Bound) -> Attr:
    value = b.attrs["fill_value"]
    if value is None or isinstance(value, (str, tuple)):
        fail("E202", f"argument `fill_value` of `{b.op.name}` is a number", b.span)
    return value


def _like(b: Bound) -> Types:
    return made(b, b.type(0).shape, b.type(0).dtype)


def _full_like(b: Bound) -> Types:
    _fill(b)
    return _like(b)


def _eye(b: Bound) -> Types:
    n, m = shape_of(b, "n"), shape_of(b, "n" if b.attrs["m"] is None else "m")
    return made(b, (*n, *m))


for _name in ("zeros", "ones"):
    movement(_name, f"*size: size, {OPTIONS}", _filled, f"torch.{_name}")
    movement(f"{_name}_like", "input: tensor, *, dtype: dtype? = none", _like, f"torch.{_name}_like")
movement("full", f"size: shape, fill_value: any, {OPTIONS}", _full, "torch.full")
movement("full_like", "input: tensor, fill_value: any, *, dtype: dtype? = none", _full_like, "torch.full_like")
movement("eye", f"n: size, m: size? = none, {OPTIONS}", _eye, "torch.eye")

# Ranges --------------------------------------------------------------------------------------------------------------


def _limits(attrs: Any) -> tuple[Any, Any, Any]:
    """`start`, `end` and `step`: a single number is the end."""
    start, end, step = attrs["start"], attrs["end"], attrs["step"]
    return (0, start, step) if end is None else (0 if start is None else start, end, step)


def _arange(b: Bound) -> Types:
    limits = _limits(b.attrs)
    if any(v is None or isinstance(v, (str, tuple)) for v in limits):
        fail("E202", "`arange` takes numbers: `arange(end)` or `arange(start, end, step)`", b.span)
    exact = all(dtype_of(v) != "float" for v in limits)
    length = _steps(b, *map(Size.of, limits)) if exact else _float_steps(b, limits)
    return made(b, (length,), "i64" if exact else "float")


def _steps(b: Bound, start: Size, end: Size, step: Size) -> Size:
    """How many integers there are from `start` up (or down) to `end`, without it."""
    by = known(step)
    if by is None:
        fail("E208", "the step of `arange` is a constant", b.span, str(step))
    if by == 0:
        fail("E203", "`arange` with a step of 0", b.span)
    length = end - start if by > 0 else start - end
    if at_least(-1, length):
        fail("E203", f"`arange` from {start} to {end} goes the other way", b.span)
    if not at_least(length, 0):
        low, high = (start, end) if by > 0 else (end, start)
        help = f"state it: `assume {low} <= {high}`"
        fail("E208", f"can't prove that {low} is at most {high}", b.span, help=help)
    return length if abs(by) == 1 else (length + (abs(by) - 1)) // abs(by)


def _float_steps(b: Bound, limits: tuple[Any, Any, Any]) -> Size:
    numbers = [_constant(v) for v in limits]
    if any(n is None or not math.isfinite(n) for n in numbers):
        help = "count with integers and multiply: `arange(T) * 0.5`"
        fail("E208", "the numbers of an `arange` with fractions are constants", b.span, help=help)
    start, end, step = (n for n in numbers if n is not None)
    if step == 0 or (end - start) / step < 0:
        fail("E203", f"`arange` never gets from {start} to {end}", b.span, f"in steps of {step}")
    return Size.of(math.ceil((end - start) / step))


def _constant(value: Any) -> float | None:
    if isinstance(value, Scalar):
        return _constant(value.value)
    found: float | None = known(value) if isinstance(value, Size) else value
    return found


def _arange_text(texts: list[str], attrs: dict[str, Any]) -> str:
    start, end, step = map(number, _limits(attrs))
    given = [start, end, step] if step != "1" else [start, end] if start != "0" else [end]
    return f"torch.arange({', '.join(given)}{options(attrs)})"


def _linspace(b: Bound) -> Types:
    for i, name in enumerate(("start", "end")):
        if b.type(i).shape:
            fail("E203", f"argument `{name}` of `linspace` is a single number", b.span, str(b.type(i)))
    found = made(b, shape_of(b, "steps"))
    if found[0].dtype == "bool":
        fail("E205", "`linspace` makes numbers", b.span, found[0].dtype)
    return found


_RANGE = "start: any = none, end: any = none, step: any = 1"
library("arange", f"{_RANGE}, {OPTIONS}", _arange, _arange_text)
library("linspace", f"start: operand, end: operand, steps: size, {OPTIONS}", _linspace, "torch.linspace")

# Of other tensors ----------------------------------------------------------------------------------------------------


def _triangle(b: Bound) -> Types:
    if len(b.type(0).shape) < 2:
        fail("E203", f"`{b.op.name}` takes a matrix, or several", b.span, str(b.type(0)))
    need_rank(b, 2)
    return typed(b, b.type(0).shape)


for _name in ("tril", "triu"):
    movement(_name, "input: tensor, diagonal: size = 0", _triangle, f"torch.{_name}")


def _one_hot(b: Bound) -> Types:
    classes, labels = b.attrs["num_classes"], b.type(0)
    assert isinstance(classes, (int, Size))
    if labels.dtype != "i64":
        fail("E205", "`one_hot` takes class numbers", b.span, str(labels), help="convert with `.int()`")
    if classes == -1:
        fail("E208", "the number of classes is not known before it runs", b.span, help="say it: `num_classes=10`")
    count = Size.of(classes)
    if at_least(0, count):
        fail("E203", "`one_hot` of no classes", b.span, str(count))
    return (TensorType("i64", (*labels.shape, count)),)


movement("one_hot", "tensor: tensor, num_classes: size = -1", _one_hot, "F.one_hot")
