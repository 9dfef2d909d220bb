"""Graphs written by hand, for tests of what is emitted of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F

from tdsl.compiler.build.frame import GraphBuilder
from tdsl.compiler.ir import Operand, Scalar, TensorType, Value
from tdsl.compiler.ops.op import OPS, Bound
from tdsl.compiler.size import Size, Symbol

B, T = Size.of(Symbol("B")), Size.of(Symbol("T"))
REST = Size.of(Symbol("..."))


def param(name: str) -> Size:
    return Size.of(Symbol(name, param=True))


def tensor(name: str, *shape: Size | int, dtype: str = "float") -> Value:
    return Value(TensorType(dtype, tuple(map(Size.of, shape))), name)


class Body(GraphBuilder):
    """A graph written by hand: `b("gelu", x, name="h")`."""

    def __call__(self, op: str, *operands: Operand | float, name: str = "", layer: str = "", **attrs: Any) -> Any:
        given = tuple(o if isinstance(o, (Value, Scalar)) else Scalar(o) for o in operands)
        return self._named(self.record(op, given, attrs, None, layer), name)

    def call(
        self, layer: str, *values: Value, types: tuple[TensorType, ...], name: str = "", op: str = "call_module"
    ) -> Any:
        return self._named(self.add(Bound(OPS[op], values, {}, None), types, layer), name)

    def _named(self, made: tuple[Value, ...], name: str) -> Any:
        made = tuple(self.rename(v, n) for v, n in zip(made, name.split(), strict=False)) if name else made
        return made[0] if len(made) == 1 else made

    def linear(self, layer: str, x: Value, inputs: Size | int, outputs: Size | int, name: str = "") -> Value:
        weight = self.parameter(f"{layer}.weight", TensorType("float", (Size.of(outputs), Size.of(inputs))))
        bias = self.parameter(f"{layer}.bias", TensorType("float", (Size.of(outputs),)))
        return cast(Value, self("linear", x, weight, bias, name=name, layer=layer))


def body(*inputs: Value, owner: str = "self.") -> Body:
    return Body("forward", owner, list(inputs))


def function_of(lines: list[str], *parameters: str, **names: Any) -> Callable[..., Any]:
    """The function of these lines."""
    text = "\n".join([f"def function({', '.join(parameters)}):", *(f"    {line}" for line in lines)])
    space: dict[str, Any] = {"torch": torch, "F": F, **names}
    exec(text, space)
    return cast(Callable[..., Any], space["function"])
