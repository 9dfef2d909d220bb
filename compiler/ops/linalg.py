"""Products of matrices: left to cuBLAS."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops import cures
from tdsl.compiler.ops.cost import Call
from tdsl.compiler.ops.infer import agree, broadcast, promote, same, same_shape
from tdsl.compiler.ops.op import Bound, Types, internal, library
from tdsl.dsl.diagnostics import fail


def _linear(b: Bound) -> Types:
    x, weight = b.type(0), b.type(1)
    if not x.shape:
        fail("E203", "`linear` of a tensor without dimensions", b.span, str(x))
    if len(weight.shape) != 2:
        fail("E203", "the weight of `linear` is a matrix [out, in]", b.span, str(weight))
    if not x.is_float:
        fail("E205", "`linear` needs floating-point values", b.span, str(x), help="convert with `.float()`")
    if not same(x.shape[-1], weight.shape[-1]):
        fail(
            "E203",
            "shapes do not match in `linear`",
            b.span,
            f"{x}, whose last size is {x.shape[-1]}, where {weight.shape[-1]} is expected",
        )
    if b.given(2) and not same_shape(b.type(2).shape, weight.shape[:1]):
        fail("E203", f"the bias of `linear` has {weight.shape[0]} numbers here", b.span, str(b.type(2)))
    agree(b)
    return (TensorType(promote(b.inputs[:1]), (*x.shape[:-1], *weight.shape[:-1])),)


def _sign(b: Bound) -> str:
    return "`@`" if b.op.name == "matmul" else f"`{b.op.name}`"


def _matmul(b: Bound) -> Types:
    left, right = b.type(0), b.type(1)
    if not left.shape or not right.shape:
        fail("E203", f"{_sign(b)} of a tensor without dimensions", b.span, f"{left} @ {right}")
    inner = right.shape[-2] if len(right.shape) > 1 else right.shape[0]
    if not same(left.shape[-1], inner):
        told = f"{left} @ {right}: {left.shape[-1]} is not {inner}"
        fail("E203", f"shapes do not match in {_sign(b)}", b.span, told, help=cures.product(left, right))
    agree(b)
    if left.dtype == "bool":
        fail(
            "E205",
            f"{_sign(b)} does not multiply booleans",
            b.span,
            f"{left} @ {right}",
            help="convert with `.float()`",
        )
    batch = broadcast([TensorType("float", t.shape[:-2]) for t in (left, right)], "@", b.span)
    rows = left.shape[-2:-1] if len(left.shape) > 1 else ()
    cols = right.shape[-1:] if len(right.shape) > 1 else ()
    return (TensorType(promote(b.inputs), (*batch, *rows, *cols)),)


def _products_over(operand: int) -> Callable[[Call], int]:
    """A product of vectors for each number of the result, as long as the last dimension of an operand."""
    return lambda call: 2 * call.results[0].elements * call.operand(operand).shape[-1]


_MATMUL = _products_over(0)
library("linear", "input: tensor, weight: tensor, bias: tensor? = none", _linear, product=_products_over(1))


def _linears(b: Bound) -> Types:
    """The input, the layers' weights, then their biases, where they have any."""
    x, count = b.type(0), len(b.attrs["layers"])  # type: ignore[arg-type]
    sizes = [b.type(1 + i).shape[0] for i in range(count)]
    return (TensorType(x.dtype, (*x.shape[:-1], sum(sizes[1:], sizes[0]))),)


def _linears_text(texts: list[str], attrs: dict[str, Any]) -> str:
    layers = [re.sub(r"\.(\d+)", r"[\1]", f"self.{path}") for path in attrs["layers"]]
    return f"nn_functions.linears({', '.join([texts[0], *layers])})"


library(
    "linears",
    "tensors: tensors, layers: any",
    _linears,
    _linears_text,
    product=_products_over(1),
    casts=True,
    doc="What several linear layers make of one input, in one product.",
)
internal("linears")
library("matmul", "input: tensor, other: tensor", _matmul, "@", product=_MATMUL)


def _of_rank(rank: int) -> Callable[[Bound], Types]:
    """The rule of a product of tensors with so many dimensions each; `bmm` repeats no batch."""

    def infer(b: Bound) -> Types:
        left, right = b.type(0), b.type(1)
        if len(left.shape) != rank or len(right.shape) != rank:
            told = f"{left} and {right}"
            fail("E203", f"`{b.op.name}` takes {_RANKS[rank]}", b.span, told, help="`@` takes any")
        if not all(map(same, left.shape[: rank - 2], right.shape[: rank - 2])):
            fail("E203", f"`{b.op.name}` takes as many matrices of each", b.span, f"{left} and {right}")
        return _matmul(b)

    return infer


_RANKS = {1: "two vectors", 2: "two matrices", 3: "two batches of matrices"}


def _outer(b: Bound) -> Types:
    left, right = b.type(0), b.type(1)
    if len(left.shape) != 1 or len(right.shape) != 1:
        fail("E203", "`outer` takes two vectors", b.span, f"{left} and {right}")
    return (TensorType(promote(b.inputs), (*left.shape, *right.shape)),)


library("mm", "input: tensor, mat2: tensor", _of_rank(2), "torch.mm", product=_MATMUL)
library("bmm", "input: tensor, mat2: tensor", _of_rank(3), "torch.bmm", product=_MATMUL)
library("dot", "input: tensor, tensor: tensor", _of_rank(1), "torch.dot", product=_MATMUL)
library("outer", "input: tensor, vec2: tensor", _outer, "torch.outer", product=lambda call: call.results[0].elements)
