"""Losses: PyTorch's, with its arguments, defaults and reductions."""

from __future__ import annotations

from typing import NoReturn

from tdsl.compiler.ir import Shape, TensorType, Value
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import broadcast, known, promote, same, same_shape, tensors
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, library, signature
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import fail

REDUCTIONS = ("mean", "sum", "none")


# What losses share ---------------------------------------------------------------------------------------------------


def _reduced(b: Bound, shape: Shape, count: int = 1) -> Types:
    """A number, or what is not reduced; of the dtype that the first `count` operands have together."""
    reduction = b.attrs["reduction"]
    choices = (*REDUCTIONS, "batchmean") if b.op.name == "kl_div" else REDUCTIONS
    if reduction not in choices:
        fail("E202", f"`reduction` of `{b.op.name}` is one of {', '.join(choices)}", b.span, f"{reduction!r}")
    dtype = promote(b.inputs[:count])
    floats = TensorType(dtype, ()).is_float
    return (TensorType(dtype if floats else "float", shape if reduction == "none" else ()),)


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


def _mismatch(b: Bound, label: str, help: str | None = None) -> NoReturn:
    fail("E203", f"shapes do not match in `{b.op.name}`", b.span, label, help=help)


def _all(b: Bound) -> str:
    return " and ".join(map(str, tensors(b)))


def _name(b: Bound, index: int) -> str:
    return [arg.name for arg in b.op.signature if arg.is_operand][index]


# Values --------------------------------------------------------------------------------------------------------------


def _elementwise(b: Bound) -> Types:
    """Input and target of one shape: PyTorch warns of a broadcast, which is nearly always a mistake."""
    _floats(b, 2)
    x, target = b.type(0), b.type(1)
    if not same_shape(x.shape, target.shape):
        _mismatch(b, f"{x} and {target}", _squeezed(x, target))
    for index in range(2, len(b.inputs)):
        name = _name(b, index)
        if b.given(index) and not same_shape(broadcast([x, b.type(index)], f"{name} of {b.op.name}", b.span), x.shape):
            fail("E203", f"`{name}` of `{b.op.name}` has more than the input", b.span, str(b.type(index)))
    return _reduced(b, x.shape, 2)


def _squeezed(x: TensorType, target: TensorType) -> str | None:
    """A cure where one has a last dimension of 1 and the other has not."""
    for long, short, name in ((x, target, "input"), (target, x, "target")):
        if len(long.shape) == len(short.shape) + 1 and known(long.shape[-1]) == 1:
            return f"drop the last dimension of the {name}: `.squeeze(-1)`"
    return None


def _weighted(b: Bound) -> Types:
    """As above; a weight is of the input's shape."""
    found = _elementwise(b)
    if b.given(2) and not same_shape(b.type(2).shape, b.type(0).shape):
        fail("E203", f"`weight` of `{b.op.name}` is of the input's shape", b.span, f"{b.type(2)} and {b.type(0)}")
    return found


def _gaussian(b: Bound) -> Types:
    """A variance for each value, for each but the last dimension, or where one dimension is 1; or one number."""
    _floats(b, 2)
    x, target, var = b.type(0), b.type(1), b.type(2)
    shape = broadcast([x, target], b.op.name, b.span)
    if not same_shape(shape, x.shape):
        _mismatch(b, f"{x} and {target}")
    if isinstance(b.inputs[2], Value) and not _fits_variance(var.shape, x.shape):
        fail("E203", "`var` of `gaussian_nll_loss` does not fit the input", b.span, f"{var} for {x}")
    return _reduced(b, x.shape, 3)


def _fits_variance(var: Shape, x: Shape) -> bool:
    if same_shape(var, x) or same_shape(var, x[:-1]):
        return True
    other = [v for v, s in zip(var, x) if not same(v, s)]
    return len(var) == len(x) and len(other) == 1 and known(other[0]) == 1


def _together(b: Bound) -> Shape:
    """What tensors of one number of dimensions broadcast to."""
    given = tensors(b)
    if len({len(t.shape) for t in given}) > 1:
        _mismatch(b, _all(b), "give all the same number of dimensions")
    return broadcast(given, b.op.name, b.span)


def _ranking(b: Bound) -> Types:
    return _reduced(b, _together(b), 3)


def _hinge(b: Bound) -> Types:
    _floats(b, 1)
    return _reduced(b, broadcast(tensors(b), b.op.name, b.span), 2)


def _triplet(b: Bound) -> Types:
    _floats(b, 3)
    shape = _together(b)
    margin = b.attrs["margin"]
    if isinstance(margin, (int, float)) and margin <= 0:
        fail("E202", "`margin` of `triplet_margin_loss` is greater than 0", b.span, f"this is {margin}")
    return _reduced(b, shape[:-1], 3)


def _cosine(b: Bound) -> Types:
    """Pairs of rows [N, D] with a target [N], or one pair with a single number."""
    left, right, target = b.type(0), b.type(1), b.type(2)
    rank = len(target.shape)
    pair = broadcast([left, right], b.op.name, b.span)
    if rank > 1 or len(left.shape) != rank + 1 or len(right.shape) != rank + 1:
        _mismatch(b, _all(b), "pairs are [N, D] and [N, D], and their target [N]")
    shape = broadcast([TensorType("float", pair[:-1]), target], b.op.name, b.span)
    return _reduced(b, shape, 2)


# Classes -------------------------------------------------------------------------------------------------------------


def _classes(b: Bound) -> Types:
    scores, target = b.type(0), b.type(1)
    if not scores.is_float or not scores.shape:
        fail("E205", f"`{b.op.name}` needs class scores float[B, classes, ...]", b.span, str(scores))
    axis = 0 if len(scores.shape) == 1 else 1
    wanted = scores.shape[:axis] + scores.shape[axis + 1 :]
    _class_weight(b, scores.shape[axis])
    smoothing = b.attrs.get("label_smoothing", 0.0)
    if isinstance(smoothing, (int, float)) and not 0 <= smoothing <= 1:
        fail("E202", f"`label_smoothing` of `{b.op.name}` is between 0 and 1", b.span, f"this is {smoothing}")
    if target.is_float and b.op.name == "cross_entropy" and same_shape(target.shape, scores.shape):
        if b.attrs["ignore_index"] != -100:
            fail("E202", "`ignore_index` goes with classes, not with probabilities", b.span, f"the target is {target}")
        return _reduced(b, wanted)
    if target.dtype not in ("i64", "u8"):
        help = "declare the field as `int`, or convert it: `.int()`"
        fail("E205", f"`{b.op.name}` needs classes as integers", b.span, f"the target is {target}", help=help)
    if not same_shape(target.shape, wanted):
        one_hot = b.op.name == "cross_entropy" and same_shape(target.shape, scores.shape)
        cure = "give the numbers of the classes, or probabilities as floats: `.float()`" if one_hot else None
        _mismatch(b, f"scores {scores} want a target int[{', '.join(map(str, wanted))}], not {target}", cure)
    return _reduced(b, wanted)


def _class_weight(b: Bound, classes: Size) -> None:
    if b.given(2) and not (len(b.type(2).shape) == 1 and same(b.type(2).shape[0], classes)):
        fail("E203", f"`weight` of `{b.op.name}` has one number a class", b.span, str(b.type(2)))


def _multi_margin(b: Bound) -> Types:
    _floats(b, 1)
    scores, target = b.type(0), b.type(1)
    if len(scores.shape) > 2:
        fail("E203", "`multi_margin_loss` needs class scores float[B, classes]", b.span, f"this is {scores}")
    _class_weight(b, scores.shape[-1] if scores.shape else Size.of(1))
    if b.attrs["p"] not in (1, 2):
        fail("E202", "`p` of `multi_margin_loss` is 1 or 2", b.span, f"this is {b.attrs['p']}")
    if target.dtype != "i64":
        fail("E205", "`multi_margin_loss` needs classes as integers", b.span, f"the target is {target}")
    # A single row of scores may have its one class in a list.
    alone = len(scores.shape) == 1 and len(target.shape) == 1 and known(target.shape[0]) == 1
    if not alone and not same_shape(target.shape, scores.shape[:-1]):
        _mismatch(b, f"scores {scores} want a target int[{', '.join(map(str, scores.shape[:-1]))}], not {target}")
    return _reduced(b, target.shape)


def _ctc(b: Bound) -> Types:
    """Log probabilities [T, N, classes] with targets [N, S], or all of them in one row, and their lengths [N]."""
    _floats(b, 1)
    scores, targets = b.type(0), b.type(1)
    if len(scores.shape) not in (2, 3):
        fail("E203", "`ctc_loss` needs log probabilities float[T, N, classes]", b.span, f"this is {scores}")
    batch = scores.shape[1:-1]
    for index in range(1, len(b.inputs)):
        if b.type(index).is_float or b.type(index).dtype == "bool":
            fail("E205", f"`{_name(b, index)}` of `ctc_loss` holds integers", b.span, f"this is {b.type(index)}")
    if len(targets.shape) not in (1, 2) or (len(targets.shape) == 2 and not same_shape(targets.shape[:1], batch)):
        _mismatch(b, f"log probabilities {scores} and targets {targets}", "targets are [N, S], or all in one row")
    for name, have in _lengths(b).items():
        # Without a batch there is one length, which may stand in a list.
        if not same_shape(have, batch) and (batch or not same_shape(have, (Size.of(1),))):
            wanted = ", ".join(map(str, batch))
            given = ", ".join(map(str, have))
            fail("E203", f"`{name}` of `ctc_loss` is int[{wanted}] here", b.span, f"this is int[{given}]")
    blank, classes = b.attrs["blank"], known(scores.shape[-1])
    if isinstance(blank, int) and (blank < 0 or (classes is not None and blank >= classes)):
        fail("E204", "`blank` of `ctc_loss` is one of the classes", b.span, f"{blank} of {scores.shape[-1]}")
    return _reduced(b, batch)


def _lengths(b: Bound) -> dict[str, Shape]:
    """The shapes of the lengths, which are tensors or lists of integers."""
    if len(b.inputs) > 2:
        return {_name(b, index): b.type(index).shape for index in (2, 3)}
    listed = {name: b.attrs[name] for name in ("input_lengths", "target_lengths")}
    return {name: (Size.of(len(v) if isinstance(v, tuple) else 1),) for name, v in listed.items()}


# The losses ----------------------------------------------------------------------------------------------------------

PAIR = "input: tensor, target: tensor"
TRIPLE = "input1: tensor, input2: tensor, target: tensor"
WEIGHT = "weight: tensor? = none"
END = 'reduction: str = "mean"'

for _loss, _arguments, _infer in (
    ("mse_loss", f"{PAIR}, *, {END}, {WEIGHT}", _weighted),
    ("l1_loss", f"{PAIR}, *, {END}, {WEIGHT}", _weighted),
    ("smooth_l1_loss", f"{PAIR}, *, {END}, beta: float = 1.0", _elementwise),
    ("huber_loss", f"{PAIR}, {END}, delta: float = 1.0, {WEIGHT}", _weighted),
    ("kl_div", f"{PAIR}, *, {END}, log_target: bool = false", _elementwise),
    ("binary_cross_entropy", f"{PAIR}, {WEIGHT}, *, {END}", _elementwise),
    ("binary_cross_entropy_with_logits", f"{PAIR}, {WEIGHT}, *, {END}, pos_weight: tensor? = none", _elementwise),
    (
        "poisson_nll_loss",
        f"{PAIR}, log_input: bool = true, full: bool = false, *, eps: float = 1e-8, {END}",
        _elementwise,
    ),
    (
        "gaussian_nll_loss",
        f"{PAIR}, var: operand, full: bool = false, eps: float = 1e-6, {END}",
        _gaussian,
    ),
    ("hinge_embedding_loss", f"{PAIR}, margin: float = 1.0, *, {END}", _hinge),
    ("margin_ranking_loss", f"{TRIPLE}, margin: float = 0.0, *, {END}", _ranking),
    ("cosine_embedding_loss", f"{TRIPLE}, margin: float = 0.0, *, {END}", _cosine),
    (
        "triplet_margin_loss",
        "anchor: tensor, positive: tensor, negative: tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, "
        f"swap: bool = false, *, {END}",
        _triplet,
    ),
    ("multi_margin_loss", f"{PAIR}, p: int = 1, margin: float = 1.0, {WEIGHT}, *, {END}", _multi_margin),
):
    library(_loss, _arguments, _infer)

_CLASSES = f"{PAIR}, {WEIGHT}, *, ignore_index: int = -100, {END}"
library("nll_loss", _CLASSES, _classes, keeps=Keeps.OTHERS)
library(
    "cross_entropy",
    f"{_CLASSES}, label_smoothing: float = 0.0",
    _classes,
    keeps=Keeps.OTHERS,
    keeps_more=lambda call: call.operand(0).bytes,  # logarithms of probabilities
)

_CTC = f"log_probs: tensor, targets: tensor, input_lengths: {{0}}, target_lengths: {{0}}, blank: int = 0, {END}"
_LISTED = signature(f"{_CTC.format('shape')}, zero_infinity: bool = false")
library(
    "ctc_loss",
    f"{_CTC.format('tensor')}, zero_infinity: bool = false",
    _ctc,
    overloads=(Op("ctc_loss", Kind.LIBRARY, _LISTED, _ctc, "F.ctc_loss"),),
)
