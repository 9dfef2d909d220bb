"""Sizes as numbers: what shapes and types come to in one call of a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeVar

from tdsl.compiler.build.types import REST
from tdsl.compiler.build.unit import LayerMember, ModuleMember
from tdsl.compiler.ir import Attr, Node, Scalar, Shape, TensorType, Value
from tdsl.compiler.ops.cost import Call, Sized
from tdsl.compiler.size import Size, Symbol

Numbers = tuple[int, ...]
WIDTHS = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2, "i8": 1, "u8": 1, "bool": 1}
# Of a size that nothing tells.
ASSUMED = 1


@dataclass(frozen=True)
class Sizes:
    """What symbols stand for; `lead` are the dimensions that a signature writes `...`."""

    numbers: Mapping[Symbol, int] = field(default_factory=dict)
    lead: Numbers = ()

    def number(self, size: Size) -> int:
        found = size.substitute(self.numbers)
        if found.constant is None:
            found = found.substitute(dict.fromkeys(found.symbols(), ASSUMED))
        return found.constant if found.constant is not None else ASSUMED

    def shape(self, shape: Shape) -> Numbers:
        found: list[int] = []
        for size in shape:
            found += self.lead if size == Size.of(REST) else [self.number(size)]
        return tuple(found)

    def attr(self, value: Attr) -> Attr:
        """An argument with its sizes as numbers."""
        if isinstance(value, tuple):
            return tuple(map(self.attr, value))
        if isinstance(value, Scalar):
            return replace(value, value=self.number(value.value)) if isinstance(value.value, Size) else value
        return self.number(value) if isinstance(value, Size) else value

    def count(self, value: Attr) -> int:
        """A number of repetitions; one where it is not known."""
        found = self.attr(value)
        found = found.value if isinstance(found, Scalar) else found
        return found if isinstance(found, int) else ASSUMED

    def having(self, parameter: str, number: int) -> Sizes:
        """With one more parameter of a module."""
        return replace(self, numbers={**self.numbers, Symbol(parameter, param=True): number})

    def called(self, formal: Sequence[Value], actual: Sequence[Numbers]) -> Sizes:
        """With the run-time sizes of a signature's inputs, as a call binds them."""
        numbers, lead = dict(self.numbers), self.lead
        for value, given in zip(formal, actual):
            shape = value.type.shape
            dots = next((i for i, size in enumerate(shape) if size == Size.of(REST)), None)
            after = len(shape) - dots - 1 if dots is not None else 0
            if dots is not None:
                lead = given[dots : len(given) - after]
            pairs = [*zip(shape[:dots], given), *zip(shape[len(shape) - after :], given[len(given) - after :])]
            for size, number in pairs:
                symbol = next(iter(size.symbols()), None)
                if symbol is not None and size == Size.of(symbol):
                    numbers.setdefault(symbol, number)
        return Sizes(numbers, lead)


Named = TypeVar("Named", LayerMember, ModuleMember)


def with_numbers(member: Named, sizes: Sizes) -> Named:
    """A submodule with the sizes in its arguments as numbers."""
    return replace(member, args=tuple((name, sizes.attr(value)) for name, value in member.args))


def constant(dtype: str, shape: Numbers) -> TensorType:
    """A type whose sizes are numbers."""
    return TensorType(dtype, tuple(map(Size.of, shape)))


@dataclass(frozen=True)
class Measure:
    """Elements and bytes of values. `width` is that of `float`; those in `full` are float32 whatever the precision."""

    sizes: Sizes
    width: int
    full: frozenset[Value] = frozenset()

    def elements(self, value: Value) -> int:
        return prod(self.sizes.shape(value.type.shape))

    def bytes(self, value: Value) -> int:
        return self.elements(value) * (4 if self.in_full(value) else self.of(value.type.dtype))

    def in_full(self, value: Value) -> bool:
        return value in self.full and value.type.dtype == "float"

    def call(self, node: Node) -> Call:
        """A call with its sizes as numbers."""
        operands = tuple(self._sized(o) if isinstance(o, Value) else None for o in node.inputs)
        return Call(operands, tuple(map(self._sized, node.outputs)), node.attrs, self.width)

    def _sized(self, value: Value) -> Sized:
        width = 4 if self.in_full(value) else self.of(value.type.dtype)
        return Sized(self.sizes.shape(value.type.shape), width, value.name)

    def of(self, dtype: str) -> int:
        """Bytes an element."""
        return WIDTHS.get(dtype, self.width)

    def count(self, shape: Shape) -> int:
        return prod(self.sizes.shape(shape))
