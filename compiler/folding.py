"""Which batch norms can be folded into the convolutions before them, once a model only evaluates.

Of `norm(conv(x))`, where nothing else reads what `conv` yields, a convolution with other weights computes all:
`weight * scale` and `(bias - mean) * scale + shift`. Pairs are told by class, as paths within it: `("conv", "norm")`,
`("body.0", "body.1")`, `("blocks.*.0", "blocks.*.1")` for each of a list. `runtime/folding.py` folds them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Unit,
)
from tdsl.compiler.ir import Graph, Node, Value

LAYERS = ("Conv1d", "Conv2d", "Conv3d")
CALLS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class Pair:
    """A convolution and the norm that reads it, by their paths; `listed` where a Sequential calls both."""

    layer: str
    norm: str
    listed: bool


def foldable(unit: Unit, models: Mapping[str, ModuleMember]) -> dict[str, list[Pair]]:
    """The pairs of each class that the models are made of, in the order of the program."""
    used = {each.class_name for each in unit.within(*models.values()) if isinstance(each, ModuleMember)}
    found = {module.class_name: _pairs(module) for module in unit.modules if module.class_name in used}
    return {name: pairs for name, pairs in found.items() if pairs}


def _pairs(module: ModuleIR) -> list[Pair]:
    listed = [pair for name, member in module.members.items() for pair in _in_sequence(name, member)]
    own = [*_read(module.graph), *(path for tie in module.ties for path in tie), *_shared(module.members.values())]
    calls = Counter(path for node in module.graph.walk() for path in _layers(node))
    return [
        pair
        for pair in (*_called(module.graph), *listed)
        if not any(_apart(path, pair, own, calls) for path in (pair.layer, pair.norm))
    ]


# One after the other -------------------------------------------------------------------------------------------------


def _called(graph: Graph) -> Iterator[Pair]:
    """A norm that alone reads what a convolution yields."""
    users, makers = graph.users(), graph.producers()
    for node in graph.nodes:
        norm = _norm(node)
        maker = makers.get(_source(node, norm)) if norm is not None else None
        if norm is None or maker is None or maker.op.name not in CALLS or not maker.layer:
            continue
        made = maker.output
        if users[made] == [node] and node.values.count(made) == 1 and made not in graph.results:
            yield Pair(maker.layer, norm.layer, False)


def _norm(node: Node) -> Node | None:
    """The call of a batch norm that a node is, or begins with."""
    return next((n for n in _inside(node) if n.op.name == "batch_norm_layer" and n.layer), None)


def _source(node: Node, norm: Node) -> Value:
    """What the norm normalises, as the graph has it: a group may widen it first."""
    widened = {n.output: n.values[0] for n in _inside(node) if n.op.name == "upcast"}
    return widened.get(norm.values[0], norm.values[0])


def _inside(node: Node) -> tuple[Node, ...]:
    return node.group.body.nodes if node.group is not None else (node,)


def _in_sequence(path: str, member: Member) -> Iterator[Pair]:
    """Neighbours in a Sequential, which hands on to the norm alone."""
    if isinstance(member, SequentialMember):
        for i, (first, second) in enumerate(pairwise(member.elements)):
            if _named(first, LAYERS) and _named(second, ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")):
                yield Pair(f"{path}.{i}", f"{path}.{i + 1}", True)
    if isinstance(member, RepeatMember):
        yield from _in_sequence(f"{path}.*", member.element)
    elif isinstance(member, (SequentialMember, ListMember)):
        for i, element in enumerate(member.elements):
            yield from _in_sequence(f"{path}.{i}", element)


def _named(member: Member, names: tuple[str, ...]) -> bool:
    return isinstance(member, LayerMember) and member.name in names


# What else has to do with a layer ------------------------------------------------------------------------------------


def _apart(path: str, pair: Pair, own: Iterable[str], calls: Counter[str]) -> bool:
    """Whether a layer also does something by itself: its parameters are read or shared, or it is called again.

    Only the class that has a layer can: a program does not reach into the modules within a module.
    """
    here = re.compile(re.escape(path).replace(r"\*", "[^.]+") + r"(\.|$)")
    if any(here.match(other) or path.startswith(f"{other}.") for other in own):
        return True
    if pair.listed:  # the Sequential calls it
        return any(map(here.match, calls))
    return calls[path] > 1 or any(path.startswith(f"{other}.") for other in calls)


def _layers(node: Node) -> Iterator[str]:
    """The layers and modules that a node calls."""
    yield from (n.layer for n in _inside(node) if n.layer)


def _shared(members: Iterable[Member]) -> Iterator[str]:
    """What members are further names of."""
    for member in members:
        if isinstance(member, SharedMember):
            yield member.path
        elif isinstance(member, RepeatMember):
            yield from _shared((member.element,))
        elif isinstance(member, (SequentialMember, ListMember)):
            yield from _shared(member.elements)


def _read(graph: Graph) -> Iterator[str]:
    """The parameters that something else reads than the layer that has them."""
    paths = {p.value: p.path for p in graph.params}
    yield from (paths[v] for v in graph.results if v in paths)
    for node in graph.nodes:
        own = node.layer if not node.regions else ""
        yield from (p for v in node.values if (p := paths.get(v)) and not (own and p.startswith(f"{own}.")))
