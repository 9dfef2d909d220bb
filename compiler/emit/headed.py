"""The `forward` of a module that can be called without its last linear layer: `return self.head(x) if head else x`."""

from __future__ import annotations

from tdsl.compiler.emit.python import MODULE, RESERVED, Writer
from tdsl.compiler.emit.render import WIDTH
from tdsl.compiler.emit.statements import Block, Return
from tdsl.compiler.emit.text import LOOSEST, Text
from tdsl.compiler.ir import Graph, Node, Value


def headed_lines(graph: Graph, head: str) -> list[str]:
    """The body of `forward`, where `head` is the argument that says whether the last layer is computed."""
    last = graph.producers()[graph.outputs[0]]
    if last.op.name == MODULE:  # a module within, which is told the same
        return Writer(graph, reserved=RESERVED | {head}).lines()
    return _Headed(graph, head).lines()


class _Headed(Writer):
    def __init__(self, graph: Graph, head: str) -> None:
        super().__init__(graph, reserved=RESERVED | {head})
        self.head = head
        self.hidden = graph.producers()[graph.outputs[0]].values[0]
        # What goes into the layer is a result, too.
        self.uses[self.hidden] += 1
        self.last[self.hidden] = len(self.nodes)

    def _noun(self, value: Value, node: Node) -> str:
        return "hidden" if value is self.hidden else super()._noun(value, node)

    def _return(self) -> None:
        super()._return()
        whole = self.statements.pop()
        assert isinstance(whole, Return)
        hidden = self.texts[self.hidden]
        text = f"{whole.text.at(LOOSEST + 1)} if {self.head} else {hidden.text}"
        if self.indent + len("return ") + len(text) <= WIDTH:
            self.statements.append(Return(Text(text, LOOSEST)))
        else:
            self.statements += [Block(f"if not {self.head}", (Return(hidden),)), whole]
