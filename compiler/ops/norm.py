"""Normalisation over groups, batches and neighbouring channels, left to PyTorch. Those over rows are in `rows`."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import known, same_shape
from tdsl.compiler.ops.op import Bound, Types, internal, library
from tdsl.compiler.ops.spatial import below, divided, floating
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail


def _ranked(b: Bound, least: int, wanted: str) -> TensorType:
    """The input, which has at least so many dimensions."""
    floating(b)
    x = b.type(0)
    if len(x.shape) < least:
        fail("E203", f"`{b.op.name}` needs float{wanted}", b.span, f"this is {x}")
    return x


def _vectors(b: Bound, channels: Size) -> None:
    """Every tensor beside the input holds one number a channel."""
    operands = [arg.name for arg in b.op.signature if arg.is_operand]
    for index in range(1, len(b.inputs)):
        if b.given(index) and not same_shape(b.type(index).shape, (channels,)):
            what = f"`{operands[index]}` of `{b.op.name}` has one number a channel, {channels} here"
            fail("E203", what, b.span, f"this is {b.type(index)}", notes=(f"the input is {b.type(0)}",))


def _group_norm(b: Bound) -> Types:
    x = _ranked(b, 2, "[N, channels, ...]")
    groups = Size.of(b.attrs["num_groups"])  # type: ignore[arg-type]
    if below(groups, 1):
        fail("E202", "`num_groups` is at least 1", b.span, f"this is {groups}")
    divided(b, "the channels", x.shape[1], groups)
    _vectors(b, x.shape[1])
    return (x,)


def _batch_norm(b: Bound) -> Types:
    if any(known(s) == 0 for s in b.type(0).shape):
        return (b.type(0),)
    x = _ranked(b, 2, "[N, channels, ...]")
    if not b.attrs["training"] and not (b.given(1) and b.given(2)):
        help = "give both, or `training=true`"
        fail("E202", "`batch_norm` needs `running_mean` and `running_var` when it is not training", b.span, help=help)
    _vectors(b, x.shape[1])
    return (x,)


def _instance_norm(b: Bound) -> Types:
    x = _ranked(b, 3, "[N, channels, sizes]")
    if not b.attrs["use_input_stats"] and not (b.given(1) and b.given(2)):
        fail("E202", "`instance_norm` needs `running_mean` and `running_var` without `use_input_stats`", b.span)
    if all(known(s) == 1 for s in x.shape[2:]):
        fail("E203", "`instance_norm` of a single number a channel", b.span, f"this is {x}")
    _vectors(b, x.shape[1])
    return (x,)


def _layer_norm(b: Bound) -> Types:
    """A layer has its running numbers itself, and takes inputs of its own ranks."""
    ranks: Any = b.attrs["ranks"]
    rank = len(b.type(0).shape)
    floating(b)
    if rank not in ranks:
        wanted = " or ".join(map(str, ranks))
        fail("E203", f"`{b.op.name}` needs {wanted} dimensions", b.span, f"this is {b.type(0)}")
    batched = b.op.name == "batch_norm_layer" or rank == max(ranks)
    _vectors(b, b.type(0).shape[1 if batched else 0])
    return (b.type(0),)


def _local_response_norm(b: Bound) -> Types:
    x = _ranked(b, 3, "[N, channels, sizes]")
    if below(Size.of(b.attrs["size"]), 1):  # type: ignore[arg-type]
        fail("E202", "`size` of `local_response_norm` is at least 1", b.span, f"this is {b.attrs['size']}")
    return (x,)


_RUNNING = "running_mean: tensor?{0}, running_var: tensor?{0}, weight: tensor? = none, bias: tensor? = none"
library(
    "group_norm",
    "input: tensor, num_groups: int, weight: tensor? = none, bias: tensor? = none, eps: float = 1e-5",
    _group_norm,
)
library(
    "batch_norm",
    f"input: tensor, {_RUNNING.format('')}, training: bool = false, momentum: float? = 0.1, eps: float = 1e-5",
    _batch_norm,
    effects=True,
)
library(
    "instance_norm",
    f"input: tensor, {_RUNNING.format(' = none')}, use_input_stats: bool = true, momentum: float = 0.1, "
    "eps: float = 1e-5",
    _instance_norm,
    effects=True,
)
library(
    "local_response_norm",
    "input: tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0",
    _local_response_norm,
)
for _name in ("batch_norm_layer", "instance_norm_layer"):
    library(
        _name,
        "input: tensor, weight: tensor? = none, bias: tensor? = none, ranks: any = none",
        _layer_norm,
        effects=True,
    )

internal("batch_norm_layer", "instance_norm_layer")
