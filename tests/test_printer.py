"""The text of a graph."""

from __future__ import annotations

from tdsl.compiler.ir import Graph, Node, Parameter, Scalar, TensorType, Value
from tdsl.compiler.ops.op import OPS, bind_plain
from tdsl.compiler.ops.trace import Tracer
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.printer import dump
from tdsl.compiler.size import Size, Symbol

B, DIM = Size.of(Symbol("B")), Size.of(Symbol("dim", param=True))


def norm() -> Graph:
    """`h = x + x`, then its RMS norm."""
    t = Tracer()
    x, h = Value(TensorType("float", (B, DIM)), "x"), Value(TensorType("float", (B, DIM)), "h")
    weight = Value(TensorType("float", (DIM,)), "weight")
    t.add(x, x)
    t.rename_last(h)
    mean = t.mean(t.pow(h, 2), dim=-1, keepdim=True)
    y = t.mul(t.mul(h, t.rsqrt(t.add(mean, Scalar(1e-6, "self.eps")))), weight)
    known = {Symbol("dim", param=True): 64}
    return Graph("Norm", (x,), (Parameter("norm.weight", weight),), tuple(t.nodes), (h, y.value), known=known)


NODES = """\
%h: float[B, dim] = add(%x, %x)
%0: float[B, dim] = pow(%h, 2)
%1: float[B, 1] = mean(%0, dim=-1, keepdim=True)
%2: float[B, 1] = add(%1, {self.eps})
%3: float[B, 1] = rsqrt(%2)
%4: float[B, dim] = mul(%h, %3)
"""


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


def test_a_graph() -> None:
    assert dump(norm()) == (
        "graph Norm(%x: float[B, dim]) params(@norm.weight: float[dim]) known(dim=64) {\n"
        + indented(NODES + "%5: float[B, dim] = mul(%4, @norm.weight)\nreturn %h, %5", 2)
        + "}\n"
    )


def test_a_group_shows_its_body() -> None:
    graph = fuse(norm())
    group = graph.nodes[0].group
    assert group is not None
    lines = dump(graph).splitlines()
    assert lines[1] == f"  %h: float[B, dim], %0: float[B, dim] = group {group.name}(%x, @norm.weight, {{self.eps}}) {{"
    assert lines[2:5] == [
        "    %h: float[B, dim] = add(%x, %x)",
        "    %1: float[B, dim] = pow(%h, 2)",
        "    %2: float[B, 1] = mean(%1, dim=-1, keepdim=True)",
    ]
    assert lines[-4:] == ["    return %h, %0", "  }", "  return %h, %0", "}"]


def test_the_same_graph_has_the_same_text() -> None:
    assert dump(norm()) == dump(norm())
    assert dump(fuse(norm())) == dump(fuse(norm()))


def test_values_of_one_name_are_told_apart() -> None:
    kind = TensorType("float", (B,))
    x, again, third = (Value(kind, "x") for _ in range(3))
    bound = bind_plain(OPS["relu"], (x,), {})
    nodes = (
        Node(OPS["relu"], bound.inputs, bound.attrs, (again,), layer="act"),
        Node(OPS["relu"], (again,), bound.attrs, (third,), origin="Act"),
    )
    graph = Graph("f", (x,), (), nodes, (third,), tracked={"size": third})
    assert dump(graph).splitlines()[1:-1] == [
        "  %x_2: float[B] = relu(%x) layer=act",
        "  %x_3: float[B] = relu(%x_2) origin=Act",
        "  return %x_3",
        "  track size = %x_3",
    ]


def test_attributes_at_their_defaults_are_left_out() -> None:
    x = Value(TensorType("float", (B, Size.of(6))), "x")
    t = Tracer()
    t.record("gelu", (x,), {})
    t.record("gelu", (x,), {"approximate": "tanh"})
    t.record("reshape", (x,), {"shape": (B * 2, Size.of(3))})
    t.record("clamp", (x, Scalar(None), Scalar(2.0)), {})
    lines = dump(Graph("f", (x,), (), tuple(t.nodes), (x,))).splitlines()
    assert [line.partition(" = ")[2] for line in lines[1:5]] == [
        "gelu(%x)",
        "gelu(%x, approximate='tanh')",
        "reshape(%x, shape=(2 * B, 3))",
        "clamp(%x, None, 2.0)",
    ]
