"""How a batch of a run can be computed in parts: what of it counts, as a graph of its own."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl.compiler.batch_rows import loss_state, slice_of
from tdsl.compiler.build.unit import Accumulation, RunIR, Unit
from tdsl.compiler.ir import Attr, Graph, Node, Operand, Scalar, Value
from tdsl.compiler.ops.op import OPS, bind_plain
from tdsl.compiler.row_states import ROW_COUNT, Free, Labels, Mean, Mixed, Ratio
from tdsl.dsl.diagnostics import Span


def accumulation(unit: Unit, run: RunIR) -> Accumulation:
    """`mean(x) + cross_entropy(y, t)`: by shares of the rows, and of the labels in `t` that count."""
    state = loss_state(unit, run.models, run.loss)
    if isinstance(state, Mixed):
        return Accumulation(False, state.span)
    if isinstance(state, Free):
        return Accumulation(True)
    if not isinstance(state, Mean):
        return Accumulation(False, _returned(run.loss))
    counts = [each for each in _ordered(run.loss, state) if not isinstance(each, type(ROW_COUNT))]
    for each in counts:
        if slice_of(run.loss, _needed(each)) is None:
            return Accumulation(False, each.span)
    graph = _counted(run.loss, counts) if counts else None
    return Accumulation(True, None, ROW_COUNT in state.counts, graph)


def _returned(loss: Graph) -> Span | None:
    node = loss.producers().get(loss.outputs[0])
    return node.span if node is not None else None


def _ordered(loss: Graph, state: Mean) -> list[Labels | Ratio]:
    """What counts, in the order in which the loss makes it."""
    order = {value: i for i, value in enumerate([*loss.inputs, *(v for node in loss.nodes for v in node.outputs)])}
    found = [each for each in state.counts if isinstance(each, (Labels, Ratio))]
    return sorted(found, key=lambda each: (order[_needed(each)[0]], str(each.span)))


def _needed(count: Labels | Ratio) -> list[Value]:
    if isinstance(count, Ratio):
        return [count.divisor]
    return [count.target] + ([count.weight] if count.weight is not None else [])


def _counted(loss: Graph, counts: Sequence[Labels | Ratio]) -> Graph:
    nodes = [*(slice_of(loss, [value for each in counts for value in _needed(each)]) or ())]
    made = [each.divisor if isinstance(each, Ratio) else _labels(nodes, each) for each in counts]
    return Graph("counted", loss.inputs, (), tuple(nodes), tuple(made))


def _labels(nodes: list[Node], labels: Labels) -> Value:
    """How many labels count, or the sum of their classes' weights."""
    ignored = labels.ignored if isinstance(labels.ignored, Scalar) else Scalar(_number(labels.ignored))
    counts = _make(nodes, "ne", labels.target, ignored)
    if labels.weight is None:
        return _make(nodes, "sum", counts)
    # What is ignored may be no index.
    known = _make(nodes, "where", counts, labels.target, Scalar(0))
    weights = _make(nodes, "index_by", labels.weight, known, items=(("tensor", 0),))
    return _make(nodes, "sum", _make(nodes, "where", counts, weights, Scalar(0.0)))


def _number(value: Attr) -> int:
    assert isinstance(value, int)
    return value


def _make(nodes: list[Node], name: str, *inputs: Operand, **attrs: Attr) -> Value:
    bound = bind_plain(OPS[name], inputs, attrs)
    value = Value(OPS[name].infer(bound)[0])
    nodes.append(Node(OPS[name], inputs, bound.attrs, (value,)))
    return value
