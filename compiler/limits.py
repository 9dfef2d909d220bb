"""What the numbers of a field may be, as far as what a graph does with them tells: classes, or entries of a table.

`cross_entropy(model(batch.image), batch.label)` with scores [B, 10] takes labels from 0 to 9, and -100;
`Embedding(65, dim)` of `batch.tokens` takes 0 to 64. A field is followed through casts, views, cuts and calls of
modules, and no further: of `batch.label - 1` nothing is said. Where only parts of a row are used, what is said holds of
each number of the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

from tdsl.compiler.build.unit import (
    LayerMember,
    Limit,
    ListMember,
    ModuleIR,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    Unit,
)
from tdsl.compiler.ir import INTS, Attr, Graph, Node, Operand, Scalar, Shape, Value
from tdsl.compiler.ops.infer import REST
from tdsl.compiler.reach import CALLS, Scope, member_at, module_of
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import Span
from tdsl.dsl.program import DataSpec

# Ops that hand on each number of their first operand, in its place or in another.
IN_PLACE = frozenset(["identity", "detach", "contiguous", "requires_grad", "cast", "to_long"])
ELSEWHERE = frozenset(
    ["expand", "expand_as", "flatten", "movedim", "permute", "rearrange", "reshape", "reshape_as", "squeeze",
     "swap_last", "t", "transpose", "unflatten", "unsqueeze", "view", "view_as"]
)  # fmt: skip
# Integers that hold those of any field, however large: fields are not checked for what a cast would wrap around.
WIDE = ("i64", "i32")
# Of rows whose parts are used differently, with more numbers times uses than this, nothing is said.
MOST_PLACES = 1 << 18


@dataclass(frozen=True)
class Use:
    """Where numbers of `field` are indices: those at `region` (a range for each dimension of a row)."""

    field: str
    region: tuple[range, ...]
    limit: Limit
    span: Span | None


@dataclass(frozen=True)
class _Origin:
    """What of a field a value has. `dims` are the row's dimensions that are its own behind the first, where known."""

    field: str
    region: tuple[range, ...]
    dims: tuple[int, ...] | None


_Origins = Mapping[Value, _Origin]


def limits(unit: Unit, graph: Graph, data: DataSpec, members: Mapping[str, ModuleMember]) -> Mapping[str, Limit]:
    """The limits of fields by name, of those that have one. `graph` takes a batch, and calls `members`."""
    found: dict[str, list[Use]] = {}
    for use in uses(unit, graph, data, members):
        found.setdefault(use.field, []).append(use)
    shapes = {field.name: field.shape for field in data.fields}
    together = {name: _together(each, shapes[name]) for name, each in found.items()}
    return MappingProxyType({name: limit for name, limit in together.items() if limit is not None})


def uses(unit: Unit, graph: Graph, data: DataSpec, members: Mapping[str, ModuleMember]) -> Iterator[Use]:
    """Every use of a field's numbers as indices, in the order of the graph.

    Fields that are transformed are left out: their numbers are not those that are read.
    """
    transformed = {each.field for each in data.transforms if each.calls}
    fields = {f"batch.{each.name}": each for each in data.fields if each.name not in transformed}
    origins: dict[Value, _Origin] = {}
    for value in graph.inputs:
        field = fields.get(value.name)
        if field is not None and value.type.dtype in INTS:
            region = tuple(map(range, field.shape))
            origins[value] = _Origin(field.name, region, tuple(range(len(region))))
    return _Walk(unit).graph(Scope(graph, members), origins)


# Uses of a field -----------------------------------------------------------------------------------------------------


class _Walk:
    """The uses in graphs; those in a module are found once for each way that fields go into it."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.known: dict[tuple[str, tuple[_Origin | None, ...]], list[Use]] = {}

    def graph(self, scope: Scope, given: _Origins) -> Iterator[Use]:
        """The uses in a graph, and in what it calls. What no result depends on is never computed."""
        origins = dict(given)
        live = _live(scope.graph)
        for node in scope.graph.nodes:
            if node in live and any(value in origins for value in node.values):
                yield from self.node(node, scope, origins)

    def node(self, node: Node, scope: Scope, origins: dict[Value, _Origin]) -> Iterator[Use]:
        name = node.op.name
        if name in CALLS:
            yield from self.called(member_at(scope.members, node.layer), node, scope, origins)
        elif name == "no_grad":
            (region,) = node.regions
            yield from self.graph(Scope(region, scope.members), _handed(node.inputs, region, origins))
        elif name in INDICES:
            at, limit_of = INDICES[name]
            operand = node.inputs[at]
            origin = origins.get(operand) if isinstance(operand, Value) else None
            limit = limit_of(node, scope.graph) if origin is not None else None
            if origin is not None and limit is not None:
                yield Use(origin.field, origin.region, limit, node.span)
        elif node.values and node.values[0] in origins and len(node.outputs) == 1:
            followed = _followed(node, origins[node.values[0]])
            if followed is not None:
                origins[node.output] = followed

    def called(self, member: object, node: Node, scope: Scope, origins: _Origins) -> Iterator[Use]:
        """The uses in a module, in the first of several, or in a layer that looks its input up."""
        while isinstance(member, (SequentialMember, ListMember, RepeatMember)):
            member = member.element if isinstance(member, RepeatMember) else next(iter(member.elements), None)
        if isinstance(member, ModuleMember):
            module = module_of(self.unit, member)
            if module is not None:
                yield from self.module(module, _handed(node.inputs, module.graph, origins))
        elif isinstance(member, LayerMember) and member.name in ("Embedding", "EmbeddingBag") and member.args:
            rows = _number(member.args[0][1], scope.graph)
            origin = origins.get(node.values[0]) if node.values else None
            if origin is not None and rows is not None:
                yield Use(origin.field, origin.region, Limit(rows, None, looked_up=True), node.span)

    def module(self, module: ModuleIR, given: _Origins) -> list[Use]:
        key = module.class_name, tuple(map(given.get, module.graph.inputs))
        if key not in self.known:
            self.known[key] = list(self.graph(Scope(module.graph, module.members), given))
        return self.known[key]


def _handed(given: Sequence[Operand], graph: Graph, origins: _Origins) -> dict[Value, _Origin]:
    """What a graph is called with, under the names that it has for it."""
    pairs = zip(given, graph.inputs, strict=False)
    return {inner: origins[outer] for outer, inner in pairs if isinstance(outer, Value) and outer in origins}


def _live(graph: Graph) -> set[Node]:
    """The nodes that a result depends on."""
    wanted, live = set(graph.results), set[Node]()
    for node in reversed(graph.nodes):
        if node.op.effects or not wanted.isdisjoint(node.outputs):
            live.add(node)
            wanted.update(node.values)
    return live


def _followed(node: Node, origin: _Origin) -> _Origin | None:
    """The origin of what hands numbers on; None where they are others, or can't be told apart."""
    name = node.op.name
    if name in IN_PLACE:
        same = node.output.type.dtype == node.values[0].type.dtype
        return origin if same or node.output.type.dtype in WIDE else None
    if name in ELSEWHERE:
        return replace(origin, dims=None)
    return _cut(node.attrs["items"], origin) if name == "index" and len(node.inputs) == 1 else None


def _cut(items: Attr, origin: _Origin) -> _Origin | None:
    """`tokens[:, 1:]`: the piece of every row. None where rows are left out, or the piece is not known."""
    if not isinstance(items, tuple) or origin.dims is None or None in items:
        return None
    region, dims = list(origin.region), list[int]()
    for at, item in enumerate(_spelled(items, len(origin.dims) + 1)):
        if at == 0:
            if item != _ALL:
                return None
            continue
        dim = origin.dims[at - 1]
        bounds = _bounds(item)
        if bounds is None:
            return None
        region[dim] = region[dim][bounds]
        dims += [dim] if isinstance(item, tuple) else []
    return _Origin(origin.field, tuple(region), tuple(dims))


_ALL = ("slice", None, None, None)


def _spelled(items: tuple[Attr, ...], rank: int) -> list[Attr]:
    """The items of an index, one for each dimension."""
    at = items.index("...") if "..." in items else len(items)
    before, after = items[:at], items[at + 1 :]
    return [*before, *[_ALL] * (rank - len(before) - len(after)), *after]


def _bounds(item: Attr) -> slice | None:
    """An item as what cuts a range."""
    if isinstance(item, tuple):
        bounds = [None if bound is None else _constant(bound) for bound in item[1:]]
        known = item[0] == "slice" and all(a is None or b is not None for a, b in zip(item[1:], bounds, strict=True))
        return slice(*bounds) if known else None
    number = _constant(item)
    return None if number is None else slice(number, number + 1 or None)


# What takes indices --------------------------------------------------------------------------------------------------


def _classes(node: Node, graph: Graph) -> Limit | None:
    """`cross_entropy(scores, label)`: a label is a class, or left out."""
    shape, ignored = node.values[0].type.shape, _number(node.attrs["ignore_index"], graph)
    count = _size(shape, min(1, len(shape) - 1), graph)
    return None if count is None or ignored is None else Limit(count, ignored, looked_up=False)


def _margins(node: Node, graph: Graph) -> Limit | None:
    count = _size(node.values[0].type.shape, -1, graph)
    return None if count is None else Limit(count, None, looked_up=False)


def _one_hot(node: Node, graph: Graph) -> Limit | None:
    count = _number(node.attrs["num_classes"], graph)
    return None if count is None else Limit(count, None, looked_up=False)


def _looked_up(node: Node, graph: Graph) -> Limit | None:
    """`embedding(tokens, weight)`: a row of a table."""
    rows = _size(node.values[1].type.shape, 0, graph)
    return None if rows is None else Limit(rows, None, looked_up=True)


def _picked(node: Node, graph: Graph) -> Limit | None:
    """`gather(x, dim, index)`, `index_select(x, dim, index)`: a place of a dimension."""
    shape, dim = node.values[0].type.shape, _number(node.attrs["dim"], graph)
    count = _size(shape, dim, graph) if dim is not None and -len(shape) <= dim < len(shape) else None
    return None if count is None else Limit(count, None, looked_up=True)


# By op: the operand that has indices, and what they may be.
INDICES: Mapping[str, tuple[int, Callable[[Node, Graph], Limit | None]]] = {
    "cross_entropy": (1, _classes),
    "nll_loss": (1, _classes),
    "multi_margin_loss": (1, _margins),
    "one_hot": (0, _one_hot),
    "embedding": (0, _looked_up),
    "embedding_bag": (0, _looked_up),
    "gather": (1, _picked),
    "index_select": (1, _picked),
}


def _size(shape: Shape, dim: int, graph: Graph) -> int | None:
    """The size of a dimension, where its number tells which that is."""
    return None if REST in shape else _number(shape[dim], graph)


def _number(attr: Attr, graph: Graph) -> int | None:
    """A number that the program has written, or made a module with."""
    found = attr.value if isinstance(attr, Scalar) and not attr.text else attr
    return _constant(found.substitute(graph.known) if isinstance(found, Size) else found)


def _constant(attr: Attr) -> int | None:
    if isinstance(attr, Size):
        return attr.constant
    return attr if isinstance(attr, int) and not isinstance(attr, bool) else None


# All uses of a field together ----------------------------------------------------------------------------------------


def _together(found: Sequence[Use], shape: tuple[int, ...]) -> Limit | None:
    """What every number of a row satisfies, whichever of the uses it has. None where that is nothing in particular."""
    places = _places(found, shape)
    if math.prod(map(len, places)) * len(found) > MOST_PLACES:
        return None
    groups = {
        tuple(i for i, use in enumerate(found) if all(map(range.__contains__, use.region, place)))
        for place in product(*places)
    }
    if not groups or () in groups:
        return None
    allowed = [_allowed([found[i].limit for i in group]) for group in groups]
    count = max(each for each, _ in allowed)
    ignored = {index for _, indices in allowed for index in indices}
    beyond = {index for index in ignored if not 0 <= index < count}
    if len(beyond) > 1:
        return None
    return Limit(count, next(iter(beyond or sorted(ignored)), None), all(use.limit.looked_up for use in found))


def _places(found: Sequence[Use], shape: tuple[int, ...]) -> tuple[range, ...]:
    """The numbers of a row that differ in their uses: one for all where each use has the whole row."""
    whole = tuple(map(range, shape))
    return tuple(each[:1] for each in whole) if all(use.region == whole for use in found) else whole


def _allowed(found: Sequence[Limit]) -> tuple[int, set[int]]:
    """What a number may be that all of `found` hold of: how many from 0 on, and what is ignored."""
    ignored = {each.ignored for each in found if each.ignored is not None}
    shared = {index for index in ignored if all(index == e.ignored or 0 <= index < e.count for e in found)}
    return min(each.count for each in found), shared
