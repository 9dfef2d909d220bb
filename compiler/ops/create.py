"""Tensors from nothing but numbers."""

from __future__ import annotations

from typing import Any

from tdsl.compiler.ir import Shape, TensorType
from tdsl.compiler.ops.op import Bound, Types, library
from tdsl.compiler.size import Size


def _tensor(b: Bound) -> Types:
    values = b.attrs["data"]
    shape: Shape = ()
    while isinstance(values, tuple):
        shape, values = (*shape, Size.of(len(values))), values[0] if values else 0.0
    dtype = "bool" if isinstance(values, bool) else "i64" if isinstance(values, int) else "float"
    return (TensorType(dtype, shape),)


def _tensor_text(texts: list[str], attrs: dict[str, Any]) -> str:
    where = f", device={attrs['device'].text}" if attrs["device"] is not None else ""
    return f"torch.tensor({_listed(attrs['data'])}{where})"


def _listed(value: Any) -> str:
    return f"[{', '.join(map(_listed, value))}]" if isinstance(value, tuple) else repr(value)


library("tensor", "data: any, *, device: device = none", _tensor, _tensor_text)
