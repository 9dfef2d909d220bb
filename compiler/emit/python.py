"""A graph as statements of Python, as a person would have written them: the names of the source, nested where short.

A value that the source names gets a statement of its own, one used once is nested where it is used while the line stays
readable, any other gets a name after the op that made it. A name is bound again where nothing reads its older value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tdsl.compiler.emit.reads import last_uses, live, sizes_in
from tdsl.compiler.emit.sizes import Sizes
from tdsl.compiler.emit.statements import Line, Loop, Return, Statement, checked_sizes, checks
from tdsl.compiler.emit.text import (
    Text,
    call,
    identifier,
    literal,
    number_text,
    op_text,
    path_text,
    scalar_text,
)
from tdsl.compiler.emit.triton import NOUNS, Names
from tdsl.compiler.ir import Attr, Graph, Node, Operand, Scalar, TensorType, Value
from tdsl.compiler.names import snake
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.size import Size

# The longest line that nesting may make.
READABLE = 116
RESERVED = frozenset(
    {"self", "torch", "nn", "F", "math", "kernels", "nn_functions", "tracking", "Tensor", "float", "_"}
)
MODULE, LIST = "call_module", "call_list"


def graph_lines(graph: Graph, *, owner: str = "self.", indent: int = 8) -> list[str]:
    """The body of a function that computes `graph`, ending in a `return`; its inputs bear their values' names.

    `owner` is how layers and parameters are reached, `indent` the columns that the caller puts before each line. Lines
    that belong to one statement are indented relative to it.
    """
    return Writer(graph, owner=owner, indent=indent).lines()


def block_lines(graph: Graph) -> list[str]:
    """The body of `def loss(model, batch)`: layers begin with the name of a model. Tracked values follow the result."""
    return graph_lines(graph, owner="", indent=4)


def shape_comment(types: Sequence[TensorType]) -> str:
    """`[B, hidden]`; the dtype only where it is not `float`; several that are equal once."""
    texts = [str(t).removeprefix("float") for t in types]
    return f"{texts[0]} each" if len(texts) > 1 and len(set(texts)) == 1 else ", ".join(texts)


class Writer:
    """Writes the nodes of one graph. A subclass says otherwise how scalars, sizes and random draws are written."""

    def __init__(
        self,
        graph: Graph,
        *,
        owner: str = "self.",
        indent: int = 8,
        layers: bool = True,
        comments: bool = True,
        names: Mapping[Value, str] | None = None,
        reserved: frozenset[str] = RESERVED,
    ) -> None:
        self.graph = graph
        self.owner, self.indent, self.layers, self.comments = owner, indent, layers, comments
        inputs = names if names is not None else {value: value.name for value in graph.inputs}
        self.params = {p.value for p in graph.params}
        # The function that calls a group's has checked what is assumed.
        self.assumed = graph.assumed if layers else ()
        self.nodes = live(graph) if layers else list(graph.nodes)
        self.last = last_uses(graph, self.nodes, inputs, self.scalar)
        self.uses = Counter(v for node in self.nodes for v in node.values) + Counter(graph.results)
        bound = {value.name for node in graph.walk() for value in node.outputs}
        self.sizes = self._own_sizes(inputs, reserved | bound, owner if names is None else None)
        self.last |= {v: max(i, self.last.get(v, -1)) for v, i in self.sizes.read.items()}
        self.texts = {value: Text(name) for value, name in inputs.items()}
        self.texts |= {p.value: Text(path_text(owner, p.path)) for p in graph.params}
        self.pending: dict[Value, Text] = {}
        # The first and the last node, of those that are ordered, in each pending expression.
        self.spans: dict[Value, tuple[int, int]] = {}
        self.holders = {name: value for value, name in inputs.items()}
        self.names = Names({*reserved, *self.sizes.names.values(), *self._roots(inputs)})
        self.statements: list[Line] = []

    def _own_sizes(self, inputs: Mapping[Value, str], taken: frozenset[str], owner: str | None) -> Sizes:
        return Sizes(self._sized(), inputs, taken, owner)

    def _sized(self) -> Iterator[tuple[int, Size]]:
        """The sizes that are written, each with the index of its node."""
        yield from ((-1, s) for each in self.assumed for s in checked_sizes(each))
        for i, node in enumerate(self.nodes):
            yield from ((i, s) for s in self._written(node))

    def _written(self, node: Node) -> Iterator[Size]:
        if not self._is_call(node) and node.group is None:
            written = (*node.inputs, *node.attrs.values())
            yield from (s for attr in written if not isinstance(attr, Value) for s in sizes_in(attr))
        for region in node.regions:
            yield from (s for each in region.assumed if each not in self.graph.assumed for s in checked_sizes(each))
            yield from (s for inner in region.nodes for s in self._written(inner))

    def _roots(self, inputs: Mapping[Value, str]) -> set[str]:
        """Names that expressions begin with: no other value may have them."""
        found = {name.partition(".")[0] for name in inputs.values()}
        if not self.owner:
            paths = (*(n.layer for n in self.graph.walk()), *(p.path for p in self.graph.params))
            found |= {path.partition(".")[0] for path in paths}
        return found

    def lines(self) -> list[str]:
        self.statements += checks(self.assumed, self.sizes.text)
        if self.graph.collects:
            self.statements.append(Statement((), call("tracking.start", ())))
        for index, node in enumerate(self.nodes):
            self._node(index, node)
        self._return()
        found = self.sizes.header()
        return found + [line for s in self.statements for line in s.lines(self.indent)]

    # Nodes -----------------------------------------------------------------------------------------------------------

    def _node(self, index: int, node: Node) -> None:
        if node.op.name == LIST:
            self._loop(index, node)
            return
        if node.regions:
            self._run_regions(index, node)
            return
        nests = len(node.outputs) == 1 and self._nests(node.output)
        first = self._sequence(index, node, nests)
        text = self._expression(node)
        if nests:
            self.texts[node.output] = self.pending[node.output] = text
            if text.ordered:
                self.spans[node.output] = (first, index)
            return
        targets = tuple(self._target(value, node, index) for value in node.outputs)
        named = any(v.name for v in node.outputs)
        types = [v.type for v, target in zip(node.outputs, targets) if target != "_"]
        comment = shape_comment(types) if named and self.comments else ""
        used = any(target != "_" for target in targets)
        if node.op.targets is not None:
            targets = node.op.targets(targets)
        self.statements.append(Statement(targets if used else (), text, comment if used else ""))

    def _nests(self, value: Value) -> bool:
        return not value.name and self.uses[value] == 1

    def _expression(self, node: Node) -> Text:
        """The node's text; what it would nest gets a statement first where the line would not stay readable."""
        target = len(", ".join(v.name or "_" for v in node.outputs))
        nested = len(node.outputs) == 1 and self._nests(node.output) and node.output not in self.graph.results
        taken = [v for v in dict.fromkeys(node.values) if v in self.pending]
        text = self._text(node)
        while taken and self._is_long(text, target, nested):
            self._settle(max(taken, key=lambda v: len(self.pending[v].text)))
            taken = [v for v in taken if v in self.pending]
            text = self._text(node)
        for value in taken:
            self._consume(value)
        return text

    def _is_long(self, text: Text, target: int, nested: bool) -> bool:
        """Whether a line is; the call that a statement is made of may have a line an argument."""
        if self.indent + target + len(" = ") + len(text.text) <= READABLE:
            return False
        if text.call is None or nested:
            return True
        head, arguments = text.call
        return len(head) > READABLE // 2 or any(self.indent + 4 + len(each) > READABLE for each in arguments)

    def _text(self, node: Node) -> Text:
        operands = [self.operand(o) for o in node.inputs]
        if node.group is not None:
            return call(f"kernels.{identifier(node.group.name)}", self._given_group(node, operands), ordered=True)
        if self._is_call(node):
            return call(path_text(self.owner, node.layer), self._given(node, operands), ordered=True)
        if node.op.kind is Kind.RANDOM:
            return self.draw(node, operands)
        return op_text(node, operands, {name: self._attr(attr) for name, attr in node.attrs.items()})

    def _is_call(self, node: Node) -> bool:
        return node.op.name == MODULE or (self.layers and bool(node.layer))

    def _given_group(self, node: Node, operands: list[Text]) -> list[str]:
        """Tensors, the layer that the group is given, numbers."""
        assert node.group is not None
        texts = [o.text for o in operands]
        structure = node.group.structure
        if structure is not None and structure.layer:
            texts.insert(len(node.values), path_text(self.owner, structure.layer))
        return texts

    def _given(self, node: Node, operands: list[Text]) -> list[str]:
        """What a call is given: the layer has its own parameters, and its own numbers."""
        texts = [o.text for o in operands]
        if node.op.name == MODULE:
            return [*texts, *(f"{identifier(name)}={literal(attr)}" for name, attr in node.attrs.items())]
        if node.op.arguments is not None:
            return node.op.arguments(texts, {name: self._attr(attr) for name, attr in node.attrs.items()})
        rest = zip(texts[1:], node.inputs[1:])
        return [texts[0], *(t for t, o in rest if isinstance(o, Value) and o not in self.params)]

    def _loop(self, index: int, node: Node) -> None:
        """`for block in self.blocks: x = block(x)`."""
        self._sequence(index, node, nests=False)
        first, *rest = [self.operand(o) for o in node.inputs]
        for value in node.values:
            self._consume(value)
        value = node.output
        wish = value.name or (first.text if first.text in self.holders else "x")
        free = not any(o.mentions(wish) for o in rest) and self._is_free(wish, index)
        target = self._bind(value, wish if free else self.names.new(wish))
        if target != first.text:
            self.statements.append(Statement((target,), first))
        path = path_text(self.owner, node.layer)
        variable = self.names.new(_singular(node.layer))
        self.names.taken.discard(variable)
        comment = shape_comment([value.type]) if self.comments else ""
        body = Statement((target,), call(variable, [target, *(o.text for o in rest)]), comment)
        self.statements.append(Loop(variable, path, body))

    def _run_regions(self, index: int, node: Node) -> None:
        """The bodies of a statement, each written with the names that stand around it."""
        from tdsl.compiler.emit.regions import region_statement

        self._settle_all([*dict.fromkeys(node.values), *self.spans])
        targets = tuple(self._target(value, node, index) for value in node.outputs)
        self.statements += region_statement(self, node, index, targets)

    # Operands, as a subclass may write them otherwise ----------------------------------------------------------------

    def operand(self, operand: Operand) -> Text:
        if isinstance(operand, Value):
            return self.texts[operand]
        if operand.text:
            return scalar_text(self.scalar(operand))
        if isinstance(operand.value, Size):
            return scalar_text(self.sizes.text(operand.value))
        return number_text(operand.value)

    def scalar(self, scalar: Scalar) -> str:
        return scalar.text

    def draw(self, node: Node, operands: list[Text]) -> Text:
        """A node that draws random numbers."""
        return op_text(node, operands, {name: self._attr(attr) for name, attr in node.attrs.items()})

    def _attr(self, attr: Attr) -> Attr:
        """An attribute with its sizes as text."""
        if isinstance(attr, tuple):
            return tuple(self._attr(a) for a in attr)
        if isinstance(attr, Size):
            return attr.constant if attr.constant is not None else Scalar(attr, self.sizes.text(attr))
        return Scalar(attr.value, self.scalar(attr)) if isinstance(attr, Scalar) and attr.text else attr

    # Names -----------------------------------------------------------------------------------------------------------

    def _target(self, value: Value, node: Node, index: int) -> str:
        if not self.uses[value]:
            return "_"
        wish = value.name or self._noun(value, node)
        return self._bind(value, wish if value.name and self._is_free(wish, index) else self.names.new(wish))

    def _bind(self, value: Value, name: str) -> str:
        self.names.taken.add(identifier(name))
        self.holders[name] = value
        self.texts[value] = Text(name)
        return name

    def _is_free(self, name: str, index: int) -> bool:
        """Whether a name may be bound: nobody has it, or nothing after node `index` reads the value that has."""
        if name not in self.holders:
            return name not in self.names.taken
        if any(text.mentions(name) for text in self.pending.values()):
            return False
        return self.last.get(self.holders[name], -1) <= index

    def _noun(self, value: Value, node: Node) -> str:
        """What to call a value that the source does not name."""
        if self.layers and node.layer:
            path = [part for part in node.layer.split(".") if not part.isdecimal()]
            return path[-1] if self.owner or len(path) > 1 else "output"
        maker = node.group.body.producers().get(value, node) if node.group is not None else node
        if maker.op.results:
            return maker.op.results[maker.outputs.index(value)]
        return snake(maker.origin) if maker.origin else NOUNS.get(maker.op.name, maker.op.name)

    def _settle(self, value: Value) -> None:
        """Give a pending expression a statement of its own, after those that it must not overtake."""
        for earlier in list(self.spans)[: list(self.spans).index(value)] if value in self.spans else ():
            self._settle(earlier)
        text = self._consume(value)
        maker = next(n for n in self.nodes if value in n.outputs)
        name = self.names.new(self._noun(value, maker))
        self.statements.append(Statement((self._bind(value, name),), text))

    def _consume(self, value: Value) -> Text:
        """The text of a value, which is no longer pending."""
        self.spans.pop(value, None)
        return self.pending.pop(value, self.texts[value])

    def _sequence(self, index: int, node: Node, nests: bool) -> int:
        """Keep what is ordered in the order of the nodes; the first of what the node's expression will hold."""
        taken = [v for v in dict.fromkeys(node.values) if v in self.spans]
        spans = [self.spans[v] for v in taken]
        others = [v for v in self.spans if v not in taken]
        after = [v for v in others if spans and self.spans[v][1] > spans[0][0]]
        if after or any(a[1] > b[0] for a, b in pairwise(spans)):
            self._settle_all([*self.spans])
            return index
        if not nests and (spans or self._is_ordered(node)):
            self._settle_all(others)
        return spans[0][0] if spans else index

    def _settle_all(self, values: Sequence[Value]) -> None:
        for value in values:
            if value in self.pending:
                self._settle(value)

    def _is_ordered(self, node: Node) -> bool:
        drawn = node.op.kind is Kind.RANDOM or node.op.effects or bool(node.regions)
        return node.group is not None or node.op.name == LIST or self._is_call(node) or drawn

    # The end ---------------------------------------------------------------------------------------------------------

    def _return(self) -> None:
        """Values made by the last statement are returned by it."""
        if self.owner and self.graph.tracked:
            self._hand_over()
        self._settle_results()
        last = self.statements[-1] if self.statements else None
        results = self._results()
        if isinstance(last, Statement) and last.targets == results:
            self.statements[-1] = Return(last.text)
        elif len(results) == 1:
            self.statements.append(Return(self.texts[self.graph.outputs[0]]))
        else:
            self.statements.append(Return(Text(", ".join(results)), results))

    def _settle_results(self) -> None:
        spans = [self.spans[v] for v in self.graph.outputs if v in self.spans]
        if any(a[1] > b[0] for a, b in pairwise(spans)):
            self._settle_all([*self.spans])
        while self.pending and self._is_long_result():
            self._settle(max(self.pending, key=lambda v: len(self.pending[v].text)))

    def _is_long_result(self) -> bool:
        results = self._results()
        text = self.texts[self.graph.outputs[0]] if len(results) == 1 else Text(", ".join(results))
        return self._is_long(text, len("return") - len(" ="), nested=False)

    def _results(self) -> tuple[str, ...]:
        results = tuple(self.texts[v].text for v in self.graph.outputs)
        if not self.graph.tracks or self.owner:
            return results
        if not self.graph.tracked:
            return (*results, "tracking.collect()")
        tracked = [f"{literal(name)}: {self.texts[v].text}" for name, v in self.graph.tracked.items()]
        tracked += ["**tracking.collect()"] if self.graph.collects else []
        return (*results, f"{{{', '.join(tracked)}}}")

    def _hand_over(self) -> None:
        """What a module tracks goes to the loss that calls it."""
        self._settle_all([*self.spans])
        for name, value in self.graph.tracked.items():
            text = call("tracking.add", [literal(name), self._consume(value).text])
            self.statements.append(Statement((), text))


def _singular(path: str) -> str:
    """What one module of a list is called: `block` of `blocks`, else `layer`."""
    name = path.rpartition(".")[2]
    return name[:-1] if name.endswith("s") and not name.endswith("ss") and len(name) > 2 else "layer"
