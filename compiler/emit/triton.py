"""A canonical graph as lines of Triton: names, nesting, masks, and the forms that a schedule asks for."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tdsl.compiler.ir import Graph, Node, Operand, Scalar, Value
from tdsl.compiler.kernel import Layout, layout_of
from tdsl.compiler.ops.op import Kind
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.size import Size

WIDTH = 108  # of a line of a kernel's body, less its indentation

RESERVED = {"rows", "cols", "mask", "row_mask", "col_mask", "offsets", "seed", "n", "n_rows", "tl", "tm", "program"}
RESERVED |= {"start", "first", "triton", "torch", "grid", "ctx", "shape", "tile", "launch", "random", "kernels"}
RESERVED |= {"n_cols", "N_COLS", "BLOCK", "BLOCK_ROWS", "BLOCK_COLS", "programs", "Tensor", "float", "max", "range"}
RESERVED |= {"attention_tiles", "batch_norm", "nn", "nn_functions"}

# What must not count what lies outside the tensor.
MASKED = ("row_sum", "row_max", "row_min", "col_sum", "all_sum", "scan_sum", "scan_back")

# What a value without a name of the source is called, after the op that made it.
NOUNS: Mapping[str, str] = {
    "add": "sum",
    "sub": "difference",
    "mul": "product",
    "div": "quotient",
    "neg": "negated",
    "floor_divide": "quotient",
    "max": "greatest",
    "min": "smallest",
    "all": "every",
    "any": "some",
    "round": "rounded",
    "where": "chosen",
    "batch_norm_layer": "normalised",
    "row_sum": "total",
    "scan_sum": "running",
    "scan_back": "rest",
    "row_max": "top",
    "row_min": "least",
    "rsqrt": "inverse",
    "sqrt": "root",
    "uniform": "draw",
    "gaussian": "draw",
    "branch": "result",
}


def noun(maker: Node | None) -> str:
    """What a value that the source does not name is called after the node that makes it."""
    return "" if maker is None else NOUNS.get(maker.op.name, maker.op.name)


@dataclass
class Names:
    """Hands out names, each once."""

    taken: set[str] = field(default_factory=lambda: set(RESERVED))

    def new(self, wish: str) -> str:
        wish = re.sub(r"\W+", "_", wish).strip("_") or "value"
        wish = f"{wish}_" if keyword.iskeyword(wish) or wish[0].isdigit() else wish
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name


@dataclass(frozen=True)
class Text:
    """An expression and how tightly its outermost operator binds: 3 a call or name, 2 `*`, 1 `+`, 0 others."""

    text: str
    level: int = 3

    def at(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"


_LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "&": 0, "|": 0}


def literal(value: object, *, flat: bool = False) -> Text:
    """A number as Triton reads it; in a `flat` kernel `n` counts all elements."""
    if isinstance(value, Size):
        if flat and value == ROWS * COLS:
            return Text("n")
        text = re.sub(rf"\b{COLS}\b", "N_COLS", re.sub(rf"\b{ROWS}\b", "n_rows", str(value)))
        return Text(text, 3 if text.isidentifier() else 2 if " + " not in text and " - " not in text else 1)
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")')
    text = repr(float(value)) if isinstance(value, float) else repr(value)
    return Text(text, 1 if text.startswith("-") else 3)


class Body:
    """Writes nodes as statements. Values used once are nested where they are used; the others get names."""

    def __init__(
        self,
        graph: Graph,
        names: Names,
        scalars: Mapping[Scalar, str],
        hints: Mapping[Value, str],
        *,
        wishes: Mapping[Value, str] = MappingProxyType({}),
        flat: bool = False,
        first: str = "",
        read_again: Mapping[Value, str] = MappingProxyType({}),
    ) -> None:
        """`hints` are the names of what is stored, `wishes` those of what gets a name if it needs one.

        `first` is the text of the first of a block's offsets, of which each row has one where there are rows.
        `read_again` has the addresses of results that the backward reads: what it finds there must be what the forward
        computed with, or a norm of numbers that were rounded since has another gradient.
        """
        self.read_again = read_again
        self.graph, self.flat, self.first, self.wishes = graph, flat, first, wishes
        self.names = names
        self.scalars = scalars
        self.hints = hints
        self.makers = graph.producers()
        self.uses: dict[Value, int] = {}
        for node in graph.nodes:
            for value in node.values:
                self.uses[value] = self.uses.get(value, 0) + 1
        for value in graph.outputs:
            self.uses[value] = self.uses.get(value, 0) + 1
        self.texts: dict[Value, Text] = {}

    def name(self, value: Value) -> str:
        """A new name for a value, as the source or the op that made it calls it."""
        wish = value.name or self.hints.get(value) or self.wishes.get(value, "")
        return self.names.new(wish or noun(self.makers.get(value)))

    def bind(self, value: Value, name: str) -> None:
        self.texts[value] = Text(name)

    def statements(self, nodes: Iterable[Node]) -> list[str]:
        """Statements that make the results of `nodes`, nested ones left out."""
        lines: list[str] = []
        for node in nodes:
            value = node.output
            text = self.expression(node)
            if self._nests(node, text):
                self.texts[value] = text
                continue
            name = self.name(value)
            text = self._shortened(node, text, WIDTH - len(f"{name} = "), lines)
            lines.append(f"{name} = {text.text}")
            if value in self.read_again and self.uses[value] > 1:
                stored = f"{name}.to({self.read_again[value]}.dtype.element_ty).to(tl.float32)"
                lines.append(f"{name} = {stored}  # as it is stored")
            self.bind(value, name)
        return lines

    def _shortened(self, node: Node, text: Text, width: int, lines: list[str]) -> Text:
        """The expression with its longest operands made before it, on lines of their own, where it is too long."""
        while len(text.text) > width:
            longest = max(node.values, key=lambda v: len(self.texts[v].text), default=None)
            if longest is None or self.texts[longest].text.isidentifier():
                break
            name = self.name(longest)
            lines.append(f"{name} = {self.texts[longest].text}")
            self.bind(longest, name)
            text = self.expression(node)
        return text

    def _nests(self, node: Node, text: Text) -> bool:
        value = node.output
        named = value.name or self.hints.get(value)
        if node.op.name in ("stop", "spread") or text.text.isidentifier():
            return True
        return not named and self.uses.get(value) == 1 and len(text.text) <= 60 and not node.op.name.startswith("row_")

    def operand(self, operand: Operand) -> Text:
        if isinstance(operand, Value):
            return self.texts[operand]
        return Text(self.scalars[operand]) if operand.text else literal(operand.value, flat=self.flat)

    def expression(self, node: Node) -> Text:
        """The node's Triton text over its operands' texts."""
        operands = [self.operand(o) for o in node.inputs]
        template = node.op.triton
        infix = re.fullmatch(r"\{0\} (\S+) \{1\}", template)
        if infix:
            sign = infix[1]
            level = _LEVELS.get(sign, 0)
            loose = level if level else 1
            right = loose + 1 if level else 1
            return Text(f"{operands[0].at(loose)} {sign} {operands[1].at(right)}", level)
        if template == "~{0}":
            return Text(f"~{operands[0].at(3)}")
        if template == "{0} != {0}":
            return Text(f"{operands[0].at(1)} != {operands[0].at(1)}", 0)
        if template.startswith("{0}."):
            return Text(f"{operands[0].at(3)}{template.removeprefix('{0}')}")
        if template.startswith("-"):
            return Text(f"-{operands[0].at(2)}", 1)
        if template.startswith("1.0 /"):
            return Text(f"1.0 / {operands[0].at(3)}", 2)
        if template == "{0}" and node.op.kind is not Kind.REDUCTION:
            return operands[0]
        texts = [o.text for o in operands]
        if node.op.name in MASKED:
            texts[0] = self.masked(node, texts[0])
        stream = node.attrs.get("stream")
        seed = f"seed + {stream}" if stream else "seed"
        return Text(template.format(*texts, seed=seed, first=self.first, rows="" if self.flat else "_rows"))

    def masked(self, node: Node, text: str) -> str:
        """What lies outside the tensor must not count."""
        outside = {"row_max": 'float("-inf")', "row_min": 'float("inf")'}.get(node.op.name, "0.0")
        by_row = layout_of(node.values[0].type.shape) is Layout.ROW
        return f"tl.where({'row_mask' if by_row else 'mask'}, {text}, {outside})"


def needed(graph: Graph, wanted: Iterable[Value], have: Iterable[Value]) -> list[Node]:
    """The nodes that make `wanted` from `have`, in order."""
    have_set, want = set(have), set(wanted)
    found: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in want and node.output not in have_set:
            found.append(node)
            want.update(node.values)
    return found[::-1]
