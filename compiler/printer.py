"""Stable text of a graph, for dumps and goldens: a node a line, unique names, attributes at defaults left out.

graph forward(%x: float[B, 64]) params(@up.weight: float[hidden, 64]) {
  %h: float[B, hidden] = linear(%x, @up.weight) layer=up
  %0: float[B, hidden] = gelu(%h)
  return %0
}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tdsl.compiler.ir import Attr, Graph, Node, Operand, Scalar, Value
from tdsl.compiler.size import Size


def dump(graph: Graph) -> str:
    """The text of a graph, with a newline at its end."""
    return "".join(f"{line}\n" for line in _Printer(graph).graph(graph))


class _Printer:
    def __init__(self, graph: Graph) -> None:
        self.names: dict[Value, str] = {p.value: f"@{p.path}" for p in graph.params}
        self.taken: set[str] = set(self.names.values())
        self.unnamed = 0

    def graph(self, graph: Graph) -> Iterator[str]:
        head = f"graph {graph.name}({self._typed(graph.inputs)})"
        if graph.params:
            kept = (f"{self.name(p.value)}: {p.value.type}{'' if p.trainable else ' fixed'}" for p in graph.params)
            head += f" params({', '.join(kept)})"
        if graph.known:
            known = sorted(graph.known.items(), key=lambda item: item[0].name)
            head += f" known({', '.join(f'{symbol}={value}' for symbol, value in known)})"
        yield f"{head} {{"
        yield from (f"  {line}" for line in self._body(graph))
        yield "}"

    def _body(self, graph: Graph) -> Iterator[str]:
        yield from (f"assume {fact}" for fact in graph.assumed)
        for node in graph.nodes:
            yield from self._node(node)
        yield f"return {', '.join(map(self.name, graph.outputs))}".rstrip()
        for name, value in graph.tracked.items():
            yield f"track {name} = {self.name(value)}"

    def _node(self, node: Node) -> Iterator[str]:
        given = [*map(self._operand, self._given(node)), *self._attrs(node)]
        marks = "".join(f" {key}={text}" for key, text in (("layer", node.layer), ("origin", node.origin)) if text)
        if node.regions:
            yield f"{self._typed(node.outputs)} = {node.op.name}({', '.join(given)}){marks}".removeprefix(" = ")
            for region in node.regions:
                yield f"  ({self._typed(region.inputs)}) {{"
                yield from (f"    {line}" for line in self._body(region))
                yield "  }"
            return
        if node.group is None:
            yield f"{self._typed(node.outputs)} = {node.op.name}({', '.join(given)}){marks}"
            return
        yield f"{self._typed(node.outputs)} = {node.op.name} {node.group.name}({', '.join(given)}){marks} {{"
        yield from (f"  {line}" for line in self._body(node.group.body))
        yield "}"

    def _given(self, node: Node) -> tuple[Operand, ...]:
        """The operands less the optional ones that are absent at the end."""
        found = list(node.inputs)
        while found and isinstance(found[-1], Scalar) and found[-1].value is None and not found[-1].text:
            found.pop()
        return tuple(found)

    def _attrs(self, node: Node) -> Iterator[str]:
        defaults = {arg.name: arg.default for arg in node.op.signature if not arg.required}
        for name, attr in node.attrs.items():
            if name not in defaults or _attr(attr) != _attr(defaults[name]):
                yield f"{name}={_attr(attr)}"

    def _operand(self, operand: Operand) -> str:
        return self.name(operand) if isinstance(operand, Value) else _attr(operand)

    def _typed(self, values: Iterable[Value]) -> str:
        return ", ".join(f"{self.name(v)}: {v.type}" for v in values)

    def name(self, value: Value) -> str:
        """`%h`, `%h_2` for the second so called, `%0` for the first without a name."""
        if value not in self.names:
            self.names[value] = self._new(value.name)
            self.taken.add(self.names[value])
        return self.names[value]

    def _new(self, wish: str) -> str:
        if not wish:
            self.unnamed += 1
            return f"%{self.unnamed - 1}"
        name, number = f"%{wish}", 2
        while name in self.taken:
            name, number = f"%{wish}_{number}", number + 1
        return name


def _attr(attr: Attr) -> str:
    """A literal as Python has it; `{self.eps}` for a number that is only known when the graph is run."""
    if isinstance(attr, tuple):
        return f"({', '.join(map(_attr, attr))})"
    if isinstance(attr, Scalar):
        return f"{{{attr.text}}}" if attr.text else _attr(attr.value)
    return str(attr) if isinstance(attr, Size) else repr(attr)
