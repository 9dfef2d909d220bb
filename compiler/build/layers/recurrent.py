"""Recurrent layers: `y, state = lstm(x)`, `y, h = gru(x)`, and on from a state: `lstm(x, state)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tdsl.compiler.build.layers.layer import Args, layer, one_of, size
from tdsl.compiler.ir import Attr, Shape
from tdsl.compiler.ops.infer import known
from tdsl.compiler.ops.spatial import below
from tdsl.dsl.diagnostics import Span, fail

MOST_LAYERS = 1000


def _weights(gates: int) -> Callable[[Args], Mapping[str, Shape]]:
    """PyTorch's names: `weight_ih_l0`, `weight_hh_l0_reverse`, ..., a layer and a direction at a time.

    Of layers whose number is a parameter of a module that nothing makes, those of the first.
    """

    def make(a: Args) -> Mapping[str, Shape]:
        hidden, projected = size(a["hidden_size"]), a.get("proj_size") or 0
        width = size(projected) if projected else hidden
        directions = ("", "_reverse") if a["bidirectional"] else ("",)
        found: dict[str, Shape] = {}
        layers = known(size(a["num_layers"]))
        for index in range(1 if layers is None else layers):
            read = size(a["input_size"]) if index == 0 else width * len(directions)
            for direction in directions:
                end = f"l{index}{direction}"
                found |= {f"weight_ih_{end}": (hidden * gates, read), f"weight_hh_{end}": (hidden * gates, width)}
                if a["bias"]:
                    found |= {f"bias_ih_{end}": (hidden * gates,), f"bias_hh_{end}": (hidden * gates,)}
                if projected:
                    found[f"weight_hr_{end}"] = (width, hidden)
        return found

    return make


def _check(a: Args, span: Span) -> None:
    layers = known(size(a["num_layers"]))
    if layers is not None and layers < 1:
        fail("E202", "`num_layers` is at least 1", span, f"this is {layers}")
    if layers is not None and layers > MOST_LAYERS:
        fail("E209", f"more than {MOST_LAYERS:,} layers in one", span, f"`num_layers` is {layers}")
    if below(size(a["hidden_size"]), 1):
        fail("E202", "`hidden_size` is at least 1", span, f"this is {a['hidden_size']}")
    hidden, projected = known(size(a["hidden_size"])), known(size(a.get("proj_size") or 0))
    if hidden is not None and projected is not None and projected and projected >= hidden:
        fail("E202", "`proj_size` is smaller than `hidden_size`", span, f"{projected} and {hidden}")
    rate = a["dropout"]
    if isinstance(rate, (int, float)) and not 0 <= rate <= 1:
        fail("E202", "the rate of dropout is between 0 and 1", span, f"this is {rate}")
    if isinstance(rate, (int, float)) and rate and layers == 1:
        help = "use `num_layers=2` or more, or `dropout(y, p)` after the layer"
        fail("E202", "`dropout` is between layers, and there is only one", span, help=help)
    if "nonlinearity" in a:
        one_of(a, "nonlinearity", ("tanh", "relu"), span)


def _attrs(a: Args) -> Mapping[str, Attr]:
    return {name: a[name] for name in ("input_size", "hidden_size", "num_layers", "batch_first", "bidirectional")}


_SIZES = "input_size: size, hidden_size: size, num_layers: size = 1"
_END = "bias: bool = true, batch_first: bool = false, dropout: float = 0.0, bidirectional: bool = false"
for _name, _arguments, _gates in (
    ("LSTM", f"{_SIZES}, {_END}, proj_size: size = 0", 4),
    ("GRU", f"{_SIZES}, {_END}", 3),
    ("RNN", f'{_SIZES}, nonlinearity: str = "tanh", {_END}', 1),
):
    layer(
        _name,
        _arguments,
        _name.lower(),
        more=_weights(_gates),
        attrs=_attrs,
        inputs="input: tensor, hx: tensors? = none" if _name == "LSTM" else "input: tensor, hx: tensor? = none",
        state=("h_0", "c_0") if _name == "LSTM" else ("h_0",),
        infer={"input_size": (0, -1)},
        check=_check,
    )
