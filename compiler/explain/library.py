"""What a call of PyTorch costs: bytes from its tensors, and what its backward keeps, as its op's record tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tdsl.compiler.explain.kernels import Use, node_flops
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Node, Value
from tdsl.compiler.ops.cost import Call, Keeps
from tdsl.compiler.ops.op import Kind


def is_view(node: Node) -> bool:
    """Whether it moves nothing: its results have the memory of its first input.

    A `reshape` that has to copy is not told from one that need not.
    """
    return node.op.kind is Kind.VIEW or node.op.same_memory


def library_use(node: Node, measure: Measure, needed: Collection[Value]) -> Use:
    """A call that reads each of its tensors once and writes each of its results once."""
    call = measure.call(node)
    flops = _flops(node, call, measure)
    inputs = list(dict.fromkeys(node.values))
    wanted = [v for v in inputs if v in needed]
    copies = _copies(node, measure)
    moved = _reads(node, inputs, measure) + _bytes(node.outputs, measure) + 2 * copies
    if not wanted:
        return Use(Cost(moved, flops=flops))
    keeps = _keeps(node, call, inputs)
    more = node.op.keeps_more(call) if node.op.keeps_more is not None else 0
    results = [v for v in node.outputs if v.type.is_float]
    back = _bytes([*keeps, *results], measure) + more + copies + _bytes(wanted, measure)
    cost = Cost(
        forward=moved + more,
        backward=back,
        flops=flops,
        flops_backward=flops if node.op.product is None else _product_backward(node, flops, needed),
        kept=more + copies,
        copies=copies,
    )
    return Use(cost, tuple(keeps))


def _flops(node: Node, call: Call, measure: Measure) -> int:
    """Of a product, or an element at a time; of what reduces, of the larger side."""
    if node.op.product is not None:
        return node.op.product(call)
    if is_view(node) or not node.outputs:
        return 0
    if node.op.kind is not Kind.LIBRARY:
        return node_flops(node, measure)
    return int(node.op.flops * max(map(measure.elements, (*node.values[:1], node.outputs[0]))))


def _product_backward(node: Node, forward: int, needed: Collection[Value]) -> int:
    if node.op.product_backward is not None:
        return int(forward * node.op.product_backward([v in needed for v in node.values]))
    names = [arg.name for arg in node.op.signature if arg.is_operand]
    bias = node.inputs[names.index("bias")] if "bias" in names else None
    return forward * sum(v in needed for v in node.values if v is not bias)


def _keeps(node: Node, call: Call, inputs: Sequence[Value]) -> list[Value]:
    """The tensors that the backward reads again."""
    keeps = node.op.keeps if isinstance(node.op.keeps, Keeps) else node.op.keeps(call)
    return {
        Keeps.INPUTS: [*inputs],
        Keeps.OTHERS: [*inputs[1:]],
        Keeps.PLACES: [v for v in inputs if not v.type.is_float],
        Keeps.RESULT: [*node.outputs],
        Keeps.ALL: [*inputs, *node.outputs],
        Keeps.NOTHING: [],
    }[keeps]


def _reads(node: Node, inputs: Sequence[Value], measure: Measure) -> int:
    table = node.op.looks_up
    if table is None or table >= len(inputs):
        return _bytes(inputs, measure)
    found = inputs[table]
    return _bytes((v for v in inputs if v is not found), measure) + _bytes(node.outputs[:1], measure)


def _copies(node: Node, measure: Measure) -> int:
    """Bytes of the low-precision copies that a layer makes of its float32 parameters where it is called."""
    low = any(v.type.dtype == "float" and not measure.in_full(v) for v in node.values)
    if not node.layer or not low or measure.width == 4:
        return 0
    full = (v for v in dict.fromkeys(node.values) if v.type.dtype == "f32" or measure.in_full(v))
    return measure.width * sum(map(measure.elements, full))


def _bytes(values: Iterable[Value], measure: Measure) -> int:
    return sum(map(measure.bytes, dict.fromkeys(values)))
