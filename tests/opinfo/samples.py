"""A sample as a program of one operation."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tests.opinfo.calls import ADAPTED, Call
from tests.opinfo.table import Skip, op_db

DTYPES = {torch.float32: "float", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16",
          torch.int64: "int", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8",
          torch.bool: "bool"}  # fmt: skip
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floor_divide": "//", "remainder": "%", "pow": "**",
             "matmul": "@", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # fmt: skip
# Methods that are not called by name, or mean something else there.
METHODS = {"to", "float", "int", "bool", "repeat"}
# Functions whose first argument is not PyTorch's `self`.
FUNCTIONS = {"where", "einsum", "embedding", "embedding_bag"}
# OpInfo has `randn_like` under `rand_like` too.
INSTEAD = {"rand_like": torch.rand_like}


@dataclass
class Case:
    """One sample: the module's name, its tensors, the call, and what became of it.

    `outputs` are the types inferred where sizes are known at run time only, or `refused` why there are none.
    """

    module: str
    inputs: list[Tensor]
    reference: Callable[[list[Tensor]], Any]
    expression: str = ""
    training: bool = True
    in_kernel: bool = False
    skipped: str = ""
    problem: str = ""
    outputs: str = ""
    refused: str = ""
    expected: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor | None] = field(default_factory=list)

    def text(self, variant: str = "") -> str:
        """The module: as it is, with sizes known at run time only, or with one more operation, to make a kernel of."""
        named = variant == "Sizes"
        inputs = ", ".join(f"a{i}: {_type(t, named)}" for i, t in enumerate(self.inputs))
        outputs = ", ".join(map(_type, self.expected))
        outputs = self.outputs if named else outputs if len(self.expected) == 1 else f"({outputs})"
        statement = f"return {self.expression}"
        if variant == "Kernel":
            same = "logical_or(y, y)" if self.expected[0].dtype == torch.bool else "y * 1"
            statement = f"y = {self.expression}\n        return {same}"
        head = f"module {self.module}{variant}() {{\n    forward({inputs}) -> {outputs} {{"
        return f"{head}\n        {statement}\n    }}\n}}\n"


def size_name(n: int) -> str:
    """Sizes that are the same number share a name; what is empty or broadcasts has its number."""
    return f"N{n}" if n > 1 else str(n)


def _type(t: Tensor, named: bool = False) -> str:
    return f"{DTYPES[t.dtype]}[{', '.join(map(size_name if named else str, t.shape))}]"


def cases(key: str, name: str, dtype: str = "float32") -> Iterator[Case]:
    """Every sample of an entry, as a call of `name`; of integers where an operation takes nothing else."""
    info = op_db()[key]
    random.seed(0)
    torch.manual_seed(0)
    of = getattr(torch, dtype)
    if of not in info.dtypes:
        of = torch.int64 if dtype == "float32" else None
    if of is None:
        return
    grad = info.supports_autograd and of.is_floating_point
    for number, sample in enumerate(info.sample_inputs("cpu", of, requires_grad=grad)):
        yield case(info, sample, key, name, number)


def case(info: Any, sample: Any, key: str, name: str, number: int) -> Case:
    """One sample; skipped with its reason where the language has no words for it."""
    if name == "index":
        sample.args = (_index(sample.args[0]),)
    given = (sample.input, sample.args, sample.kwargs)
    writer = Writer()
    try:
        call = ADAPTED.get(key, ADAPTED.get(name, lambda c: c))(Call(name, [sample.input, *sample.args], sample.kwargs))
        call = call.plain()
        method = info.method_variant is not None and name not in FUNCTIONS and number % 2 == 1
        expression = writer.call(call, name in METHODS or method, number % 3 == 2)
    except Skip as skip:
        return Case(f"S{number}", [], lambda _: None, skipped=skip.reason)

    def reference(leaves: list[Tensor]) -> Any:
        new = {id(old): leaf for old, leaf in zip(writer.tensors, leaves, strict=True)}
        x, args, kwargs = tree_map(lambda v: new.get(id(v), v) if isinstance(v, Tensor) else v, given)
        return INSTEAD.get(key, info.op)(x, *args, **kwargs)

    return Case(f"S{number}", writer.tensors, reference, expression, call.training)


def _index(index: Any) -> Any:
    """Lists of numbers as the tensors that they stand for."""
    if isinstance(index, list) and all(isinstance(i, int) for i in index):
        return torch.tensor(index)
    return tuple(map(_index, index)) if isinstance(index, (list, tuple)) else index


class Writer:
    """Writes values as the language does; tensors become inputs."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def call(self, call: Call, method: bool, operator: bool) -> str:
        args, kwargs = call.args, call.kwargs
        sign = OPERATORS.get(call.name)
        if sign and not kwargs and len(args) == 2 and (operator or call.operator):
            return f"{self.operand(args[0])} {sign} {self.operand(args[1])}"
        if call.name == "T":
            return f"{self.value(args[0])}.T"
        if call.name == "index":
            return f"{self.value(args[0])}[{self.items(args[1])}]"
        texts = [self.value(a) for a in args]
        named = [f"{k}={self.value(v)}" for k, v in kwargs.items()]
        if method and args and isinstance(args[0], Tensor):
            return f"{texts[0]}.{call.name}({', '.join([*texts[1:], *named])})"
        return f"{call.name}({', '.join([*texts, *named])})"

    def operand(self, value: Any) -> str:
        text = self.value(value)
        return f"({text})" if text.startswith("-") else text

    def value(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self.tensor(value)
        if value is None or isinstance(value, bool):
            return {None: "none", True: "true", False: "false"}[value]
        if isinstance(value, torch.dtype):
            return _dtype(value, "f32")
        if isinstance(value, str):
            return json.dumps(value)
        if isinstance(value, (tuple, list)):
            items = [self.value(v) for v in value]
            comma = "," if len(items) == 1 and isinstance(value, tuple) else ""
            return f"({', '.join(items)}{comma})" if isinstance(value, tuple) else f"[{', '.join(items)}]"
        return _number(value)

    def tensor(self, value: Tensor) -> str:
        _dtype(value.dtype)
        for i, known in enumerate(self.tensors):
            if known is value:
                return f"a{i}"
        self.tensors.append(value)
        return f"a{len(self.tensors) - 1}"

    def items(self, index: Any) -> str:
        return ", ".join(map(self.item, index if isinstance(index, tuple) else (index,)))

    def item(self, item: Any) -> str:
        if isinstance(item, slice):
            parts = ["" if v is None else str(v) for v in (item.start, item.stop, item.step)]
            return ":".join(parts if parts[2] else parts[:2])
        if item is Ellipsis:
            return "..."
        if (isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8)) or isinstance(item, bool):
            raise Skip("mask")
        return self.value(item)


def _dtype(dtype: torch.dtype, float32: str = "float") -> str:
    if dtype not in DTYPES:
        raise Skip("complex")
    return float32 if dtype == torch.float32 else DTYPES[dtype]


def _number(value: Any) -> str:
    if isinstance(value, complex):
        raise Skip("complex")
    if isinstance(value, float) and (math.isinf(value) or math.isnan(value)):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(f"a sample has {value!r}")
