"""`with torch.no_grad():` and `if self.training:`, whose bodies bind names that what follows reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tdsl.compiler.emit.python import Writer, shape_comment
from tdsl.compiler.emit.sizes import Sizes
from tdsl.compiler.emit.statements import Block, Line, Statement, checks
from tdsl.compiler.emit.text import LOOSEST, Text
from tdsl.compiler.ir import Graph, Node, Scalar, Value

HEADS = {"no_grad": "with torch.no_grad()"}


def region_statement(outer: Writer, node: Node, index: int, targets: Sequence[str]) -> list[Line]:
    """The statement that a node with regions is; `targets` are the names of its results, `_` for what is not read."""
    condition = node.attrs.get("condition")
    if isinstance(condition, Scalar):
        return _branch(outer, node, index, targets, outer.scalar(condition))
    body = _Region(outer, node, node.regions[0], index, targets).body()
    return [Block(HEADS[node.op.name], tuple(body))] if body else []


def _branch(outer: Writer, node: Node, index: int, targets: Sequence[str], condition: str) -> list[Line]:
    sides = [_Region(outer, node, region, index, targets) for region in node.regions]
    then, otherwise = (tuple(side.body()) for side in sides)
    chosen = _chosen(outer, node, targets, [side.only for side in sides], condition)
    if chosen is not None:
        return [chosen]
    if not then:
        return [Block(f"if not {condition}", otherwise)] if otherwise else []
    return [Block(f"if {condition}", then, otherwise)]


def _chosen(
    outer: Writer, node: Node, targets: Sequence[str], sides: Sequence[Text | None], condition: str
) -> Statement | None:
    """`h = a if self.training else b`, where both sides are expressions and short."""
    then, otherwise = sides
    if then is None or otherwise is None or len(targets) != 1:
        return None
    text = f"{then.at(LOOSEST + 1)} if {condition} else {otherwise.at(LOOSEST + 1)}"
    if outer.indent + len(targets[0]) + len(text) + 4 > 100:
        return None
    comment = shape_comment([node.output.type]) if outer.comments else ""
    return Statement((targets[0],), Text(text, LOOSEST, ordered=True), comment)


class _Region(Writer):
    """Writes one region of a node into the function around it."""

    def __init__(self, outer: Writer, node: Node, region: Graph, index: int, targets: Sequence[str]) -> None:
        self.outer = outer
        self.only: Text | None = None
        given = dict(zip(region.inputs, node.values, strict=True))
        names = {inner: outer.texts[value].text for inner, value in given.items()}
        reserved = frozenset(outer.names.taken)
        super().__init__(
            region,
            owner=outer.owner,
            indent=outer.indent + 4,
            layers=outer.layers,
            comments=outer.comments,
            names=names,
            reserved=reserved,
        )
        self.params = {inner for inner, value in given.items() if value in outer.params}
        self.assumed = tuple(fact for fact in region.assumed if fact not in outer.graph.assumed)
        self.targets = targets
        self.preset = {value: name for value, name in zip(region.outputs, targets) if name != "_"}
        # What is read after the node keeps its name.
        self.last |= {inner: len(self.nodes) for inner, value in given.items() if outer.last.get(value, -1) > index}

    def _own_sizes(self, inputs: Mapping[Value, str], taken: frozenset[str], owner: str | None) -> Sizes:
        return self.outer.sizes

    def scalar(self, scalar: Scalar) -> str:
        return self.outer.scalar(scalar)

    def body(self) -> list[Line]:
        self.statements += checks(self.assumed, self.sizes.text)
        for index, node in enumerate(self.nodes):
            self._node(index, node)
        self._settle_results()
        self._deliver()
        return self.statements

    def _target(self, value: Value, node: Node, index: int) -> str:
        name = self.preset.get(value)
        if name is not None and (name not in self.holders or self._is_free(name, index)):
            return self._bind(value, name)
        return super()._target(value, node, index)

    def _deliver(self) -> None:
        """Bind the results that no statement has bound to their names."""
        wanted = [(t, v) for t, v in zip(self.targets, self.graph.outputs) if t != "_"]
        left = [(t, v) for t, v in wanted if self.texts[v].text != t]
        if len(wanted) == 1 and not self.statements:
            self.only = self.texts[wanted[0][1]]
        if not left:
            return
        comment = shape_comment([v.type for _, v in left]) if self.comments else ""
        texts = [self.texts[v] for _, v in left]
        text = texts[0] if len(texts) == 1 else Text(", ".join(t.text for t in texts))
        self.statements.append(Statement(tuple(t for t, _ in left), text, comment))
