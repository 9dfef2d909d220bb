"""Recurrent layers, left to cuDNN: `lstm`, `gru` and `rnn` are calls of `nn.LSTM`, `nn.GRU` and `nn.RNN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from tdsl.compiler.ir import Shape, TensorType
from tdsl.compiler.ops.cost import Call
from tdsl.compiler.ops.infer import same, same_shape
from tdsl.compiler.ops.op import Bound, Types, internal, library
from tdsl.compiler.ops.spatial import agreeing, floating
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _recurrent(b: Bound) -> Types:
    """The outputs of every step, and the last state of each layer and direction."""
    floating(b)
    x, a = b.type(0), b.attrs
    if len(x.shape) not in (2, 3):
        order = "[N, T, input_size]" if a["batch_first"] else "[T, N, input_size]"
        fail("E203", f"`{_layer(b)}` needs float{order}, or without N", b.span, f"this is {x}")
    if not same(x.shape[-1], _size(a, "input_size")):
        have = f"{x}, whose last size is {x.shape[-1]}"
        fail("E203", f"`{_layer(b)}` reads steps of width {a['input_size']}", b.span, have)
    directions = 2 if a["bidirectional"] else 1
    hidden = _size(a, "hidden_size")
    width = _size(a, "proj_size") if a.get("proj_size") else hidden
    batch = () if len(x.shape) == 2 else (x.shape[0 if a["batch_first"] else 1],)
    layers = _size(a, "num_layers") * directions
    states = [TensorType(x.dtype, (layers, *batch, size)) for size in (width, hidden)[: len(_given(b))]]
    for index, state in enumerate(states, start=1):
        if b.given(index):
            _state(b, index, state.shape)
    agreeing(b)
    return (TensorType(x.dtype, (*x.shape[:-1], width * directions)), *states)


def _size(attrs: Mapping[str, Any], name: str) -> Size:
    return Size.of(attrs[name])


def _layer(b: Bound) -> str:
    return b.op.name.upper()


def _given(b: Bound) -> list[str]:
    """The names of the states."""
    return [arg.name for arg in b.op.signature if arg.kind == "tensor"][1:]


def _state(b: Bound, index: int, shape: Shape) -> None:
    if not same_shape(b.type(index).shape, shape):
        wanted = ", ".join(map(str, shape))
        fail("E203", f"the state of `{_layer(b)}` is float[{wanted}] here", b.span, f"this is {b.type(index)}")


def _arguments(texts: Sequence[str], attrs: Mapping[str, Any]) -> list[str]:
    return [texts[0]] if texts[1] == "None" else [texts[0], texts[1]]


def _pair(texts: Sequence[str], attrs: Mapping[str, Any]) -> list[str]:
    return [texts[0]] if texts[1] == "None" else [texts[0], f"({texts[1]}, {texts[2]})"]


def _pair_targets(names: Sequence[str]) -> tuple[str, ...]:
    output, *state = names
    return (output, "_" if set(state) == {"_"} else f"({', '.join(state)})")


def _flops(call: Call) -> int:
    """Each matrix once a token."""
    matrices = sum(each.elements for each in call.tensors if each.name.startswith("weight_"))
    return 2 * _tokens(call) * matrices


def _gates(call: Call) -> int:
    """The gates of each position."""
    rows = sum(each.shape[0] for each in call.tensors if each.name.startswith("weight_ih"))
    return _tokens(call) * rows * call.operand(0).width


def _tokens(call: Call) -> int:
    return prod(call.operand(0).shape[:-1])


def _gradients(needed: Sequence[bool]) -> int:
    """Each token goes through every matrix: a gradient of all of these, and one of what comes in."""
    return 1 + needed[0]


_COST: Mapping[str, Any] = {"product": _flops, "product_backward": _gradients, "keeps_more": _gates}
_SHAPE = (
    "weights: tensors, input_size: size = 1, hidden_size: size = 1, num_layers: size = 1, batch_first: bool = false, "
    "bidirectional: bool = false"
)
for _name in ("gru", "rnn"):
    _signature = f"input: tensor, h_0: tensor? = none, {_SHAPE}"
    library(_name, _signature, _recurrent, effects=True, arguments=_arguments, **_COST)
library(
    "lstm",
    f"input: tensor, h_0: tensor? = none, c_0: tensor? = none, {_SHAPE}, proj_size: size = 0",
    _recurrent,
    effects=True,
    arguments=_pair,
    targets=_pair_targets,
    **_COST,
)

internal("lstm", "gru", "rnn")
