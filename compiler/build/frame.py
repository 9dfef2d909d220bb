"""The state in which a body is elaborated: the graph that grows, and what each name means there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tdsl.compiler.build import gradient
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.ir import Assumption, Attr, Graph, Node, Operand, Parameter, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import KNOWN
from tdsl.compiler.ops.op import OPS, Bound, bind_plain
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail

if TYPE_CHECKING:
    from tdsl.compiler.build.classes import Classes

MOST_NODES = 10_000


@dataclass(eq=False)
class GraphBuilder:
    """A graph while it grows. `owner` is how its own parameters are reached (`self.`)."""

    name: str
    owner: str = "self."
    inputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    params: dict[str, Parameter] = field(default_factory=dict)
    tracked: dict[str, Value] = field(default_factory=dict)
    made: dict[Value, Span] = field(default_factory=dict)
    # What is differentiated by, and the value that carries the gradient in its place.
    sources: dict[Value, Value] = field(default_factory=dict)
    parent: GraphBuilder | None = None
    assumed: list[Assumption] = field(default_factory=list)
    # Where each input and each member is declared.
    given: dict[object, Span] = field(default_factory=dict)

    def record(
        self,
        name: str,
        operands: tuple[Operand, ...],
        attrs: Mapping[str, Attr],
        span: Span | None,
        layer: str = "",
        origin: str = "",
    ) -> tuple[Value, ...]:
        """Add a call of an op, typed by its rule."""
        op = OPS[name]
        bound = bind_plain(op, operands, attrs, span)
        return self.add(bound, op.infer(bound), layer, origin)

    def add(self, bound: Bound, types: tuple[TensorType, ...], layer: str = "", origin: str = "") -> tuple[Value, ...]:
        if len(self.nodes) >= MOST_NODES:
            fail("E209", f"more than {MOST_NODES:,} operations in one module", bound.span)
        outputs = tuple(Value(t) for t in types)
        self.nodes.append(Node(bound.op, bound.inputs, bound.attrs, outputs, bound.span, layer, origin))
        if bound.span is not None:
            self.made.update(dict.fromkeys(outputs, bound.span))
        return outputs

    def parameter(self, path: str, type: TensorType, trainable: bool = True) -> Value:
        """The value of a parameter, by its path; the same one each time."""
        if path not in self.params:
            self.params[path] = Parameter(path, Value(type, path.rpartition(".")[2]), trainable)
        return self.params[path].value

    def device(self) -> Scalar | None:
        """Where the tensors that it makes are to lie: where its first input lies."""
        return Scalar(None, f"{self.inputs[0].name}.device") if self.inputs else None

    def rename(self, value: Value, name: str, again: bool = False) -> Value:
        """Give a value that a node has just made the name it is bound to; `again`: in the place of another."""
        for i in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[i]
            if value not in node.outputs:
                continue
            if (value.name and not again) or any(value in n.values for n in self.nodes[i + 1 :]):
                return value
            named = Value(value.type, name)
            outputs = tuple(named if v is value else v for v in node.outputs)
            self.nodes[i] = replace(node, outputs=outputs)
            if value in self.made:
                self.made[named] = self.made[value]
            return named
        return value

    def differentiate(self, y: Operand, x: Operand, span: Span) -> None:
        """See to it that `x` carries a gradient, which `y` must depend on."""
        assert isinstance(y, Value) and isinstance(x, Value)  # noqa: PT018
        if y not in gradient.dependents(x, self.history()):
            help = "compute it from `x` in this body, outside of `no_grad` and without `detach`; a `fn` is part of it"
            fail("E202", "`grad` by a tensor that `y` is not made from", span, help=help)
        if not any(p.value is x for p in self.params.values()):
            self.sources.setdefault(x, Value(x.type, x.name.rpartition(".")[2]))

    def region(self) -> GraphBuilder:
        """A graph within this one, to grow beside it."""
        return GraphBuilder(
            self.name, self.owner, self.inputs, [], self.params, self.tracked, self.made, self.sources, self,
            given=self.given,
        )  # fmt: skip

    def closed(self, name: str, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Graph:
        """The region as it stands."""
        return Graph(f"{self.name}_{name}", inputs, (), tuple(self.nodes), outputs, {}, dict(KNOWN), self._facts())

    def _facts(self) -> tuple[Assumption, ...]:
        """What is stated so far, around a region first."""
        return (*(self.parent._facts() if self.parent is not None else ()), *self.assumed)

    def history(self) -> list[Node]:
        """The nodes so far, those around a region first."""
        return [*(self.parent.history() if self.parent is not None else ()), *self.nodes]

    def graph(self, outputs: tuple[Value, ...], known: Mapping[Symbol, int]) -> Graph:
        if self.sources:
            self.nodes = gradient.insert(self.nodes, self.inputs, self.sources)
        used = {v for n in self.nodes for v in n.values} | set(outputs) | set(self.tracked.values())
        params = tuple(p for p in self.params.values() if p.value in used)
        return Graph(
            self.name,
            tuple(self.inputs),
            params,
            tuple(self.nodes),
            outputs,
            dict(self.tracked),
            dict(known),
            tuple(self.assumed),
        )


@dataclass(eq=False)
class Frame:
    """Names in one body. `path` leads from the graph's module to the one whose body is inlined here.

    `awaited` are the members of the module, which are made in the order in which they stand.
    """

    classes: Classes
    builder: GraphBuilder
    names: dict[str, Semantic]
    path: str = ""
    origin: str = ""
    running: bool = False
    awaited: frozenset[str] = frozenset()

    def inner(self, names: dict[str, Semantic], path: str, origin: str) -> Frame:
        """The frame of a body that is inlined into this one."""
        return Frame(self.classes, self.builder, names, path, origin)

    def record(
        self, name: str, operands: tuple[Operand, ...], attrs: Mapping[str, Attr], span: Span | None, layer: str = ""
    ) -> tuple[Value, ...]:
        return self.builder.record(name, operands, attrs, span, layer, self.origin)

    def saw(self, node: ast.Node, value: Semantic) -> None:
        """Tell whoever watches what a piece of the source is."""
        if self.classes.observe is not None:
            self.classes.observe(node, value)

    def size_text(self, size: Size) -> str:
        """A size as Python reads it where the graph runs: parameters by `self.`, run-time sizes from an input."""
        text = str(size)
        for symbol in sorted(size.symbols(), key=lambda s: -len(s.name)):
            text = _replace(text, symbol.name, self._symbol_text(symbol))
        return text

    def _symbol_text(self, symbol: Symbol) -> str:
        if symbol.param:
            return f"{self.builder.owner}{symbol.name}"
        for value in self.builder.inputs:
            for i, size in enumerate(value.type.shape):
                if size == Size.of(symbol):
                    rank = len(value.type.shape)
                    dots = any(str(s) == "..." for s in value.type.shape[:i])
                    return f"{value.name}.shape[{i - rank if dots else i}]"
        return symbol.name

    def scalar(self, scalar: Scalar) -> Scalar:
        """A number as an operand: a size that is not constant becomes Python text."""
        if isinstance(scalar.value, Size) and not scalar.text:
            constant = scalar.value.constant
            return Scalar(constant) if constant is not None else Scalar(scalar.value, self.size_text(scalar.value))
        return scalar

    def declared(self, member: object, name: str) -> tuple[str, ...]:
        """A note on how a member is declared, where it is one."""
        span = self.builder.given.get(member)
        return () if span is None or len(span.text) > 60 else (f"`{name}` is `{span.text}` ({span})",)

    def where_from(self, value: Semantic, name: str) -> str:
        """A note on where a tensor came from."""
        if isinstance(value, Value) and value in self.builder.made:
            return f"`{name}` is {value.type} ({self.builder.made[value]})"
        if isinstance(value, Value) and value in self.builder.given:
            return f"`{name}` is {value.type} ({self.builder.given[value]})"
        return f"`{name}` is {value.type}" if isinstance(value, Value) else ""


def _replace(text: str, word: str, by: str) -> str:
    import re

    return re.sub(rf"(?<![\w.]){re.escape(word)}\b", by, text)
