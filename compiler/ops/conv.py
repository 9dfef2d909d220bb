"""Convolutions, left to cuDNN: over one, two and three dimensions, with a batch or without."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.cost import Call
from tdsl.compiler.ops.infer import known, same, same_shape
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.spatial import agreeing, below, divided, each, fitting, shown, spatial
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _conv(n: int) -> Callable[[Bound], Types]:
    def infer(b: Bound) -> Types:
        x, weight = spatial(b, n), b.type(1)
        groups = _weighted(b, n)
        _grouped(b, x.shape[-n - 1], weight.shape[1], groups)
        if known(groups) and (known(weight.shape[0]) or 0) % (known(groups) or 1):
            fail("E203", f"the outputs of `{b.op.name}` do not divide into groups", b.span, f"{weight.shape[0]}")
        _bias(b, weight.shape[0])
        return (TensorType(x.dtype, (*x.shape[: -n - 1], weight.shape[0], *_sizes(b, n))),)

    return infer


def _weighted(b: Bound, n: int) -> Size:
    """The number of groups; the weight is of the right rank."""
    weight, groups = b.type(1), Size.of(b.attrs["groups"])  # type: ignore[arg-type]
    if len(weight.shape) != n + 2:
        fail("E203", f"the weight of `{b.op.name}` has {n + 2} dimensions", b.span, f"this is {weight}")
    if below(groups, 1):
        fail("E202", f"`groups` of `{b.op.name}` is at least 1", b.span, f"this is {groups}")
    agreeing(b)
    return groups


def _channels(b: Bound, have: Size, want: Size) -> None:
    if not same(have, want):
        fail("E203", f"channels do not match in `{b.op.name}`", b.span, f"{b.type(0)} has {have} channels, not {want}")


def _grouped(b: Bound, have: Size, per_group: Size, groups: Size) -> None:
    """The channels are those of all groups; a layer has `channels // groups` in each."""
    if not same(have, per_group * groups) and same(have // groups, per_group):
        divided(b, "the channels", have, groups)
    else:
        _channels(b, have, per_group * groups)


def _bias(b: Bound, channels: Size) -> None:
    if b.given(2) and not same_shape(b.type(2).shape, (channels,)):
        fail("E203", f"the bias of `{b.op.name}` has {channels} numbers here", b.span, f"this is {b.type(2)}")


def _sizes(b: Bound, n: int) -> tuple[Size, ...]:
    sizes, kernel = b.type(0).shape[-n:], b.type(1).shape[-n:]
    stride, dilation = each(b, "stride", n, 1), each(b, "dilation", n, 1)
    padding = b.attrs["padding"]
    if padding == "same":
        if any(known(s) != 1 for s in stride):
            help = "give the padding as a number"
            fail("E202", f'`padding="same"` of `{b.op.name}` needs a stride of 1', b.span, shown(stride), help=help)
        return sizes
    if isinstance(padding, str) and padding != "valid":
        fail("E202", f'`padding` of `{b.op.name}` is numbers, "same" or "valid"', b.span, f'this is "{padding}"')
    pads = (Size.of(0),) * n if padding == "valid" else each(b, "padding", n, 0)
    found = []
    for size, k, s, p, d in zip(sizes, kernel, stride, pads, dilation):
        room = size + p * 2 - d * (k - 1) - 1
        fitting(b, "kernel", room)
        found.append(room // s + 1)
    return tuple(found)


def _transposed(n: int) -> Callable[[Bound], Types]:
    def infer(b: Bound) -> Types:
        x, weight = spatial(b, n), b.type(1)
        groups = _weighted(b, n)
        _channels(b, x.shape[-n - 1], weight.shape[0])
        channels = weight.shape[1] * groups
        _bias(b, channels)
        return (TensorType(x.dtype, (*x.shape[: -n - 1], channels, *_transposed_sizes(b, n))),)

    return infer


def _transposed_sizes(b: Bound, n: int) -> list[Size]:
    stride, dilation = each(b, "stride", n, 1), each(b, "dilation", n, 1)
    padding, extra = each(b, "padding", n, 0), each(b, "output_padding", n, 0)
    sizes, kernel = b.type(0).shape[-n:], b.type(1).shape[-n:]
    found = []
    for size, k, s, p, o, d in zip(sizes, kernel, stride, padding, extra, dilation):
        numbers = [known(v) for v in (o, s, d)]
        if None not in numbers and numbers[0] >= max(numbers[1:]):  # type: ignore[operator,type-var]
            fail(
                "E202",
                f"`output_padding` of `{b.op.name}` is less than its stride or dilation",
                b.span,
                f"{o} with stride {s} and dilation {d}",
            )
        total = (size - 1) * s - p * 2 + d * (k - 1) + o + 1
        fitting(b, "padding", total - 1)
        found.append(total)
    return found


def _conv_flops(call: Call) -> int:
    return 2 * call.results[0].elements * prod(call.operand(1).shape[1:])


def _transposed_flops(call: Call) -> int:
    return 2 * call.operand(0).elements * prod(call.operand(1).shape[1:])


_COMMON = "input: tensor, weight: tensor, bias: tensor? = none, stride: sizes = 1"
for _n in (1, 2, 3):
    library(
        f"conv{_n}d",
        f"{_COMMON}, padding: any = 0, dilation: sizes = 1, groups: int = 1",
        _conv(_n),
        product=_conv_flops,
    )
    library(
        f"conv_transpose{_n}d",
        f"{_COMMON}, padding: sizes = 0, output_padding: sizes = 0, groups: int = 1, dilation: sizes = 1",
        _transposed(_n),
        product=_transposed_flops,
    )
