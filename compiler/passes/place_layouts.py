"""Give convolutional models images whose channels lie together in memory, as the matrix units of GPUs read them.

Before: `model(batch.image.to(bf16))`; of a run with `tf32`, `model(batch.image)`.
After:  `model(batch.image.to(bf16, memory_format=channels_last))`, `model(batch.image.contiguous(...))`.

The scripts make the model itself so, and what it computes of such images stays so. In full float32 nothing changes:
there cuDNN has its faster convolutions for PyTorch's own order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tdsl.compiler.build.unit import LayerMember, ModuleMember, RunIR, Unit
from tdsl.compiler.ir import Graph, Node, Operand, Value
from tdsl.compiler.ops.op import OPS

LAYERS = ("Conv2d", "ConvTranspose2d")
CALLS = ("conv2d", "conv_transpose2d")


def place_layouts(unit: Unit) -> Unit:
    """The unit with images laid out so where the losses and evaluations of its runs give them to such models."""
    models = {name: channels_last(unit, run) for name, run in unit.runs.items()}

    def placed(graph: Graph | None, name: str) -> Graph | None:
        return _Images(graph, models[name]).run() if graph is not None and models[name] else graph

    return replace(
        unit,
        runs={n: replace(r, loss=placed(r.loss, n) or r.loss) for n, r in unit.runs.items()},
        evaluations={
            n: replace(e, compare=placed(e.compare, n), predict=placed(e.predict, n))
            for n, e in unit.evaluations.items()
        },
    )


def channels_last(unit: Unit, run: RunIR) -> frozenset[str]:
    """The models of a run that are to be laid out so: those with convolutions of images, unless in full float32."""
    if run.spec.settings.get("precision") in (None, "f32") and run.spec.settings.get("tf32") is not True:
        return frozenset()
    return frozenset(name for name, member in run.models.items() if _convolves(unit, member))


def _convolves(unit: Unit, model: ModuleMember) -> bool:
    inside = list(unit.within(model))
    names = {member.class_name for member in inside if isinstance(member, ModuleMember)}
    graphs = (module.graph for module in unit.modules if module.class_name in names)
    layers = any(isinstance(member, LayerMember) and member.name in LAYERS for member in inside)
    return layers or any(node.op.name in CALLS for graph in graphs for node in graph.walk())


class _Images:
    """A loss or an evaluation, whose `models` take images in the other order."""

    def __init__(self, graph: Graph, models: Collection[str]) -> None:
        self.graph = graph
        self.models = models
        self.users = graph.users()
        self.nodes: list[Node] = []
        self.laid_out: dict[Value, Value] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if node.op.name == "downcast" and self._is_for_models(node.output):
                node = replace(node, attrs={**node.attrs, "channels_last": True})
                self.laid_out[node.output] = node.output
            elif self._takes(node):
                node = replace(node, inputs=tuple(self._laid_out(each, node) for each in node.inputs))
            self.nodes.append(node)
        return replace(self.graph, nodes=tuple(self.nodes))

    def _is_for_models(self, value: Value) -> bool:
        return _is_image(value) and all(map(self._takes, self.users.get(value, ())))

    def _takes(self, node: Node) -> bool:
        """Whether it is the call of one of the models, or of a module within one."""
        return node.group is None and node.layer.partition(".")[0] in self.models

    def _laid_out(self, operand: Operand, node: Node) -> Operand:
        if not isinstance(operand, Value) or not _is_image(operand):
            return operand
        if operand not in self.laid_out:
            several = sum(map(self._takes, self.users[operand])) > 1
            made = Value(operand.type, operand.name.rpartition(".")[2] if several else "")
            self.nodes.append(Node(OPS["channels_last"], (operand,), {}, (made,), node.span))
            self.laid_out[operand] = made
        return self.laid_out[operand]


def _is_image(value: Value) -> bool:
    return value.type.is_float and len(value.type.shape) == 4
