"""A group's body as plain PyTorch: the reference that stands beside its kernels, and is their oracle."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tdsl.compiler.emit.triton import Names, Text
from tdsl.compiler.ir import Attr, Graph, Node, Operand, Scalar, Value
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.size import Size

_LEVELS = {"+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5, "@": 5, "**": 7}
_UNARY, _CALL, _COMPARE = 6, 8, 1


def reference_lines(graph: Graph, names: Mapping[Value, str], scalars: Mapping[Scalar, str]) -> list[str]:
    """Statements that compute `graph` from the named inputs, ending in a `return`."""
    return _Reference(graph, names, scalars).lines()


class _Reference:
    def __init__(self, graph: Graph, names: Mapping[Value, str], scalars: Mapping[Scalar, str]) -> None:
        self.graph = graph
        self.inputs = names
        self.scalars = scalars
        self.names = Names(set(names.values()) | set(scalars.values()) | {"torch", "F", "random", "seed"})
        self.texts = {value: Text(name, _CALL) for value, name in names.items()}
        self.uses = {value: len(users) for value, users in graph.users().items()}
        self.draws = 0

    def lines(self) -> list[str]:
        found: list[str] = []
        for node in self.graph.nodes:
            text = self._node(node)
            value = node.output
            if self._nests(value, text):
                self.texts[value] = text
                continue
            name = self.names.new(value.name or node.op.name)
            found.append(f"{name} = {text.text}")
            self.texts[value] = Text(name, _CALL)
        results = ", ".join(self.texts[v].text for v in self.graph.outputs)
        return self._returned(found, results)

    def _returned(self, lines: list[str], results: str) -> list[str]:
        """`y = f(x); return y` is `return f(x)`."""
        if lines and len(self.graph.outputs) == 1 and lines[-1].startswith(f"{results} = "):
            return [*lines[:-1], f"return {lines[-1].removeprefix(f'{results} = ')}"]
        return [*lines, f"return {results}"]

    def _nests(self, value: Value, text: Text) -> bool:
        if value in self.graph.outputs:
            return False
        return self.uses.get(value, 0) == 1 and not value.name and len(text.text) <= 70

    def _operand(self, operand: Operand) -> Text:
        if isinstance(operand, Value):
            return self.texts[operand]
        if operand.text:
            return Text(self.scalars[operand], _CALL)
        negative = isinstance(operand.value, (int, float)) and operand.value < 0
        return Text(python_literal(operand.value), _UNARY if negative else _CALL)

    def _node(self, node: Node) -> Text:
        operands = [self._operand(o) for o in node.inputs]
        if node.op.kind is Kind.RANDOM:
            seed = f"seed + {self.draws}" if self.draws else "seed"
            self.draws += 1
            return Text(f"random.{node.op.name}({', '.join([*(o.text for o in operands), seed])})", _CALL)
        attrs = {k: self._attr(v) for k, v in node.attrs.items()}
        return call_text(node, operands, attrs)

    def _attr(self, value: Attr) -> Attr:
        if isinstance(value, tuple):
            return tuple(self._attr(v) for v in value)
        if isinstance(value, Size):
            return Scalar(None, self._size(value))
        return Scalar(None, self.scalars[value]) if isinstance(value, Scalar) and value.text else value

    def _size(self, size: Size) -> str:
        """A size as the shape of an input has it."""
        for value, name in self.inputs.items():
            for i, dim in enumerate(value.type.shape):
                if dim == size:
                    return f"{name}.shape[{i - len(value.type.shape)}]"
        text = str(size)
        for symbol in size.symbols():
            text = re.sub(rf"\b{symbol}\b", self._size(Size.of(symbol)), text)
        return text


def call_text(node: Node, operands: list[Text], attrs: Mapping[str, Attr]) -> Text:
    """One call of an op in PyTorch, over its operands' texts."""
    torch = node.op.torch
    if callable(torch):
        return Text(torch([o.text for o in operands], dict(attrs)), _CALL)
    if torch in _LEVELS or re.fullmatch(r"[<>=!]=?", torch):
        level = _LEVELS.get(torch, _COMPARE)
        left, right = (level + 1, level) if torch == "**" else (level, level + 1)
        return Text(f"{operands[0].at(left)} {torch} {operands[1].at(right)}", level)
    if torch in ("-x", "~{0}"):
        return Text(f"-{operands[0].at(_UNARY)}", _UNARY)
    given = _arguments(node, operands, attrs)
    if torch.startswith("."):
        return Text(f"{operands[0].at(_CALL)}{torch}({', '.join(given[1:])})", _CALL)
    return Text(f"{torch}({', '.join(given)})", _CALL)


def _arguments(node: Node, operands: list[Text], attrs: Mapping[str, Attr]) -> list[str]:
    """Operands by position, attributes that differ from their defaults by name; by position while none is left out."""
    texts: list[str] = []
    left = list(operands)
    named = False
    for arg in node.op.signature:
        text = left.pop(0).text if arg.is_operand and left else python_literal(attrs.get(arg.name))
        absent = text == python_literal(arg.default) and not arg.required
        if absent:
            named = True
        elif named or (arg.kind in ("bool", "float", "sizes", "int", "str") and not arg.required):
            named = True
            texts.append(f"{arg.name}={text}")
        else:
            texts.append(text)
    return texts


def python_literal(value: object) -> str:
    """A constant as Python writes it; a string is taken as the text of an expression."""
    if isinstance(value, tuple):
        inner = ", ".join(python_literal(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Size):
        return str(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    if isinstance(value, Scalar):
        return value.text or python_literal(value.value)
    return repr(value)
