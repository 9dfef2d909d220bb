"""What a valid graph is: each rule, broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tdsl.compiler.build.frame import GraphBuilder
from tdsl.compiler.ir import Graph, Node, Scalar, TensorType, Value
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.ops.op import OPS, Bound
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.size import Size, Symbol
from tdsl.compiler.verify import InvalidGraph, verify

B, DIM, HEADS = Size.of(Symbol("B")), Size.of(Symbol("dim", param=True)), Size.of(Symbol("heads", param=True))
KIND = TensorType("float", (B, DIM))


def graph() -> Graph:
    """`h = exp(x)`, `y = sum(h * x, dim=-1)`."""
    x = Value(KIND, "x")
    builder = GraphBuilder("forward", inputs=[x])
    h = builder.rename(builder.record("exp", (x,), {}, None)[0], "h")
    product = builder.record("mul", (h, x), {}, None)[0]
    return builder.graph(builder.record("sum", (product,), {"dim": -1}, None), {})


def changed(index: int, **changes: Any) -> Graph:
    valid = graph()
    nodes = list(valid.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(valid, nodes=tuple(nodes))


def node(op: str, *inputs: Any, **attrs: Any) -> Node:
    full = {arg.name: attrs.get(arg.name, arg.default) for arg in OPS[op].signature if not arg.is_operand}
    types = OPS[op].infer(Bound(OPS[op], inputs, full, None))
    return Node(OPS[op], inputs, full, tuple(map(Value, types)))


def alone(made: Node) -> Graph:
    return Graph("f", tuple(dict.fromkeys(made.values)), (), (made,), made.outputs)


def test_valid_graphs_are_returned() -> None:
    for valid in (graph(), fuse(graph())):
        assert verify(valid) is valid


def _swapped() -> Graph:
    valid = graph()
    first, second, third = valid.nodes
    return replace(valid, nodes=(second, first, third))


def _twice() -> Graph:
    valid = graph()
    return replace(valid, nodes=(*valid.nodes, valid.nodes[0]))


def _missing() -> Graph:
    return replace(graph(), outputs=(Value(KIND, "lost"),))


def _tracked() -> Graph:
    valid = graph()
    return replace(valid, tracked={"y": valid.outputs[0]})


def _input_twice() -> Graph:
    valid = graph()
    return replace(valid, inputs=valid.inputs * 2)


def _group_without_an_input() -> Graph:
    fused = fuse(graph())
    (only,) = fused.nodes
    return replace(fused, nodes=(replace(only, inputs=(*only.inputs, Scalar(1.0))),))


def _broken_group() -> Graph:
    fused = fuse(graph())
    (only,) = fused.nodes
    assert only.group is not None
    body = replace(only.group.body, nodes=only.group.body.nodes[1:])
    return replace(fused, nodes=(replace(only, group=replace(only.group, body=body)),))


BROKEN: list[tuple[str, Callable[[], Graph]]] = [
    (r"graph `forward`, node 0 `mul`: operand `h`: float\[B, dim\] is used before it is made", _swapped),
    (r"node 0 `exp`: `h`: float\[B, dim\] is made twice", _twice),
    (r"graph `forward`: result `lost`: float\[B, dim\] is never made", _missing),
    (r"tracked `y` is float\[B\], not a single number", _tracked),
    (r"`x` is an input twice", _input_twice),
    (r"node 1 `mul`: 1 operands where the signature has 2", lambda: changed(1, inputs=(Scalar(2.0),))),
    (r"node 0 `exp`: operand `input` is the number 2.0, not of kind tensor", lambda: changed(0, inputs=(Scalar(2.0),))),
    (r"node 1 `mul`: operand `other` is the number None", lambda: _absent()),
    (r"node 2 `sum`: attribute `keepdim` is missing", lambda: changed(2, attrs={"dim": -1, "dtype": None})),
    (r"node 0 `exp`: attribute `dim` is not in the signature", lambda: changed(0, attrs={"dim": 1})),
    (r"attribute `keepdim` is 1, not of kind bool", lambda: changed(2, attrs={"dim": -1, "keepdim": 1, "dtype": None})),
    (
        r"attribute `dim` is 0.5, not of kind sizes",
        lambda: changed(2, attrs={"dim": 0.5, "keepdim": False, "dtype": None}),
    ),
    (r"node 0 `exp`: float\[B\] where the op's rule says float\[B, dim\]", lambda: _typed(TensorType("float", (B,)))),
    (r"node 0 `exp`: int\[B, dim\] where the op's rule says", lambda: _typed(TensorType("i64", (B, DIM)))),
    (r"node 2 `sum`: `sum` has no dimension 7", lambda: changed(2, attrs={"dim": 7, "keepdim": False, "dtype": None})),
    (r"its operands are not the inputs and numbers of its group", _group_without_an_input),
    (r"is used before it is made", _broken_group),
]


def _absent() -> Graph:
    valid = graph()
    first, second, third = valid.nodes
    return replace(valid, nodes=(first, replace(second, inputs=(valid.inputs[0], Scalar(None))), third))


def _typed(kind: TensorType) -> Graph:
    """The first node makes something else than its op does."""
    x, wrong = Value(KIND, "x"), Value(kind)
    made = node("exp", x)
    return Graph("f", (x,), (), (replace(made, outputs=(wrong,)),), (wrong,))


@pytest.mark.parametrize(("rule", "broken"), BROKEN, ids=[rule for rule, _ in BROKEN])
def test_each_rule_is_told(rule: str, broken: Callable[[], Graph]) -> None:
    with pytest.raises(InvalidGraph, match=rule):
        verify(broken())


@pytest.mark.parametrize(
    "made",
    [
        node("clamp", Value(KIND), Scalar(None), Scalar(2.0)),
        node("layer_norm", Value(KIND), Scalar(None), Scalar(None), normalized_shape=(DIM,)),
        node("cat", Value(KIND), Value(KIND), Value(KIND), dim=1),
        node("reshape", Value(KIND), shape=(B * DIM,)),
        node("permute", Value(KIND), dims=(1, 0)),
        node("sum", Value(KIND), dim=(0, 1)),
        node("pow", Scalar(2.0), Value(KIND)),
        Node(OPS["call_module"], (Value(KIND),), {}, (Value(KIND), Value(TensorType("float", ()))), layer="net"),
    ],
    ids=lambda made: made.op.name,
)
def test_what_is_allowed(made: Node) -> None:
    verify(alone(made))


def test_proofs_may_use_what_is_known_of_the_sizes() -> None:
    """`dim` divides by `heads` for the arguments that the module is made with."""
    x = Value(TensorType("float", (B, DIM)), "x")
    known = {Symbol("dim", param=True): 12, Symbol("heads", param=True): 4}
    with knowing(known):
        made = node("reshape", x, shape=(B, HEADS, DIM // HEADS))
    verify(replace(alone(made), known=known))
