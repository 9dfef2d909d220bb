"""A group's body as plain PyTorch: the reference that stands beside its kernels, and is their oracle."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.emit.python import RESERVED, Writer
from tdsl.compiler.emit.sizes import Sizes
from tdsl.compiler.emit.text import Text, call
from tdsl.compiler.ir import Graph, Node, Scalar, Value
from tdsl.compiler.size import Size


def reference_lines(
    graph: Graph, names: Mapping[Value, str], scalars: Mapping[Scalar, str], layer: tuple[str, str] | None = None
) -> list[str]:
    """Statements that compute `graph` from the named inputs, ending in a `return`.

    `layer` is the path of a layer that is given as an argument, and the argument's name.
    """
    return _Reference(graph, names, scalars, layer).lines()


class _Reference(Writer):
    def __init__(
        self,
        graph: Graph,
        names: Mapping[Value, str],
        scalars: Mapping[Scalar, str],
        layer: tuple[str, str] | None,
    ) -> None:
        self.path, self.layer = layer or ("", "")
        reserved = RESERVED | {"random", "seed", *scalars.values(), *filter(None, [self.layer])}
        self.scalars = scalars
        super().__init__(graph, indent=4, layers=False, comments=False, names=names, reserved=reserved)
        self.draws = 0

    def _text(self, node: Node) -> Text:
        if self.layer and node.layer == self.path:
            return call(self.layer, [self.operand(v).text for v in node.values], ordered=True)
        return super()._text(node)

    def scalar(self, scalar: Scalar) -> str:
        return self.scalars[scalar]

    def _own_sizes(self, inputs: Mapping[Value, str], taken: frozenset[str], owner: str | None) -> Sizes:
        given = {scalar.value: name for scalar, name in self.scalars.items() if isinstance(scalar.value, Size)}
        return Sizes(self._sized(), inputs, taken, owner, given)

    def draw(self, node: Node, operands: list[Text]) -> Text:
        """The kernels' own numbers, each draw of a group with a seed of its own."""
        seed = f"seed + {self.draws}" if self.draws else "seed"
        self.draws += 1
        return call(f"random.{node.op.name}", [*(o.text for o in operands), seed], ordered=True)
