"""Convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Callable

from tdsl.compiler.build.layers.layer import Args, Shapes, layer, one_of, several, size, where
from tdsl.compiler.ir import Shape
from tdsl.compiler.ops.infer import known
from tdsl.dsl.diagnostics import Span, fail

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _weight(n: int) -> Callable[[Args], Shape]:
    return lambda a: (
        size(a["out_channels"]),
        size(a["in_channels"]) // size(a["groups"]),
        *several(a["kernel_size"], n),
    )


def _transposed_weight(n: int) -> Callable[[Args], Shape]:
    return lambda a: (
        size(a["in_channels"]),
        size(a["out_channels"]) // size(a["groups"]),
        *several(a["kernel_size"], n),
    )


def _checked(n: int) -> Callable[[Args, Span], None]:
    def check(a: Args, span: Span) -> None:
        if len(several(a["kernel_size"], n)) != n:
            fail("E202", f"`kernel_size` is an integer or {n} of them", span)
        groups = known(size(a["groups"]))
        if groups is not None and groups < 1:
            fail("E202", "`groups` is at least 1", span, f"this is {groups}")
        for name in ("in_channels", "out_channels"):
            channels = known(size(a[name]))
            if channels is not None and groups and channels % groups:
                fail("E203", f"`{name}` does not divide into groups", span, f"{channels} into {groups}")
        one_of(a, "padding_mode", PADDING_MODES if "output_padding" not in a else ("zeros",), span)

    return check


def _params(weight: Callable[[Args], Shape]) -> Shapes:
    return {"weight": weight, "bias": where("bias", lambda a: (size(a["out_channels"]),))}


_CHANNELS = "in_channels: size, out_channels: size, kernel_size: sizes, stride: sizes = 1"
for _n in (1, 2, 3):
    layer(
        f"Conv{_n}d",
        f"{_CHANNELS}, padding: any = 0, dilation: sizes = 1, groups: size = 1, bias: bool = true, "
        'padding_mode: str = "zeros"',
        f"conv{_n}d",
        _params(_weight(_n)),
        infer={"in_channels": (0, -_n - 1)},
        check=_checked(_n),
    )
    layer(
        f"ConvTranspose{_n}d",
        f"{_CHANNELS}, padding: sizes = 0, output_padding: sizes = 0, groups: size = 1, bias: bool = true, "
        'dilation: sizes = 1, padding_mode: str = "zeros"',
        f"conv_transpose{_n}d",
        _params(_transposed_weight(_n)),
        infer={"in_channels": (0, -_n - 1)},
        check=_checked(_n),
    )
