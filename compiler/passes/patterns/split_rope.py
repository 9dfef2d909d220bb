"""Recognise a joint projection that is split into heads, some of which are turned by rotary positions.

Before: `%q, %k, %v = chunk(%x, chunks=3, dim=-1)`, each split into heads and transposed, then `rope` of q and of k.
After:  `%q, %k, %v = group split_rope(%x, {self.heads})`: v is handed on as it lies, and the backward writes one
        gradient of the projection where there were three to be joined.

Sizes are compared as they are written, not by what they are known to be: a module may be made with several arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tdsl.compiler.ir import Attr, Graph, Node, Structure, Value
from tdsl.compiler.ops.infer import ONE
from tdsl.compiler.ops.numbers import argument
from tdsl.compiler.ops.op import OPS, bind_plain
from tdsl.compiler.ops.shape import whole
from tdsl.compiler.ops.strided import ZERO, Strided, strided
from tdsl.compiler.passes.structure import reading, structured_node
from tdsl.compiler.passes.tidy import prune
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import Span

# What the numbers of heads are called, of parts that have different ones.
COUNTS = ("heads", "groups", "others")


def split_rope(graph: Graph) -> Graph:
    """Replace the heads of each projection of which some are turned by one group."""
    while (found := _once(graph)) is not None:
        graph = prune(found)
    return graph


def _once(graph: Graph) -> Graph | None:
    """The graph with one projection's heads replaced; None where there is none."""
    ropes = {node.values[0]: node for node in graph.nodes if node.op.name == "rope"}
    lie = strided(graph)
    values = [(v, node) for node in graph.nodes for v in node.outputs] if ropes else []
    for source in dict.fromkeys(lie(value).source for value in ropes):
        parts = [_part(lie(value), source, value, ropes.get(value), node.span) for value, node in values]
        split = _split([part for part in parts if part is not None], source)
        found = None if split is None else _replaced(graph, source, split)
        if found is not None:
            return found
    return None


# What there is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Heads of a projection [B, T, width], as [B, heads, T, dim]: the first begins at `start`, each next `step` on.

    `rope` turns them; without one they are handed on as they are.
    """

    value: Value
    start: Size
    step: Size
    heads: Size
    dim: Size
    span: Span | None
    rope: Node | None = None

    @property
    def result(self) -> Value:
        return self.value if self.rope is None else self.rope.output

    @property
    def name(self) -> str:
        """What its result is called, or what was turned."""
        return self.result.name or self.value.name


@dataclass(frozen=True)
class Split:
    """All heads of a projection: each part after the one before, or, `mixed`, a head of each part in turn."""

    parts: tuple[Part, ...]
    mixed: bool

    @property
    def counts(self) -> dict[Size, str]:
        """The different numbers of heads, with their names: the source's own where it has one of these."""
        sizes = dict.fromkeys(part.heads for part in self.parts)
        named = {size: str(size) for size in sizes if str(size) in COUNTS}
        free = iter([name for name in COUNTS if name not in named.values()])
        return {size: named.get(size) or next(free) for size in sizes}

    @property
    def rope(self) -> Node:
        """One of the ropes, which are all alike."""
        return next(part.rope for part in self.parts if part.rope is not None)


def _part(found: Strided, source: Value, value: Value, rope: Node | None, span: Span | None) -> Part | None:
    """A value as heads of the source."""
    if found.source is not source or [dim.axis for dim in found.dims] != [0, 2, 1, 2] or len(found.start) != 3:
        return None
    batch, heads, time, dim = found.dims
    rows = all(d.size == source.type.shape[d.axis] and d.step == ONE for d in (batch, time))
    if not rows or dim.step != ONE or found.start[:2] != (ZERO, ZERO):
        return None
    return Part(value, whole(found.start[2]), heads.step, whole(heads.size), dim.size, span, rope)


def _split(parts: Sequence[Part], source: Value) -> Split | None:
    """How the heads fall into parts, of which some are turned, all by the same angles; None where they do not."""
    turned = [part for part in parts if part.rope is not None]
    angles = [tuple(part.rope.attrs.items()) for part in turned if part.rope is not None]
    if len(set(angles)) != 1:
        return None
    # Heads that are turned are that part, however else they are read.
    candidates = [*turned, *(part for part in parts if part.rope is None)]
    width = source.type.shape[-1]
    split = _one_after_another(candidates, width) or _in_turn(candidates, width)
    if split is None or len(split.parts) < 2 or len({part.heads for part in split.parts}) > len(COUNTS):
        return None
    return split if set(turned) <= set(split.parts) else None


def _one_after_another(candidates: Sequence[Part], width: Size) -> Split | None:
    found: list[Part] = []
    at, dim = ZERO, candidates[0].dim
    while at != width:
        part = next((p for p in candidates if p.start == at and p.step == p.dim == dim and p not in found), None)
        if part is None:
            return None
        found.append(part)
        at = whole(at + whole(part.heads * dim))
    return Split(tuple(found), mixed=False)


def _in_turn(candidates: Sequence[Part], width: Size) -> Split | None:
    first = candidates[0]
    number = first.step.exact(first.dim)
    if number is None or number.constant is None or whole(first.heads * first.step) != width:
        return None
    alike = [p for p in candidates if (p.step, p.dim, p.heads) == (first.step, first.dim, first.heads)]
    found = [next((p for p in alike if p.start == first.dim * i), None) for i in range(number.constant)]
    parts = tuple(part for part in found if part is not None)
    return Split(parts, mixed=True) if len(parts) == len(found) else None


# What it becomes -----------------------------------------------------------------------------------------------------


def _replaced(graph: Graph, source: Value, split: Split) -> Graph | None:
    """The graph with a group in the place of the ropes and of the parts beside them.

    None where a number of it is told neither by a constant nor by the module.
    """
    numbers = {name: argument(count) for count, name in split.counts.items()}
    if len(split.counts) > 1:
        numbers["head_dim"] = argument(split.parts[0].dim)
    numbers |= {name: argument(split.rope.attrs[name]) for name in ("base", "offset")}
    if None in numbers.values():
        return None
    reader = next(i for i, node in enumerate(graph.nodes) if source in node.values)
    body = _Body(source, split, graph.nodes[reader].span)
    parts = tuple((split.counts[part.heads], part.rope is not None) for part in split.parts)
    structure = Structure("split_rope", {_role(split): source}, {**numbers, "parts": parts, "mixed": split.mixed})
    group = structured_node("split_rope", body.nodes, body.outputs, structure, graph)
    nodes = (*graph.nodes[:reader], group, *graph.nodes[reader:])
    return reading(replace(graph, nodes=nodes), dict(zip((part.result for part in split.parts), body.outputs)))


def _role(split: Split) -> str:
    """What the projection is called where the source has no name for it: `qkv`."""
    names = [part.name for part in split.parts]
    return "".join(names) if all(len(name) == 1 for name in names) else "x"


class _Body:
    """The group's own operations: heads apart, parts apart, each transposed and, where it is to be, turned."""

    def __init__(self, source: Value, split: Split, span: Span | None) -> None:
        self.nodes: list[Node] = []
        heads, number, mixed = split.parts[0].heads, Size.of(len(split.parts)), split.mixed
        if len(split.counts) == 1:
            sizes = (heads, number, -1) if mixed else (number, heads, -1)
            (apart,) = self._do("unflatten", source, span, dim=-1, sizes=sizes)
            parts = self._do("unbind", apart, span, dim=3 if mixed else 2)
        else:
            (apart,) = self._do("unflatten", source, span, dim=-1, sizes=(-1, split.parts[0].dim))
            counts = tuple(part.heads for part in split.parts)
            parts = self._do("split", apart, span, split_size_or_sections=counts, dim=2)
        named = [Value(value.type, part.name) for value, part in zip(parts, split.parts)]
        self.nodes[-1] = replace(self.nodes[-1], outputs=tuple(named))
        self.outputs = tuple(map(self._handed_on, split.parts, named))

    def _handed_on(self, part: Part, value: Value) -> Value:
        result = Value(part.result.type, part.name)
        if part.rope is None:
            return self._do("transpose", value, part.span, (result,), dim0=1, dim1=2)[0]
        (turned,) = self._do("transpose", value, part.span, dim0=1, dim1=2)
        return self._do("rope", turned, part.rope.span, (result,), **part.rope.attrs)[0]

    def _do(
        self, op: str, value: Value, span: Span | None, outputs: tuple[Value, ...] = (), **attrs: Attr
    ) -> tuple[Value, ...]:
        bound = bind_plain(OPS[op], (value,), attrs, span)
        outputs = outputs or tuple(map(Value, OPS[op].infer(bound)))
        self.nodes.append(Node(bound.op, bound.inputs, bound.attrs, outputs, span))
        return outputs
