"""What becomes of the rows of a batch on their way to the loss: which values have a row for each, made from it alone.

A batch computed in parts has the gradient of the whole where the loss is a mean over rows, or over what is counted of
them. `accumulation` follows the values of a run through its modules, regions and lists; what it does not know mixes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.unit import (
    LayerMember,
    ListMember,
    ModuleMember,
    RepeatMember,
    SequentialMember,
    SharedMember,
    Unit,
)
from tdsl.compiler.ir import Graph, Node, Scalar, Value
from tdsl.compiler.ops.infer import REST
from tdsl.compiler.ops.op import OPS, Kind
from tdsl.compiler.reach import CALLS, Members, Scope, member_at, module_of
from tdsl.compiler.row_rules import RULES, SAME, axes_of, row_of
from tdsl.compiler.row_states import (
    FREE,
    ROW_COUNT,
    Count,
    Free,
    Labels,
    Mean,
    Mixed,
    Place,
    Ratio,
    Rows,
    State,
    Sum,
)
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span

# New tensors whose rows are alike, or drawn: each part makes its own.
ALIKE = frozenset(["zeros", "ones", "full", "rand", "randn", "randint", "expand"])
CLASS_LOSSES = ("cross_entropy", "nll_loss")
# Losses whose mean is divided by the sum of `weight`.
WEIGHTED = frozenset(["mse_loss", "l1_loss", "huber_loss"])
LOSSES = frozenset(
    ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy", "poisson_nll_loss",
     "binary_cross_entropy_with_logits", "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss",
     "cosine_embedding_loss", "triplet_margin_loss", "multi_margin_loss", "ctc_loss", *CLASS_LOSSES]
)  # fmt: skip
# Layers whose first dimension is that of places, and with `batch_first` that of rows.
OF_SEQUENCES = frozenset(["lstm", "gru", "rnn", "multihead_attention"])
# Layers that look at one row at a time, whatever their arguments, where rows are the first dimension.
OWN_ROWS = frozenset(
    ["linear", "bilinear", "embedding", "layer_norm", "rms_norm", "group_norm", "batch_norm_layer", "prelu",
     "instance_norm_layer", "local_response_norm", "pixel_shuffle", "pixel_unshuffle", "interpolate", "identity",
     *(f"{name}{n}d" for n in (1, 2, 3) for name in (
         "conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "dropout"))]
)  # fmt: skip


def loss_state(unit: Unit, models: Members, loss: Graph) -> State:
    """What a run's loss is to the rows of its batch."""
    flow = _Flow(unit)
    return flow.graph(Scope(loss, models), [Rows(0)] * len(loss.inputs), top=True)[0]


def rows_as_time(unit: Unit, models: Members, loss: Graph) -> tuple[Node, ...]:
    """The recurrent layers and attentions of sequences that take the rows of the batch for the places of one."""
    flow = _Flow(unit)
    flow.graph(Scope(loss, models), [Rows(0)] * len(loss.inputs), top=True)
    return tuple(flow.as_time)


class _Flow:
    """The states of values, those of a module's once for each set of its inputs'."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.as_time: list[Node] = []
        self.known: dict[tuple[str, tuple[State, ...]], list[State]] = {}

    def graph(self, scope: Scope, given: Sequence[State], top: bool = False) -> list[State]:
        """The states of a graph's outputs; `top` where its values are those of the loss itself."""
        states: dict[Value, State] = {each.value: FREE for each in scope.graph.params}
        states |= dict(zip(scope.graph.inputs, given, strict=True))
        symbols = frozenset(
            symbol
            for value, state in states.items()
            if isinstance(state, Rows) and state.dim < len(value.type.shape)
            for symbol in value.type.shape[state.dim].symbols()
        )
        for node in scope.graph.nodes:
            states |= zip(node.outputs, self.node(node, scope, states, symbols, top), strict=True)
        return [states[each] for each in scope.graph.outputs]

    def node(
        self, node: Node, scope: Scope, states: Mapping[Value, State], symbols: frozenset[Symbol], top: bool
    ) -> list[State]:
        given = [states.get(each, FREE) if isinstance(each, Value) else FREE for each in node.inputs]
        mixed = next((each for each in given if isinstance(each, Mixed)), None)
        if node.op.name in OF_SEQUENCES and _is_batch_first(node, given):
            self.as_time.append(node)
        if node.op.name == "div" and isinstance(given[0], Sum):
            return [self.quotient(node, given, scope, symbols, top)]
        if mixed is not None:
            return [mixed] * len(node.outputs)
        if node.regions:
            return self.regions(node, scope, given, top)
        if node.op.name in CALLS:
            return self.called(_member(scope, node.layer), node, node.values, given)
        if node.op.name in LOSSES:
            return [_loss(node, given, top)]
        found = _applied(node, given, symbols)
        return found if found else [Mixed(node.span)] * len(node.outputs)

    def regions(self, node: Node, scope: Scope, given: Sequence[State], top: bool) -> list[State]:
        inner = [each for each, value in zip(given, node.inputs, strict=True) if isinstance(value, Value)]
        found = [self.graph(Scope(region, scope.members), inner, top=False) for region in node.regions]
        return [_either(each, node.span) for each in zip(*found, strict=True)]

    def quotient(
        self, node: Node, given: Sequence[State], scope: Scope, symbols: frozenset[Symbol], top: bool
    ) -> State:
        """A sum over rows, divided by their number or by what the batch alone tells of them."""
        divisor = node.inputs[1]
        if isinstance(divisor, Scalar):
            if not _mentions(divisor, symbols):
                return given[0]
            return Mean(frozenset([ROW_COUNT])) if _is_multiple(divisor.value, symbols) else Mixed(node.span)
        if isinstance(given[1], Free):
            return given[0]
        if top and slice_of(scope.graph, [divisor]) is not None:
            return Mean(frozenset([Ratio(divisor, isinstance(given[1], Sum), node.span)]))
        return given[1] if isinstance(given[1], Mixed) else Mixed(node.span)

    # Calls ------------------------------------------------------------------------------------------------------------

    def called(self, member: object, node: Node, values: Sequence[Value], given: Sequence[State]) -> list[State]:
        """The states of what a submodule returns."""
        count = len(node.outputs)
        if all(isinstance(each, Free) for each in given):
            return [FREE] * count
        if isinstance(member, ModuleMember):
            return self.module(member, node, [value.type.shape for value in values], given)
        if isinstance(member, LayerMember):
            return [_layer(member, given, node.span)] * count
        elements: Sequence[object] | None = None
        if isinstance(member, RepeatMember):
            # A state comes back as it is after the second of equal elements.
            elements = (member.element, member.element)
        elif isinstance(member, (SequentialMember, ListMember)):
            elements = member.elements
        if elements is None or count != 1 or len(given) != 1:
            return [Mixed(node.span)] * count
        for element in elements:
            given = self.called(element, node, values, given)
            if isinstance(given[0], Mixed):
                break
        return list(given)

    def module(
        self, member: ModuleMember, node: Node, shapes: Sequence[tuple[Size, ...]], given: Sequence[State]
    ) -> list[State]:
        module = module_of(self.unit, member)
        mixed: list[State] = [Mixed(node.span)] * len(node.outputs)
        if module is None:
            return mixed
        if isinstance(module.source, ast.ExternModule):
            own = all(isinstance(each, Free) or each == Rows(0) for each in given)
            return [Rows(0)] * len(node.outputs) if own else mixed
        # A module with a mistake in its body returns nothing that could be followed.
        if len(module.graph.outputs) != len(node.outputs):
            return mixed
        inner: list[State] = []
        lead = 0
        for formal, shape, state in zip(module.graph.inputs, shapes, given):
            extra = len(shape) - len(formal.type.shape) if REST in formal.type.shape else 0
            if not isinstance(state, (Free, Rows)) or (isinstance(state, Rows) and not _is_clear(state, formal, extra)):
                return mixed
            lead = max(lead, extra)
            inner.append(Rows(state.dim - extra if state.dim else 0) if isinstance(state, Rows) else state)
        key = module.class_name, tuple(inner)
        if key not in self.known:
            self.known[key] = self.graph(Scope(module.graph, module.members), inner)
        found = self.known[key]
        return [
            Rows(each.dim + lead) if isinstance(each, Rows) and each.dim and REST in value.type.shape else each
            for each, value in zip(found, module.graph.outputs, strict=True)
        ]


def _member(scope: Scope, path: str) -> object:
    found = member_at(scope.members, path)
    return _member(scope, found.path) if isinstance(found, SharedMember) else found


def _is_clear(state: Rows, formal: Value, extra: int) -> bool:
    """Whether one dimension of a module's input is that of rows, where `...` stands for `extra` more than one."""
    shape = formal.type.shape
    return REST not in shape or state.dim == 0 or (shape[0] == REST and state.dim > extra)


# Nodes ----------------------------------------------------------------------------------------------------------------


def _applied(node: Node, given: Sequence[State], symbols: frozenset[Symbol]) -> list[State]:
    """What an op that is no call and no loss makes; nothing where it mixes."""
    sized = _is_sized(node, symbols)
    place = Place(node, tuple(given), symbols)
    if all(isinstance(each, Free) for each in given):
        if not sized:
            return [FREE] * len(node.outputs)
        row = row_of(node.outputs[0].type, symbols) if node.op.name in ALIKE else None
        return [Rows(row)] if row is not None else []
    if sized and node.op.kind is not Kind.VIEW and node.op.name not in ("expand", "interpolate"):
        return []
    if any(isinstance(each, (Mean, Sum)) for each in given):
        state = _linear(node, given)
        return [state] * len(node.outputs) if state is not None else []
    if node.op.name in ("mean", "sum") and (averaged := _reduced(place)) is not None:
        return [averaged]
    rule = RULES.get(node.op.name) or RULES.get(node.op.kind.value)
    rows = rule(place) if rule is not None else None
    if rows is None:
        return []
    found = [rows] * len(node.outputs) if isinstance(rows, int) else [*rows]
    if any(row_of(value.type, symbols) != row for value, row in zip(node.outputs, found, strict=True)):
        return []
    return [Rows(each) for each in found]


def _is_batch_first(node: Node, given: Sequence[State]) -> bool:
    """Whether rows are the first of the three dimensions of a layer that is not told so."""
    return not node.attrs["batch_first"] and given[0] == Rows(0) and len(node.values[0].type.shape) == 3


def _is_sized(node: Node, symbols: frozenset[Symbol]) -> bool:
    """Whether the number of rows is among what an op is given."""
    return any(_mentions(each, symbols) for each in (*node.inputs, *node.attrs.values()))


def _mentions(value: object, symbols: frozenset[Symbol]) -> bool:
    if isinstance(value, Scalar):
        # What is computed of sizes with fractions is text alone.
        return _mentions(value.value, symbols) or (value.value is None and ".shape[" in value.text)
    if isinstance(value, tuple):
        return any(_mentions(each, symbols) for each in value)
    return isinstance(value, Size) and not symbols.isdisjoint(value.symbols())


def _is_multiple(value: object, symbols: frozenset[Symbol]) -> bool:
    """Whether a number is one of rows, times one that does not depend on them."""
    if not isinstance(value, Size) or len(value.terms) != 1:
        return False
    powers = [power for atom, power in value.terms[0][0] if atom in symbols]
    return powers == [1] and value.symbols() & symbols <= {atom for atom, _ in value.terms[0][0]}


def _reduced(place: Place) -> State | None:
    """A mean or a sum over rows and maybe more."""
    (state, *_) = place.given
    if not isinstance(state, Rows) or state.dim not in axes_of(place, "dim"):
        return None
    return Mean(frozenset([ROW_COUNT])) if place.node.op.name == "mean" else Sum()


def _linear(node: Node, given: Sequence[State]) -> State | None:
    """What is made of means and sums over rows by ops that the mean of their parts goes through."""
    name = node.op.name
    kept = [each for each in given if not isinstance(each, Free)]
    if any(isinstance(each, Rows) for each in kept):
        return None
    if name in ("add", "sub"):
        return _added(given)
    alone = len(kept) == 1
    if name == "mul" and alone:
        return kept[0]
    first = alone and kept[0] == given[0]
    passes = name in ("div", "neg", "mean", "sum", "squeeze", "unsqueeze", "reshape", "view", "select") or name in SAME
    return kept[0] if first and passes else None


def _added(given: Sequence[State]) -> State | None:
    if all(isinstance(each, Sum) for each in given):
        return Sum()
    counts: set[Count] = set()
    for each in given:
        if not isinstance(each, (Mean, Free)):
            return None
        counts |= each.counts if isinstance(each, Mean) else set()
    constant = any(isinstance(each, Free) for each in given)
    # A constant is its own mean only where the shares of the parts make up 1.
    whole = all(each.whole for each in counts if isinstance(each, Ratio))
    return Mean(frozenset(counts)) if whole or not constant else None


def _loss(node: Node, given: Sequence[State], top: bool) -> State:
    name, reduction = node.op.name, node.attrs["reduction"]
    rows = 1 if name == "ctc_loss" else 0
    dims = {each.dim for each in given[:1] if isinstance(each, Rows)} | {
        each.dim for each in given[1:] if isinstance(each, Rows)
    }
    weight = next((i for i, arg in enumerate(_operands(node)) if arg == "weight"), None)
    weighted = weight is not None and weight < len(given) and isinstance(node.inputs[weight], Value)
    if not dims:
        return FREE
    wanted = {rows, 0} if rows else {0}
    if not all(isinstance(each, (Free, Rows)) for each in given) or not dims <= wanted or "input_lengths" in node.attrs:
        return Mixed(node.span)
    if reduction in ("none", "sum"):
        return Rows(0) if reduction == "none" else Sum()
    if name in CLASS_LOSSES and not node.values[1].type.is_float:
        constant = not weighted or isinstance(given[2], Free)
        if not top or not constant:
            return Mixed(node.span)
        ignored = node.attrs["ignore_index"]
        return Mean(frozenset([Labels(node.values[1], node.values[2] if weighted else None, ignored, node.span)]))
    if name in WEIGHTED and weighted:
        return Mixed(node.span)
    return Mean(frozenset([ROW_COUNT]))


def _operands(node: Node) -> list[str]:
    return [arg.name for arg in node.op.signature if arg.is_operand]


def _layer(member: LayerMember, given: Sequence[State], span: Span | None) -> State:
    """A layer that is called by its list."""
    record = LAYERS.get(member.name)
    op = OPS.get(record.op) if record is not None else None
    if record is None or op is None or given[0] != Rows(0):
        return Mixed(span)
    named = [arg.name for arg in record.signature]
    args = {name or named[i]: value for i, (name, value) in enumerate(member.args)}
    at = args.get("dim", args.get("start_dim", -1 if "dim" in named else 1))
    whole = op.kind in (Kind.POINTWISE, Kind.RANDOM, Kind.ROW) or op.name in ("flatten", "unflatten", "glu")
    return Rows(0) if op.name in OWN_ROWS or (whole and isinstance(at, int) and at not in (0, -2)) else Mixed(span)


def _either(states: Sequence[State], span: Span | None) -> State:
    """What the branches have in common."""
    mixed = next((each for each in states if isinstance(each, Mixed)), None)
    kept = {each for each in states if not isinstance(each, Free)}
    return mixed or (Mixed(span) if len(kept) > 1 else next(iter(kept), FREE))


# What of the loss is made from the batch alone -----------------------------------------------------------------------


def slice_of(graph: Graph, wanted: Sequence[Value]) -> tuple[Node, ...] | None:
    """The nodes that values of a loss need, in order; None where a model or chance is among them."""
    live = set(wanted)
    found: list[Node] = []
    for node in reversed(graph.nodes):
        if live.isdisjoint(node.outputs):
            continue
        if node.op.name in CALLS or node.regions or node.op.kind is Kind.RANDOM or node.op.effects or node.layer:
            return None
        found.append(node)
        live |= set(node.values)
    return None if any(each.value in live for each in graph.params) else tuple(reversed(found))
