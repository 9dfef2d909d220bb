"""What is told of an op beside its meaning: what its calls compute, read and keep where they are left to PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod

from tdsl.compiler.ir import Attr


class Keeps(Enum):
    """What PyTorch's backward reads again of a call."""

    INPUTS = "inputs"
    OTHERS = "others"  # its inputs but the first
    PLACES = "places"  # those of its inputs that hold no floating-point numbers
    RESULT = "result"
    ALL = "all"  # inputs and results
    NOTHING = "nothing"  # it is linear


@dataclass(frozen=True)
class Sized:
    """A tensor of a call: its shape, the bytes of an element, and its name in the program."""

    shape: tuple[int, ...]
    width: int
    name: str = ""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.width


@dataclass(frozen=True)
class Call:
    """A call whose sizes are numbers: its operands in the signature's order, those left out being None.

    `width` is the bytes of a `float`.
    """

    operands: tuple[Sized | None, ...]
    results: tuple[Sized, ...]
    attrs: Mapping[str, Attr]
    width: int

    def operand(self, index: int) -> Sized:
        """One that is there."""
        found = self.operands[index]
        assert found is not None
        return found

    @property
    def tensors(self) -> tuple[Sized, ...]:
        """The operands that are there."""
        return tuple(each for each in self.operands if each is not None)
