"""Why two shapes differ: which operation made each size that does, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.ir import Node, Shape, TensorType, Value
from tdsl.compiler.ops.infer import known, same, same_shape
from tdsl.compiler.size import Size
from tdsl.dsl.diagnostics import ProgramError, Span

MISMATCHES = ("E203", "E207")
NUMBERS = {2: "two", 3: "three", 4: "four"}
CHANGES: Mapping[str, Callable[[Size], Size]] = {
    "halves {}": lambda size: size // 2,
    "doubles {}": lambda size: size * 2,
    "halves {}, rounding up": lambda size: (size + 1) // 2,
}
# What operations are called that have no name in a program.
SHOWN = {"index": "[...]", "swap_last": ".T", "expand_to": "expand"}


@dataclass(frozen=True)
class Origin:
    """The node that gave some dimensions (counted from the end) of a tensor their sizes, of those of `source`."""

    node: Node
    source: Value | None
    result: Value
    axes: tuple[int, ...]


@contextmanager
def explained(frame: Frame, values: Sequence[Semantic]) -> Iterator[None]:
    """A mismatch of these tensors is told with what made their sizes differ."""
    try:
        yield
    except ProgramError as error:
        tensors = [v for v in values if isinstance(v, Value)]
        told = error.diagnostic
        if told.code in MISMATCHES:
            told = replace(told, notes=(*told.notes, *notes(frame, tensors)), help=cure(tensors) or told.help)
        raise ProgramError(told) from None


def notes(frame: Frame, values: Sequence[Value], product: bool = False) -> tuple[str, ...]:
    """A note on each operation that made sizes of these tensors differ, in a `product` those that it sums over."""
    if len(values) < 2:
        return ()
    if product:
        summed = [(v, axis) for v, axis in zip(values, (-1, -2)) if len(v.type.shape) >= -axis]
        return tuple(_told(origin, frame) for v, axis in summed for origin in origins(v, [axis], frame))
    first, *others = values
    found: list[str] = []
    for other in others:
        axes = differing(first.type.shape, other.type.shape)
        for value in (first, other):
            found += [_told(origin, frame) for origin in origins(value, axes, frame)]
    return tuple(dict.fromkeys(found))


def cure(values: Sequence[Value], product: bool = False) -> str | None:
    """The help line where sizes that only the run knows differ in name alone."""
    shapes = [v.type.shape for v in values]
    if len(shapes) != 2 or (product and min(map(len, shapes)) < 2):
        return None
    left, right = shapes
    pairs = [(left[-1], right[-2])] if product else [(left[axis], right[axis]) for axis in differing(left, right)]
    if not pairs or not all(str(size).isidentifier() and known(size) is None for pair in pairs for size in pair):
        return None
    stated = dict.fromkeys("`assume {} == {}`".format(*sorted(map(str, pair))) for pair in pairs)
    return f"where they are equal, state it: {', '.join(stated)}"


def against(frame: Frame, value: Value, type: TensorType) -> tuple[str, ...]:
    """A note on each operation that made sizes of a tensor other than those of `type`."""
    axes = differing(value.type.shape, type.shape)
    return tuple(_told(origin, frame) for origin in origins(value, axes, frame))


def differing(left: Shape, right: Shape) -> list[int]:
    """The dimensions, counted from the end, in which shapes differ and do not broadcast."""
    shared = range(-min(len(left), len(right)), 0)
    pairs = {axis: (left[axis], right[axis]) for axis in shared}
    return [axis for axis, (a, b) in pairs.items() if not same(a, b) and known(a) != 1 and known(b) != 1]


def origins(value: Value, axes: Sequence[int], frame: Frame) -> list[Origin]:
    """The nodes that made these dimensions what they are, each once with all of them that it made."""
    makers = {v: node for node in frame.builder.history() for v in node.outputs}
    found: dict[Node, Origin] = {}
    for axis in axes:
        origin = _origin(value, axis, makers)
        if origin is not None:
            before = found.get(origin.node)
            found[origin.node] = origin if before is None else replace(before, axes=(*before.axes, axis))
    return list(found.values())


def _origin(value: Value, axis: int, makers: dict[Value, Node]) -> Origin | None:
    while value in makers:
        node = makers[value]
        sources = [v for v in node.values if v.type.shape]
        kept = [v for v in sources if len(v.type.shape) >= -axis and same(v.type.shape[axis], value.type.shape[axis])]
        if not kept or len(kept[0].type.shape) != len(value.type.shape):
            return Origin(node, sources[0] if sources else None, value, (axis,))
        value = kept[0]
    return None


def _told(origin: Origin, frame: Frame) -> str:
    name, span = _named(origin.node, frame)
    at = f" ({span})" if span is not None else ""
    return f"{name} {_change(origin)}{at}"


def _named(node: Node, frame: Frame) -> tuple[str, Span | None]:
    """What a node is in the source: the member that is called, where it is declared, or the operation."""
    if not node.layer:
        return f"`{SHOWN.get(node.op.name, node.op.name)}`", node.span
    path = node.layer.removeprefix(f"{frame.path}.") if frame.path else node.layer
    member = path.partition(".")[0]
    spans = {getattr(key, "path", ""): span for key, span in frame.builder.given.items()}
    return f"`{path}`", spans.get(member, node.span)


def _change(origin: Origin) -> str:
    result, source = origin.result.type, origin.source.type if origin.source is not None else None
    if source is None:
        return f"makes {result}"
    if len(source.shape) != len(result.shape) or same_shape(source.shape, result.shape):
        return f"makes {result} of {source}"
    pairs = [(source.shape[axis], result.shape[axis]) for axis in origin.axes]
    where = _dimensions(origin.axes, len(result.shape))
    if any(a.constant is None for a, _ in pairs):
        for told, change in CHANGES.items():
            if all(b == change(a) for a, b in pairs):
                return told.format(where)
    before, after = (", ".join(str(pair[i]) for pair in pairs) for i in (0, 1))
    return f"turns {where} from {before} into {after}"


def _dimensions(axes: Sequence[int], rank: int) -> str:
    if list(axes) == list(range(-len(axes), 0)):
        return "the last dimension" if len(axes) == 1 else f"the last {NUMBERS.get(len(axes), len(axes))} dimensions"
    return f"dimension{'s' if len(axes) > 1 else ''} {', '.join(str(rank + axis) for axis in axes)}"
