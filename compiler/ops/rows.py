"""Reductions over trailing dimensions, and what is made of them: softmax, norms.

A lowering works on canonical [rows, columns] tensors: `row_sum` and its like are the primitives, [rows, 1] each.
"""

from __future__ import annotations

import math
from typing import Any

from tdsl.compiler.ir import Scalar, TensorType
from tdsl.compiler.ops.cost import Keeps
from tdsl.compiler.ops.infer import (
    ONE,
    axes,
    axis,
    given_dtype,
    known,
    like_input,
    like_input_float,
    promote,
    reduced,
    reduced_float,
    reduced_sum,
    same_shape,
)
from tdsl.compiler.ops.op import Bound, Kind, Op, Types, internal, register, signature
from tdsl.compiler.ops.trace import Expr, Tracer
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import fail

# The iteration space of a kernel, as sizes of canonical tensors.
ROWS, COLS = Size.of(Symbol("rows")), Size.of(Symbol("cols"))
N_COLS, N_ROWS, N_ALL = Scalar(COLS), Scalar(ROWS), Scalar(ROWS * COLS)


def _row(b: Bound) -> Types:
    return (TensorType(b.type(0).dtype, (b.type(0).shape[0], ONE)),)


def _row_primitive(name: str, triton: str, torch: str, vjp: Any) -> None:
    register(Op(name, Kind.REDUCTION, signature("input: tensor"), _row, torch, triton, vjp=vjp))


def _amax_vjp(t: Tracer, g: Expr, y: Expr, x: Expr) -> tuple[Expr]:
    """Shared evenly among equal maxima, as `torch.amax` does."""
    chosen = t.where(t.eq(x, y), 1.0, 0.0)
    return (g * chosen / t.row_sum(chosen),)


_row_primitive(
    "row_sum", "tl.sum({0}, axis=1, keep_dims=True)", ".sum(1, keepdim=True)", lambda t, g, y, x: (t.spread(g),)
)
_row_primitive("row_max", "tm.row_max({0})", ".amax(1, keepdim=True)", _amax_vjp)
_row_primitive("row_min", "tm.row_min({0})", ".amin(1, keepdim=True)", _amax_vjp)


def _column(b: Bound) -> Types:
    return (TensorType(b.type(0).dtype, (ONE, b.type(0).shape[1])),)


for _name, _infer, _torch, _triton, _doc in (
    ("col_sum", _column, ".sum(0, keepdim=True)", "tl.sum({0}, axis=0, keep_dims=True)", "A number a column"),
    ("all_sum", lambda b: (TensorType(b.type(0).dtype, (ONE, ONE)),), ".sum()", "{0}", "One number, of a flat space"),
):
    register(
        Op(
            _name,
            Kind.REDUCTION,
            signature("input: tensor"),
            _infer,
            _torch,
            _triton,
            vjp=lambda t, g, y, x: (t.spread(g, rows_only=x.type.shape[1] == ONE),),
            doc=f"{_doc}: each program adds up what it takes, a second step the programs' sums.",
        )
    )


def _spread(b: Bound) -> Types:
    return (TensorType(b.type(0).dtype, (ROWS, ONE if b.attrs["rows_only"] else COLS)),)


register(
    Op(
        "spread",
        Kind.POINTWISE,
        signature("input: tensor, rows_only: bool = false"),
        _spread,
        ".expand",
        "{0}",
        vjp=lambda t, g, y, x, **_: (g,),
        doc="A row, a column or a number over the whole space, or over the rows alone: Triton broadcasts by itself.",
    )
)

register(
    Op(
        "column",
        Kind.POINTWISE,
        signature(""),
        lambda b: (TensorType("i64", (ONE, COLS)),),
        "torch.arange",
        "cols",
        doc="The number of each column, within kernels.",
    )
)


def _running(name: str, reverse: str, other: str) -> None:
    register(
        Op(
            name,
            Kind.ROW,
            signature("input: tensor"),
            lambda b: (b.type(0),),
            ".cumsum(1)",
            f"tl.cumsum({{0}}, axis=1{reverse})",
            vjp=lambda t, g, y, x: (t(other, g),),
            doc="Sums of a row up to each column, or from each on: of a row that is in registers.",
        )
    )


_running("scan_sum", "", "scan_back")
_running("scan_back", ", reverse=True", "scan_sum")

DIM = "input: tensor, dim: sizes? = none, keepdim: bool = false"
DTYPE = ", *, dtype: dtype? = none"


def _mean(t: Tracer, x: Expr, **_: Any) -> Expr:
    return t.row_sum(x) / N_COLS


def _var(t: Tracer, x: Expr, correction: float | None = None, unbiased: bool = True, **_: Any) -> Expr:
    less = correction if correction is not None else int(unbiased)
    centred = x - _mean(t, x)
    whole = isinstance(less, (int, float)) and less == int(less)
    left = t.wrap(Scalar(COLS - int(less))) if whole else t.sub(N_COLS, less)
    return t.row_sum(centred * centred) / left


def _norm(t: Tracer, x: Expr, p: float | str, **_: Any) -> Expr:
    if p == 0:
        return t.row_sum(t.where(t.ne(x, 0.0), 1.0, 0.0))
    if p == 1:
        return t.row_sum(t.abs(x))
    if p in (float("inf"), "inf"):
        return t.row_max(t.abs(x))
    if p == float("-inf"):
        return t.row_min(t.abs(x))
    # The gradient of the length is x / length, and 0 for a row of zeros, as in PyTorch.
    return t.length(t.row_sum(x * x)) if p in (2, "fro") else t.power(t.row_sum(t.power(t.abs(x), p)), 1.0 / float(p))


def _length_vjp(t: Tracer, g: Expr, y: Expr, x: Expr) -> tuple[Expr]:
    return (t.where(t.eq(y, 0.0), 0.0, g * 0.5 / y),)


register(
    Op(
        "length",
        Kind.POINTWISE,
        signature("input: tensor"),
        lambda b: (b.type(0),),
        "torch.sqrt",
        "tl.sqrt_rn({0})",
        vjp=_length_vjp,
        doc="`sqrt` with gradient 0 at 0, within kernels.",
    )
)


def _in_a_dtype(b: Bound) -> bool:
    """A dtype to compute in is PyTorch's affair."""
    return b.attrs.get("dtype") is not None


def _reduction(name: str, lower: Any, infer: Any = reduced_float, arguments: str = DIM, **more: Any) -> Op:
    torch, unfused = more.pop("torch", f".{name}"), more.pop("unfused", _in_a_dtype)
    return Op(name, Kind.REDUCTION, signature(arguments), infer, torch, lower=lower, unfused=unfused, **more)


def extreme(b: Bound) -> Types:
    """Of a dimension without elements there is no greatest."""
    shape = b.type(0).shape
    if shape and any(known(shape[i]) == 0 for i in axes(b.attrs.get("dim"), b)):
        fail("E203", f"`{b.op.name}` of no elements", b.span, str(b.type(0)))
    return reduced(b)


def _deviation(name: str, lower: Any) -> None:
    """`var` and `std` with a `correction`, and in the older ways `x.var(1, unbiased=False)` and `x.var(False)`."""
    older = (
        "input: tensor, dim: sizes?, unbiased: bool = true, keepdim: bool = false",
        "input: tensor, unbiased: bool",
    )
    forms = tuple(_reduction(name, lower, arguments=arguments) for arguments in older)
    arguments = "input: tensor, dim: sizes? = none, *, keepdim: bool = false, correction: float? = 1"
    register(_reduction(name, lower, arguments=arguments, overloads=forms))


def _order(b: Bound) -> Types:
    p = b.attrs["p"]
    if isinstance(p, (str, Scalar)) and p not in ("fro", "inf"):
        fail("E202", "`p` of `norm` is a number", b.span, f"this is {p!r}", help="the greatest element: `p=inf`")
    if isinstance(p, bool) or not isinstance(p, (int, float, str)):
        fail("E202", "`p` of `norm` is a number", b.span)
    return reduced_float(b)


def _norm_text(texts: list[str], attrs: dict[str, Any]) -> str:
    """`torch.linalg.vector_norm`: `torch.norm` is deprecated."""
    p = {"fro": 2, "inf": float("inf")}.get(attrs["p"], attrs["p"])
    order = "" if p == 2 else f", {p}" if math.isfinite(p) else f', float("{p}")'
    dim = "" if attrs["dim"] is None else f", dim={attrs['dim']}"
    keep = ", keepdim=True" if attrs["keepdim"] else ""
    return f"torch.linalg.vector_norm({texts[0]}{order}{dim}{keep})"


def _logsumexp_type(b: Bound) -> Types:
    """Integers become `float`."""
    return reduced(b, None if b.type(0).is_float else "float")


register(_reduction("sum", lambda t, x, **_: t.row_sum(x), reduced_sum, DIM + DTYPE, total="sum", keeps=Keeps.NOTHING))
register(_reduction("mean", _mean, arguments=DIM + DTYPE, total="mean", keeps=Keeps.NOTHING))
register(_reduction("amax", lambda t, x, **_: t.row_max(x), extreme))
register(_reduction("amin", lambda t, x, **_: t.row_min(x), extreme))
_deviation("var", _var)
_deviation("std", lambda t, x, **a: t.length(_var(t, x, **a)))
register(
    _reduction(
        "norm",
        _norm,
        _order,
        f"input: tensor, p: any = 2.0, {DIM.partition(', ')[2]}",
        torch=_norm_text,
    )
)
register(
    _reduction(
        "logsumexp",
        lambda t, x, **_: _logsumexp(t, x),
        _logsumexp_type,
        "input: tensor, dim: sizes, keepdim: bool = false",
        torch="torch.logsumexp",
    )
)


# Softmax -------------------------------------------------------------------------------------------------------------


def _shifted(t: Tracer, x: Expr) -> Expr:
    """x less its row's maximum, through which no gradient need flow: it cancels."""
    return x - t.stop(t.row_max(x))


def _softmax(t: Tracer, x: Expr, **_: Any) -> Expr:
    e = t.exp(_shifted(t, x))
    return e / t.row_sum(e)


def _log_softmax(t: Tracer, x: Expr, **_: Any) -> Expr:
    shifted = _shifted(t, x)
    return shifted - t.log(t.row_sum(t.exp(shifted)))


def _logsumexp(t: Tracer, x: Expr) -> Expr:
    top = t.stop(t.row_max(x))
    # An infinite maximum would give inf - inf: shift by 0 there, as PyTorch does.
    top = t.where(t.eq(t.abs(top), float("inf")), 0.0, top)
    return t.log(t.row_sum(t.exp(x - top))) + top


register(
    Op(
        "stop",
        Kind.POINTWISE,
        signature("input: tensor"),
        lambda b: (b.type(0),),
        ".detach",
        "{0}",
        vjp=lambda t, g, y, x: (None,),
        doc="Lets no gradient through, within kernels.",
    )
)


def _along(b: Bound) -> Types:
    (x,) = like_input(b) if given_dtype(b) else like_input_float(b)
    axis(b.attrs["dim"], len(x.shape), b)
    return (TensorType(given_dtype(b) or x.dtype, x.shape),)


for _name, _lower in (("softmax", _softmax), ("log_softmax", _log_softmax)):
    register(
        Op(
            _name,
            Kind.ROW,
            signature("input: tensor, dim: int" + DTYPE),
            _along,
            f"F.{_name}",
            lower=_lower,
            flops=5,
            keeps=Keeps.RESULT,
            unfused=_in_a_dtype,
        )
    )

# Norms ---------------------------------------------------------------------------------------------------------------


def _normalized(b: Bound) -> Types:
    """`normalized_shape` must be the trailing dimensions, and weight and bias of that shape."""
    given = b.attrs["normalized_shape"]
    wanted = tuple(Size.of(s) for s in (given if isinstance(given, tuple) else (given,)))  # type: ignore[arg-type]
    x = like_input_float(b)[0]
    if not same_shape(x.shape[-len(wanted) :], wanted):
        fail("E203", f"`{b.op.name}` over {_sizes(wanted)} of another shape", b.span, str(x))
    for index in range(1, len(b.inputs)):
        if b.given(index) and not same_shape(b.type(index).shape, wanted):
            fail(
                "E203",
                f"`{b.op.name}` over {_sizes(wanted)} with a weight of another shape",
                b.span,
                str(b.type(index)),
            )
    return (TensorType(promote(b.inputs[:1]), x.shape),)


def _sizes(sizes: tuple[Size, ...]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


def _scaled(y: Expr, weight: Expr, bias: Expr | None = None) -> Expr:
    for operand, by in ((weight, "mul"), (bias, "add")):
        if operand is not None and getattr(operand.operand, "value", 0) is not None:
            y = y * operand if by == "mul" else y + operand
    return y


def _layer_norm(t: Tracer, x: Expr, weight: Expr, bias: Expr, *, eps: Any, **_: Any) -> Expr:
    centred = x - _mean(t, x)
    return _scaled(centred * t.rsqrt(_mean(t, centred * centred) + eps), weight, bias)


def _rms_norm(t: Tracer, x: Expr, weight: Expr, *, eps: Any, **_: Any) -> Expr:
    # PyTorch's default for eps is the dtype's own epsilon.
    return _scaled(x * t.rsqrt(_mean(t, x * x) + (1.1920928955078125e-07 if eps is None else eps)), weight)


register(
    Op(
        "layer_norm",
        Kind.ROW,
        signature(
            "input: tensor, normalized_shape: shape, weight: tensor? = none, bias: tensor? = none, eps: float = 1e-5"
        ),
        _normalized,
        "F.layer_norm",
        lower=_layer_norm,
        alone=True,
        flops=8,
    )
)
register(
    Op(
        "rms_norm",
        Kind.ROW,
        signature("input: tensor, normalized_shape: shape, weight: tensor? = none, eps: float? = none"),
        _normalized,
        "F.rms_norm",
        lower=_rms_norm,
        alone=True,
        flops=5,
    )
)

internal(
    "row_sum", "row_max", "row_min", "col_sum", "all_sum", "spread", "length", "stop", "column", "scan_sum", "scan_back"
)
