"""Losses over classes, as PyTorch names them and written out.

Before: `%p = log_softmax(%x, dim=-1); %i = unsqueeze(%t, dim=-1); %l = gather(%p, %i, dim=-1); %n = neg(%l);
        %y = mean(%n)`.
After:  `%y = group cross_entropy(%x, %t)`, its body these operations.

Also `cross_entropy` and `nll_loss(log_softmax(...))` themselves, and `logsumexp(x) - x.gather(...)`. The classes are
the last dimension of what the kernel reads: where it was moved to the second place for PyTorch, the scores are read as
they were. Probabilities as targets, and classes in other places, are left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tdsl.compiler.ir import INTS, Attr, Graph, Node, Structure, Value
from tdsl.compiler.ops.infer import ONE, axes, axis, known, same_shape
from tdsl.compiler.ops.op import Bound
from tdsl.compiler.ops.shape import permutation
from tdsl.compiler.passes.patterns.matching import Matcher, ordered
from tdsl.compiler.passes.structure import structured_node

# From so many classes on, and where their number is not known, the gradient is written as the scores are read: that
# saves another read of them, and costs one more and a write where the loss is scaled.
MANY = 4096


@dataclass(frozen=True)
class Found:
    """A loss over classes: its operations, of which the last makes its result."""

    nodes: tuple[Node, ...]
    scores: Value
    target: Value
    reduction: str
    weight: Value | None = None
    ignore_index: int | None = None
    label_smoothing: float = 0.0
    infinite: bool = False

    def structure(self) -> Structure:
        """What the template is told."""
        classes = known(self.scores.type.shape[-1])
        many = classes is None or classes >= MANY
        options: dict[str, Attr] = {
            "reduction": self.reduction,
            "ignore_index": self.ignore_index,
            "label_smoothing": self.label_smoothing,
            "infinite": self.infinite,
            "at_once": many and self.reduction != "none",
        }
        weight = {"class_weight": self.weight} if self.weight is not None else {}
        return Structure("cross_entropy", {"scores": self.scores, "target": self.target, **weight}, options)


def cross_entropy(graph: Graph) -> Graph:
    """Replace each loss over classes by a group."""
    matcher = Matcher(graph)
    losses = [found for node in graph.nodes if (found := _found(node, matcher)) is not None and _computable(found)]
    made = {
        each.nodes[-1]: structured_node("cross_entropy", each.nodes, each.nodes[-1].outputs, each.structure(), graph)
        for each in losses
    }
    gone = {node for each in losses for node in each.nodes if _is_read_within(node, each.nodes, matcher)}
    return replace(graph, nodes=tuple(made.get(n, n) for n in graph.nodes if n not in gone))


def _is_read_within(node: Node, nodes: Sequence[Node], matcher: Matcher) -> bool:
    """Whether only `nodes` read what a node makes."""
    readers = [reader for v in node.outputs for reader in matcher.users.get(v, [])]
    return not matcher.results.intersection(node.outputs) and all(reader in nodes for reader in readers)


def _computable(found: Found) -> bool:
    """Kernels compute in float32 at most, and tell tensors by what they are to them."""
    tensors = [v for v in (found.scores, found.target, found.weight) if v is not None]
    return all(v.type.dtype != "f64" for v in tensors) and len(set(tensors)) == len(tensors)


def _found(node: Node, matcher: Matcher) -> Found | None:
    look = {"cross_entropy": _named, "nll_loss": _of_log_softmax, "gather": _written_out}.get(node.op.name)
    return look(node, matcher) if look is not None else None


# By PyTorch's names --------------------------------------------------------------------------------------------------


def _named(node: Node, matcher: Matcher) -> Found | None:
    """`cross_entropy(scores, target)`."""
    scores, views = _classes_last(node, matcher)
    return _with_arguments(node, views, scores, matcher) if scores is not None else None


def _of_log_softmax(node: Node, matcher: Matcher) -> Found | None:
    """`nll_loss(log_softmax(scores, dim=-1), target)`."""
    logarithms, views = _classes_last(node, matcher)
    maker = matcher.inner(logarithms, "log_softmax") if logarithms is not None else None
    if maker is None or not _is_along_classes(maker):
        return None
    return _with_arguments(node, (maker, *views), maker.values[0], matcher)


def _with_arguments(node: Node, before: Sequence[Node], scores: Value, matcher: Matcher) -> Found | None:
    """The loss with PyTorch's arguments, where they are numbers and the targets labels."""
    target, given = node.inputs[1:3]
    ignored, smoothing = node.attrs["ignore_index"], node.attrs.get("label_smoothing", 0.0)
    if not isinstance(target, Value) or target.type.dtype not in INTS:
        return None
    if not isinstance(ignored, int) or not isinstance(smoothing, (int, float)):
        return None
    weight = given if isinstance(given, Value) else None
    # What can be learned is refused by PyTorch: let it.
    if weight is not None and _is_learned(weight, matcher):
        return None
    reduction = str(node.attrs["reduction"])
    return Found(
        tuple(ordered(matcher.graph, (*before, node))), scores, target, reduction, weight, ignored, float(smoothing)
    )


def _is_learned(value: Value, matcher: Matcher) -> bool:
    maker = matcher.makers.get(value)
    if maker is None:
        return any(p.value is value and p.trainable for p in matcher.graph.params)
    return bool(maker.layer or maker.regions) or any(_is_learned(v, matcher) for v in maker.values)


def _classes_last(node: Node, matcher: Matcher) -> tuple[Value | None, tuple[Node, ...]]:
    """The scores as they were before the classes went to the second place, and the views that moved them there."""
    value = node.values[0]
    rank = len(value.type.shape)
    if rank <= 2:
        return value, ()
    view = matcher.maker(value, "transpose", "permute", "movedim", "swap_last")
    if view is None or permutation(_bound(view)) != (0, rank - 1, *range(1, rank - 1)):
        return None, ()
    return view.values[0], (view,)


def _bound(node: Node) -> Bound:
    return Bound(node.op, node.inputs, node.attrs, node.span)


def _is_along_classes(node: Node) -> bool:
    """Whether it is computed along the last dimension, in the dtype that it is given."""
    rank = len(node.values[0].type.shape)
    return axes(node.attrs["dim"], _bound(node)) == (rank - 1,) and node.attrs.get("dtype") is None


# Written out ---------------------------------------------------------------------------------------------------------


def _written_out(node: Node, matcher: Matcher) -> Found | None:
    """A loss whose labels are looked up by `gather`: in log-probabilities, or in scores to be less a `logsumexp`."""
    table = node.values[0]
    labels = _labels(node, matcher)
    if labels is None or axis(node.attrs["dim"], len(table.type.shape), _bound(node)) != len(table.type.shape) - 1:
        return None
    view, target = labels
    if not same_shape(target.type.shape, table.type.shape[:-1]):
        return None
    maker = matcher.inner(table, "log_softmax")
    if maker is not None and _is_along_classes(maker):
        return _reduced([maker, view, node], maker.values[0], target, False, matcher)
    return _less_logsumexp([view, node], table, target, matcher)


def _labels(node: Node, matcher: Matcher) -> tuple[Node, Value] | None:
    """The labels of a `gather` and the view that gave them a last dimension."""
    view = matcher.maker(node.values[1], "unsqueeze", "index")
    if view is None or not same_shape(view.output.type.shape, (*view.values[0].type.shape, ONE)):
        return None
    items = view.attrs.get("items", ())
    whole = ("slice", None, None, None)
    plain = isinstance(items, tuple) and all(item in ("...", whole) for item in items[:-1])
    last = view.op.name == "index" or axis(view.attrs["dim"], len(view.output.type.shape), _bound(view)) + 1 == len(
        view.output.type.shape
    )
    return (view, view.values[0]) if plain and last else None


def _less_logsumexp(nodes: list[Node], scores: Value, target: Value, matcher: Matcher) -> Found | None:
    """`logsumexp(scores, dim=-1) - scores.gather(...)`, or the other way round."""
    picked = nodes[-1].output
    squeezed = matcher.reader(picked)
    if squeezed is not None and _drops_last(squeezed):
        nodes, picked = [*nodes, squeezed], squeezed.output
    difference = matcher.reader(picked)
    if difference is None or difference.op.name != "sub" or len(difference.values) != 2:
        return None
    other = difference.values[1 - difference.values.index(picked)]
    whole = matcher.inner(other, "logsumexp")
    if whole is None or whole.values[0] is not scores or not _is_along_classes(whole):
        return None
    if not same_shape(other.type.shape, picked.type.shape):
        return None
    return _reduced([whole, *nodes, difference], scores, target, difference.values[0] is other, matcher, infinite=True)


def _reduced(
    nodes: list[Node], scores: Value, target: Value, negated: bool, matcher: Matcher, infinite: bool = False
) -> Found | None:
    """The loss with what follows it of a sign, a sum or a mean, as far as it then is a loss."""
    best: Found | None = None
    reduction = "none"
    step: Node | None = nodes[-1]
    while step is not None:
        if negated:
            best = Found(tuple(ordered(matcher.graph, nodes)), scores, target, reduction, infinite=infinite)
        step = matcher.reader(step.output)
        if step is None or not (step.op.name == "neg" or _drops_last(step) or _is_whole(step, reduction)):
            break
        negated ^= step.op.name == "neg"
        reduction = step.op.name if step.op.name in ("mean", "sum") else reduction
        nodes = [*nodes, step]
    return best


def _drops_last(node: Node) -> bool:
    """Whether it takes away the last dimension, of size 1."""
    if node.op.name != "squeeze" or not isinstance(node.attrs["dim"], int):
        return False
    shape = node.values[0].type.shape
    return axis(node.attrs["dim"], len(shape), _bound(node)) == len(shape) - 1 and known(shape[-1]) == 1


def _is_whole(node: Node, reduction: str) -> bool:
    """Whether it is the first to add up all that it is given, or to average it."""
    plain = all(node.attrs.get(name) is None for name in ("dim", "dtype")) and not node.attrs.get("keepdim")
    return node.op.name in ("mean", "sum") and reduction == "none" and plain
