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
    elsewhere = list(_elsewhere(unit))
    found = {module.class_name: _pairs(module, elsewhere) for module in unit.modules if module.class_name in used}
    return {name: pairs for name, pairs in found.items() if pairs}


def _pairs(module: ModuleIR, elsewhere: Iterable[str]) -> list[Pair]:
    listed = [pair for name, member in module.members.items() for pair in _in_sequence(name, member)]
    found = [*_called(module.graph), *listed]
    own = [*_read(module.graph), *_held(module)]
    calls = Counter(path for node in module.graph.walk() for path in _layers(node))
    return [pair for pair in found if not any(_apart(path, pair, own, calls, elsewhere) for path in _both(pair))]


def _both(pair: Pair) -> tuple[str, str]:
    return pair.layer, pair.norm


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


def _apart(path: str, pair: Pair, own: Iterable[str], calls: Counter[str], elsewhere: Iterable[str]) -> bool:
    """Whether a layer also does something by itself: its parameters are read or shared, or it is called again.

    Where that is from another class, it is told by the end of the path: `stem.conv.weight` is taken for the `conv` of
    every class.
    """
    here = _pattern(path)
    if any(re.match(here, other) or _is_below(path, other) for other in own):
        return True
    if pair.listed:  # the Sequential is called, the layer never
        called, ends = sum(n for other, n in calls.items() if re.match(here, other)), [path]
    else:  # the layer is called once, and no list that it is in
        within = sum(n for other, n in calls.items() if _is_below(path, other))
        called, ends = calls[path] - 1 + within, [path[: m.start()] for m in re.finditer(r"\.|$", path)]
    return called > 0 or any(re.search(rf"\.{_pattern(end)}", other) for end in ends for other in elsewhere)


def _pattern(path: str) -> str:
    """Of a path and of all below it; `*` stands for any one name."""
    return re.escape(path).replace(r"\*", "[^.]+") + r"(\.|$)"


def _is_below(path: str, other: str) -> bool:
    return path.startswith(f"{other}.")


def _elsewhere(unit: Unit) -> Iterator[str]:
    """Every path that a graph or a class has to do with."""
    runs = [run.loss for run in unit.runs.values()]
    evaluations = [g for each in unit.evaluations.values() for g in (each.compare, each.predict) if g is not None]
    for graph in (*(module.graph for module in unit.modules), *runs, *evaluations):
        yield from (param.path for param in graph.params)
        yield from (path for node in graph.walk() for path in _layers(node))
    for module in unit.modules:
        yield from _held(module)


def _layers(node: Node) -> Iterator[str]:
    """The layers and modules that a node calls."""
    yield from (n.layer for n in _inside(node) if n.layer)


def _held(module: ModuleIR) -> Iterator[str]:
    """What a class shares: parameters, and members under further names."""
    yield from (path for tie in module.ties for path in tie)
    yield from _shared(module.members.values())


def _shared(members: Iterable[Member]) -> Iterator[str]:
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
