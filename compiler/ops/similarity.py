"""Lengths and angles of vectors, left to PyTorch."""

from __future__ import annotations

from tdsl.compiler.ir import TensorType
from tdsl.compiler.ops.infer import axes, axis, broadcast, promote
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.ops.spatial import floating


def _normalize(b: Bound) -> Types:
    floating(b)
    axes(b.attrs["dim"], b)
    return (b.type(0),)


def _similarity(b: Bound) -> Types:
    floating(b)
    shape = broadcast([b.type(0), b.type(1)], b.op.name, b.span)
    dim = axis(b.attrs["dim"], len(shape), b)
    return (TensorType(promote(b.inputs), shape[:dim] + shape[dim + 1 :]),)


library("normalize", "input: tensor, p: float = 2.0, dim: sizes = 1, eps: float = 1e-12", _normalize)
library("cosine_similarity", "x1: tensor, x2: tensor, dim: int = 1, eps: float = 1e-8", _similarity)
