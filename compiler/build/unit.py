"""What a program is built to: a class for each module, a graph for each body. Frozen data for passes and emitters.

Arguments of constructors are `Attr`s: numbers, strings, sizes, or scalars whose `text` says how `forward` reads them
(`self.eps`); a constructor reads the same without `self.`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tdsl.compiler.ir import Attr, Graph, Shape
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span
from tdsl.dsl.program import EvaluateSpec, Program, TrainSpec


@dataclass(frozen=True)
class LayerMember:
    """A layer of `torch.nn`: `path` is its text (`nn.Linear`), `args` those given, positional ones with the name ''."""

    path: str
    args: tuple[tuple[str, Attr], ...]

    @property
    def name(self) -> str:
        """The layer's, whichever module it is taken from."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class ModuleMember:
    """A module of the program: `class_name` with its arguments by name."""

    class_name: str
    args: tuple[tuple[str, Attr], ...]


@dataclass(frozen=True)
class SequentialMember:
    """`Sequential(...)`."""

    elements: tuple[Submodule, ...]


@dataclass(frozen=True)
class ListMember:
    """A list of modules written out."""

    elements: tuple[Submodule, ...]


@dataclass(frozen=True)
class RepeatMember:
    """`[Block(dim) for i in range(n)]`: `count` elements, all made by the same text. `variable` may stand in it."""

    element: Submodule
    variable: str
    count: Attr


@dataclass(frozen=True)
class SharedMember:
    """A module that the class has already, under another name: `path` leads to it."""

    path: str


Submodule = LayerMember | ModuleMember | SequentialMember | ListMember | RepeatMember | SharedMember


@dataclass(frozen=True)
class TensorMember:
    """`param` or `buffer`: made by `initializer` of `torch.nn.init`'s name with its arguments."""

    shape: Shape
    dtype: str
    initializer: str
    args: tuple[tuple[str, Attr], ...]
    trainable: bool


@dataclass(frozen=True)
class ConstantMember:
    """`NAME = value` where the value is a number, a string or a tuple."""

    value: Attr


Member = Submodule | TensorMember | ConstantMember


@dataclass(frozen=True)
class ParameterIR:
    """A constructor's parameter: `annotation` as Python writes it; `default` is None where `required`."""

    name: str
    annotation: str
    default: Attr
    required: bool


@dataclass(frozen=True)
class ModuleIR:
    """One class of `model.py`. `ties` are parameters that share: (`head.weight`, `embed.weight`).

    `head` is the keyword of `forward` that says whether its last linear layer is computed; empty where it always is.
    """

    class_name: str
    source: ast.Module | ast.ExternModule
    params: tuple[ParameterIR, ...]
    members: Mapping[str, Member]
    ties: tuple[tuple[str, str], ...]
    graph: Graph
    doc: str = ""
    head: str = ""


@dataclass(frozen=True)
class Accumulation:
    """How a batch can be computed in parts: not, because of what is at `mixed`; or by shares of what counts in it.

    `counted` computes that from a batch, a number for each way of counting; `rows` where rows are counted, too.
    """

    possible: bool
    mixed: Span | None = None
    rows: bool = True
    counted: Graph | None = None


@dataclass(frozen=True)
class Limit:
    """Numbers from 0 to `count` - 1, and `ignored` (None: no other). `looked_up` where they are entries of a table."""

    count: int
    ignored: int | None
    looked_up: bool


@dataclass(frozen=True)
class RunIR:
    """A run: its models by name (`model` first), and the graph of its loss, whose inputs are named `batch.FIELD`.

    `idle` tells whether there may be parameters that the loss does not depend on, as far as is known of them, `limits`
    what the loss can take of fields whose numbers are indices.
    """

    spec: TrainSpec
    models: Mapping[str, ModuleMember]
    loss: Graph
    accumulation: Accumulation = Accumulation(False)
    idle: bool = False
    limits: Mapping[str, Limit] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationIR:
    """How a run is evaluated; `limits` are what `predict` can take of fields whose numbers are indices."""

    spec: EvaluateSpec
    compare: Graph | None
    predict: Graph | None
    limits: Mapping[str, Limit] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A whole program. `modules` come before those that use them."""

    program: Program
    modules: tuple[ModuleIR, ...]
    runs: Mapping[str, RunIR] = field(default_factory=dict)
    evaluations: Mapping[str, EvaluationIR] = field(default_factory=dict)

    def map_graphs(self, change: Callable[[Graph], Graph]) -> Unit:
        """The unit with every graph changed, the regions of a graph before itself."""

        def deep(graph: Graph) -> Graph:
            return change(graph.map_regions(deep))

        def maybe(graph: Graph | None) -> Graph | None:
            return None if graph is None else deep(graph)

        return replace(
            self,
            modules=tuple(replace(m, graph=deep(m.graph)) for m in self.modules),
            runs={n: replace(r, loss=deep(r.loss)) for n, r in self.runs.items()},
            evaluations={
                n: replace(e, compare=maybe(e.compare), predict=maybe(e.predict)) for n, e in self.evaluations.items()
            },
        )

    def within(self, *members: Member) -> Iterator[Member]:
        """The members, and all that they are made of."""
        for member in members:
            yield member
            if isinstance(member, ModuleMember):
                module = next(each for each in self.modules if each.class_name == member.class_name)
                yield from self.within(*module.members.values())
            elif isinstance(member, RepeatMember):
                yield from self.within(member.element)
            elif isinstance(member, (SequentialMember, ListMember)):
                yield from self.within(*member.elements)

    def graphs(self) -> list[Graph]:
        """Every graph, modules first, and each after its regions."""
        found: list[Graph] = []

        def keep(graph: Graph) -> Graph:
            found.append(graph)
            return graph

        self.map_graphs(keep)
        return found
