"""What a picture shows, before it has places: boxes within boxes, and edges from port to port."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a box stands for, and so what it looks like."""

    INPUT = "input"
    OUTPUT = "output"
    LAYER = "layer"
    OP = "op"
    SIGN = "sign"  # a circle with the sign of arithmetic in it
    KERNEL = "kernel"
    MODULE = "module"


@dataclass(frozen=True, eq=False)
class Box:
    """`title` and `subtitle` stand on its first line, `note` at its end, `lines` below; `inside` is what it holds.

    `times` is how often it stands in a row, for the element of a list; `kernel` the name of a fused one.
    """

    kind: Kind
    title: str
    subtitle: str = ""
    lines: tuple[str, ...] = ()
    inside: Diagram | None = None
    times: int | str = 1
    note: str = ""
    kernel: str = ""


@dataclass(frozen=True)
class Port:
    """An input or an output of a box, by its number."""

    box: Box
    number: int = 0


@dataclass(frozen=True)
class Edge:
    """A tensor on its way; `label` is its type."""

    source: Port
    target: Port
    label: str = ""


@dataclass(frozen=True, eq=False)
class Diagram:
    """Boxes in the order in which they run. Those of kind INPUT and OUTPUT are the ports of the box around them."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]

    @property
    def inputs(self) -> tuple[Box, ...]:
        return tuple(box for box in self.boxes if box.kind is Kind.INPUT)

    @property
    def outputs(self) -> tuple[Box, ...]:
        return tuple(box for box in self.boxes if box.kind is Kind.OUTPUT)


@dataclass(frozen=True, eq=False)
class Picture:
    """One or several models, each a box, side by side; `kernels` in the order of their first use."""

    title: str
    roots: tuple[Box, ...]
    kernels: tuple[str, ...]
