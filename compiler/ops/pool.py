"""Pooling: the greatest or the mean of windows, or of as many windows as the result is to have."""

from __future__ import annotations

from collections.abc import Callable

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Call
from tdsl.compiler.ops.infer import known
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.spatial import each, fitting, shown, spatial
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

ONE = Size.of(1)


def _pool(n: int) -> Callable[[Bound], Types]:
    def infer(b: Bound) -> Types:
        x = spatial(b, n)
        if b.attrs.get("divisor_override") == 0:
            fail("E202", f"`divisor_override` of `{b.op.name}` is not 0", b.span)
        kernel = each(b, "kernel_size", n, 1)
        stride = kernel if b.attrs["stride"] in (None, ()) else each(b, "stride", n, 1)
        dilation = each(b, "dilation", n, 1) if "dilation" in b.attrs else (ONE,) * n
        windows = zip(x.shape[-n:], kernel, stride, each(b, "padding", n, 0), dilation)
        sizes = tuple(_windows(b, *window) for window in windows)
        return _results(b, TensorType(x.dtype, (*x.shape[:-n], *sizes)))

    return infer


def _results(b: Bound, type: TensorType) -> Types:
    """With the places of the greatest where they are asked for."""
    return (type, TensorType("i64", type.shape)) if b.attrs.get("return_indices") else (type,)


def _windows(b: Bound, size: Size, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Size:
    """How many windows there are. With `ceil_mode` the last may go over the end, but starts within the padded input."""
    reach = dilation * (kernel - 1) + 1
    half, pad = known(reach), known(padding)
    if half is not None and pad is not None and pad > half // 2:
        fail("E202", f"`padding` of `{b.op.name}` is at most half of its kernel", b.span, f"{pad} and {half}")
    room = size + padding * 2 - reach
    if not b.attrs["ceil_mode"]:
        fitting(b, "kernel", room)
        return room // stride + 1
    up, within = room + stride, size + padding
    more = known(up - within)
    if more is None:
        help = "make kernel, stride and padding constants"
        fail("E208", f"`ceil_mode` of `{b.op.name}` needs known windows", b.span, shown(b.attrs["stride"]), help=help)
    least = up if more <= 0 else within
    fitting(b, "kernel", least - 1)
    return (least + stride - 1) // stride


def _adaptive(n: int) -> Callable[[Bound], Types]:
    def infer(b: Bound) -> Types:
        x = spatial(b, n)
        given = b.attrs["output_size"]
        wanted = given if isinstance(given, tuple) else (given,) * n
        whole = all(v is None or (isinstance(v, (int, Size)) and not isinstance(v, bool)) for v in wanted)
        if len(wanted) != n or not whole:
            fail("E202", f"`output_size` of `{b.op.name}` is an integer or {n}, or none", b.span, shown(given))
        sizes = tuple(s if w is None else Size.of(w) for s, w in zip(x.shape[-n:], wanted))  # type: ignore[arg-type]
        if any((known(s) or 0) < 0 for s in sizes):
            fail("E202", f"`output_size` of `{b.op.name}` is not negative", b.span, shown(given))
        return _results(b, TensorType(x.dtype, (*x.shape[:-n], *sizes)))

    return infer


def _places(call: Call) -> int:
    """Where each maximum was."""
    return 8 * call.results[0].elements


_WINDOW = "input: tensor, kernel_size: sizes, stride: sizes? = none, padding: sizes = 0"
for _n in (1, 2, 3):
    library(
        f"max_pool{_n}d",
        f"{_WINDOW}, dilation: sizes = 1, ceil_mode: bool = false, return_indices: bool = false",
        _pool(_n),
        keeps_more=_places,
    )
    _divisor = ", divisor_override: int? = none" if _n > 1 else ""
    library(
        f"avg_pool{_n}d", f"{_WINDOW}, ceil_mode: bool = false, count_include_pad: bool = true{_divisor}", _pool(_n)
    )
    library(f"adaptive_avg_pool{_n}d", "input: tensor, output_size: any", _adaptive(_n))
    library(
        f"adaptive_max_pool{_n}d",
        "input: tensor, output_size: any, return_indices: bool = false",
        _adaptive(_n),
        keeps_more=_places,
    )
