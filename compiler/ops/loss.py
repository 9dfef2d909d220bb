"""Losses: PyTorch's, with its arguments, defaults and reductions."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import broadcast, promote, same, same_shape
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, register, signature
from tdsl.dsl.diagnostics import fail

REDUCTIONS = ("mean", "sum", "none")


def _loss(name: str, arguments: str, infer: Any) -> None:
    register(Op(name, Kind.LIBRARY, signature(arguments), infer, f"F.{name}"))


def _reduced(b: Bound, shape: Any) -> Types:
    reduction = b.attrs["reduction"]
    if reduction not in REDUCTIONS + (("batchmean",) if b.op.name == "kl_div" else ()):
        fail("E202", f"`reduction` of `{b.op.name}` is one of {', '.join(REDUCTIONS)}", b.span, f"{reduction!r}")
    dtype = promote(b.inputs[: 2 if b.op.infer is _elementwise else 1])
    return (TensorType(dtype if dtype not in ("i64", "bool") else "float", shape if reduction == "none" else ()),)


def _floats(b: Bound, count: int) -> None:
    for index in range(count):
        if not b.type(index).is_float:
            fail(
                "E205",
                f"`{b.op.name}` needs floating-point values",
                b.span,
                f"argument {index + 1} is {b.type(index)}",
                help="convert with `.float()`",
            )


def _elementwise(b: Bound) -> Types:
    """Input and target of one shape: PyTorch warns of a broadcast, which is nearly always a mistake."""
    _floats(b, 2)
    x, target = b.type(0), b.type(1)
    if not same_shape(x.shape, target.shape):
        fail("E203", f"shapes do not match in `{b.op.name}`", b.span, f"{x} and {target}")
    for index in range(2, len(b.inputs)):
        name = b.op.signature[index].name
        if b.given(index) and not same_shape(broadcast([x, b.type(index)], f"{name} of {b.op.name}", b.span), x.shape):
            fail("E203", f"`{name}` of `{b.op.name}` has more than the input", b.span, str(b.type(index)))
    return _reduced(b, x.shape)


def _classes(b: Bound) -> Types:
    scores, target = b.type(0), b.type(1)
    if not scores.is_float or not scores.shape:
        fail("E205", f"`{b.op.name}` needs class scores float[B, classes, ...]", b.span, str(scores))
    axis = 0 if len(scores.shape) == 1 else 1
    wanted = scores.shape[:axis] + scores.shape[axis + 1 :]
    if b.given(2) and not (len(b.type(2).shape) == 1 and same(b.type(2).shape[0], scores.shape[axis])):
        fail("E203", f"`weight` of `{b.op.name}` has one number a class", b.span, str(b.type(2)))
    if target.is_float and b.op.name == "cross_entropy" and same_shape(target.shape, scores.shape):
        if b.attrs["ignore_index"] != -100:
            fail("E202", "`ignore_index` goes with classes, not with probabilities", b.span, f"the target is {target}")
        return _reduced(b, wanted)
    if target.is_float or target.dtype == "bool":
        fail("E205", f"`{b.op.name}` needs classes as integers", b.span, f"the target is {target}")
    if not same_shape(target.shape, wanted):
        fail(
            "E203",
            f"shapes do not match in `{b.op.name}`",
            b.span,
            f"scores {scores} want a target int[{', '.join(map(str, wanted))}], not {target}",
        )
    return _reduced(b, wanted)


def _triplet(b: Bound) -> Types:
    _floats(b, 3)
    shape = broadcast([b.type(i) for i in range(3)], b.op.name, b.span)
    return _reduced(b, shape[:-1])


PAIR = "input: tensor, target: tensor"
END = '*, reduction: str = "mean"'
for _name, _middle in (
    ("mse_loss", ""),
    ("l1_loss", ""),
    ("smooth_l1_loss", ", beta: float = 1.0"),
    ("huber_loss", ", delta: float = 1.0"),
    ("kl_div", ", log_target: bool = false"),
    ("binary_cross_entropy", ", weight: tensor? = none"),
    ("binary_cross_entropy_with_logits", ", weight: tensor? = none, pos_weight: tensor? = none"),
    ("poisson_nll_loss", ", log_input: bool = true, full: bool = false"),
):
    _loss(_name, f"{PAIR}{_middle}, {END}", _elementwise)
_loss(
    "cross_entropy",
    f"{PAIR}, weight: tensor? = none, *, ignore_index: int = -100, label_smoothing: float = 0.0, "
    'reduction: str = "mean"',
    _classes,
)
_loss("nll_loss", f'{PAIR}, weight: tensor? = none, *, ignore_index: int = -100, reduction: str = "mean"', _classes)
_loss(
    "triplet_margin_loss",
    "anchor: tensor, positive: tensor, negative: tensor, margin: float = 1.0, p: float = 2.0, swap: bool = false, "
    'reduction: str = "mean"',
    _triplet,
)
