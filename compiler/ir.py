"""The intermediate representation: values, nodes, graphs. All of it is on this page, and all of it is frozen.

A `Graph` is a list of nodes in SSA form, in an order in which each value is made before it is used. Values and nodes
are compared by identity: a pass that changes a node keeps the `Value`s it makes, so their users need no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Union

from tdsl.compiler.size import Size, Symbol
from tdsl.dsl.diagnostics import Span

if TYPE_CHECKING:
    from tdsl.compiler.ops.op import Op

FLOATS = ("f64", "f32", "f16", "bf16", "float")
INTS = ("i64", "i32", "i16", "i8", "u8")

Shape = tuple[Size, ...]


@dataclass(frozen=True)
class TensorType:
    """`float[B, 64]`. `float` is the run's precision; `int` of the source is `i64` here.

    The leading dimensions that a signature writes `...` are the one symbol `...`.
    """

    dtype: str
    shape: Shape

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def __str__(self) -> str:
        dtype = "int" if self.dtype == "i64" else self.dtype
        return f"{dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor. `name` is the source's name for it, or empty."""

    type: TensorType
    name: str = ""


@dataclass(frozen=True)
class Scalar:
    """A number beside the tensors: a literal, or, with `text`, Python that yields it where the graph is run.

    `value` is what it is known to be at compile time (None where it is not known). A scalar with `text` (`self.eps`,
    `0.1 if self.training else 0.0`, `x.shape[0]`) reaches a kernel as an argument, a literal as itself.
    """

    value: int | float | bool | Size | None
    text: str = ""

    @property
    def dtype(self) -> str:
        """Of the number alone: `bool`, `i64` or `float`."""
        if isinstance(self.value, bool):
            return "bool"
        return "i64" if isinstance(self.value, (int, Size)) else "float"


Operand = Union[Value, Scalar]  # noqa: UP007
# What an attribute may hold: plain data, sizes, and scalars. Never a tensor.
Attr = Union[int, float, str, bool, None, Size, Scalar, tuple["Attr", ...]]  # noqa: UP007


@dataclass(frozen=True, eq=False)
class Node:
    """One operation: `outputs = op(*inputs, **attrs)`.

    `layer` is the path of the layer or submodule that it is the call of (`self.up(x)`), `origin` the name of the `fn`
    or module that was inlined where it stands, `group` the fused body of a node that `fuse` made, whose inputs and
    outputs are those of `group.body` in order, then `group.scalars`.

    `regions` are the bodies of a node that runs others: of `no_grad` its one, of `branch` what runs where its condition
    holds and what runs otherwise. The inputs of each stand for the node's, one by one, its outputs likewise.
    """

    op: Op
    inputs: tuple[Operand, ...]
    attrs: Mapping[str, Attr]
    outputs: tuple[Value, ...]
    span: Span | None = None
    layer: str = ""
    origin: str = ""
    group: Group | None = None
    regions: tuple[Graph, ...] = ()

    @property
    def output(self) -> Value:
        (only,) = self.outputs
        return only

    @property
    def values(self) -> tuple[Value, ...]:
        """The inputs that are tensors."""
        return tuple(v for v in self.inputs if isinstance(v, Value))


@dataclass(frozen=True, eq=False)
class Structure:
    """How a template of `compiler/structured` computes a group.

    `template` names it, `roles` has the inputs of the group's body by what they are to it (`weight`), `options` what
    varies otherwise.
    """

    template: str
    roles: Mapping[str, Value]
    options: Mapping[str, Attr] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes that one kernel computes. `name` is the public function's name in `kernels.py`.

    `body` is the source's own operations, `scalars` the numbers with `text` among its operands: arguments of the
    kernel after the tensors. `columns` is how many trailing dimensions are its columns, None where that is open;
    `still` are the inputs, by number, that carry no gradient; `names` what those are called that the source does not
    name; `twice` where the program differentiates gradients. The kernel is made from the body, or, where there is a
    `structure`, by a template.
    """

    name: str
    body: Graph
    scalars: tuple[Scalar, ...] = ()
    columns: int | None = None
    still: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    twice: bool = False
    structure: Structure | None = None


@dataclass(frozen=True, eq=False)
class Parameter:
    """A tensor that a module holds, by its `state_dict` path below the module whose graph this is."""

    path: str
    value: Value
    trainable: bool = True


@dataclass(frozen=True)
class Assumption:
    """`assume left op right`: what the writer knows of sizes, proofs may use, and the emitted code checks."""

    left: Size
    op: str
    right: Size
    span: Span | None = None

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


@dataclass(frozen=True, eq=False)
class Graph:
    """`outputs` from `inputs` and `params` by `nodes`.

    `tracked` are logged scalars by name; `known` what the module parameters among its sizes are in the program, at
    most; `assumed` what its writer states of its sizes; `collects` whether modules that it calls track values; `data`
    whether its inputs are data, which no gradient goes into.
    """

    name: str
    inputs: tuple[Value, ...]
    params: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    tracked: Mapping[str, Value] = field(default_factory=dict)
    known: Mapping[Symbol, int] = field(default_factory=dict)
    assumed: tuple[Assumption, ...] = ()
    collects: bool = False
    data: bool = False

    @property
    def tracks(self) -> bool:
        """Whether there are values to log beside its result."""
        return bool(self.tracked) or self.collects

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything that must be kept: the outputs and the tracked scalars."""
        return (*self.outputs, *self.tracked.values())

    def producers(self) -> dict[Value, Node]:
        return {value: node for node in self.nodes for value in node.outputs}

    def users(self) -> dict[Value, list[Node]]:
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.values):
                found.setdefault(value, []).append(node)
        return found

    def map_regions(self, change: Callable[[Graph], Graph]) -> Graph:
        """The graph with the regions of its nodes changed."""
        if not any(node.regions for node in self.nodes):
            return self
        return replace(self, nodes=tuple(_map_regions(node, change) for node in self.nodes))

    @property
    def differentiates(self) -> bool:
        """Whether a gradient is among what it computes."""
        return any(node.op.name == "grad" for node in self.walk())

    def walk(self) -> Iterator[Node]:
        """Every node, each before those of its regions."""
        for node in self.nodes:
            yield node
            for region in node.regions:
                yield from region.walk()


def _map_regions(node: Node, change: Callable[[Graph], Graph]) -> Node:
    return replace(node, regions=tuple(map(change, node.regions))) if node.regions else node
