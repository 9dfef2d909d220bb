"""Programs elaborated to IR: what is inlined, what is shared, and how mistakes are told."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tdsl.compiler.build.program import build
from tdsl.compiler.build.unit import LayerMember, ModuleIR, ModuleMember, RepeatMember, Unit
from tdsl.compiler.codes import CODES
from tdsl.compiler.ir import Graph, Scalar
from tdsl.compiler.probe import probe
from tdsl.dsl.codes import Code
from tdsl.dsl.resolve import load
from tests.helpers import built, elaborate, mistakes

ROOT = Path(__file__).parent.parent
CONFORMANCE = ROOT.parent / "shared" / "conformance"


def module(unit: Unit, name: str) -> ModuleIR:
    return next(m for m in unit.modules if m.class_name == name)


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def body(text: str, members: str = "", inputs: str = "x: float[B, dim]", outputs: str = "float[B, dim]") -> str:
    return f"module M(dim: int = 8) {{\n{members}\nforward({inputs}) -> {outputs} {{\n{text}\n}}\n}}\n"


# What is built -------------------------------------------------------------------------------------------------------

NORM = """
module Norm(dim: int, eps: float = 1e-6) {
    param weight: [dim] = ones()
    forward(x: [..., dim]) -> [..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + eps) * weight
    }
}
"""
BLOCK = """
module Block(dim: int) {
    norm = Norm(dim, eps=1e-5)
    up   = Linear(dim, dim)
    forward(x: float[B, T, dim]) -> float[B, T, dim] { return x + up(norm(x)) }
}
"""


def test_a_fusible_module_is_inlined_and_keeps_its_parameters() -> None:
    unit = built(NORM + BLOCK + "module Net(dim: int = 8) { b = Block(dim) }")
    assert [m.class_name for m in unit.modules] == ["Norm", "Block", "Net"]
    graph = module(unit, "Block").graph
    assert names(graph) == ["pow", "mean", "add", "rsqrt", "mul", "mul", "linear", "add"]
    assert [p.path for p in graph.params] == ["norm.weight", "up.weight", "up.bias"]
    assert [n.origin for n in graph.nodes] == ["Norm"] * 6 + ["", ""]
    assert graph.nodes[2].inputs[1] == Scalar(1e-5, "self.norm.eps")
    assert str(graph.nodes[0].output.type) == "float[B, T, dim]"


def test_a_class_stays_generic_in_its_sizes() -> None:
    """Two arguments, one class; a structure that depends on the argument makes a second."""
    layer = "module L(dim: int) {\n l = Linear(dim, dim)\n forward(x: [B, dim]) -> [B, dim] { return %s }\n}\n"
    net = "module Net() {\n a = L(4)\n b = L(16)\n}\n"
    assert [m.class_name for m in built(layer % "l(x)" + net).modules] == ["L", "Net"]
    branching = layer % "relu(l(x)) if dim > 8 else l(x)"
    unit = built(branching + net)
    assert [m.class_name for m in unit.modules] == ["L", "L2", "Net"]
    assert module(unit, "Net").members["b"] == ModuleMember("L2", (("", 16),))


def test_a_list_is_run_by_one_node() -> None:
    loop = "for block in blocks {\n x = block(x)\n }\n return x"
    for text in (loop, "return x |> blocks", "return blocks(x)"):
        unit = built(NORM + BLOCK + _stack(text))
        graph = module(unit, "Net").graph
        assert names(graph) == ["call_list"], text
        assert graph.nodes[0].layer == "blocks"
    member = module(unit, "Net").members["blocks"]
    assert isinstance(member, RepeatMember)
    assert str(member.count) == "layers"


def test_an_element_of_a_list_is_called_by_its_path() -> None:
    graph = module(built(NORM + BLOCK + _stack("return blocks[1](x) + blocks[-1](x)")), "Net").graph
    assert [n.layer for n in graph.nodes] == ["blocks.1", "blocks.2", ""]


def _stack(text: str) -> str:
    return (
        "module Net(dim: int = 8, layers: int = 3) {\n blocks = [Block(dim) for i in range(layers)]\n"
        f" forward(x: float[B, T, dim]) -> float[B, T, dim] {{\n {text}\n }}\n}}\n"
    )


def test_a_tied_parameter_is_one() -> None:
    tied = "e = Embedding(50, dim)\nhead = Linear(dim, 50, bias=false, weight=e.weight)"
    unit = built(body("return head(e(t))", tied, "t: int[B, T]", "float[B, T, 50]"))
    assert unit.modules[0].ties == (("head.weight", "e.weight"),)
    assert [p.path for p in unit.modules[0].graph.params] == ["e.weight"]


def test_a_size_is_taken_from_the_first_call() -> None:
    unit = built(body("return l(x.flatten(1))", "l = Linear(_, 4)", "x: float[B, 3, dim]", "float[B, 4]"))
    (layer,) = unit.modules[0].members.values()
    assert isinstance(layer, LayerMember)
    assert [(name, str(value)) for name, value in layer.args] == [("", "3 * dim"), ("", "4")]


def test_a_member_hides_a_built_in_but_a_method_does_not() -> None:
    graph = built(body("return mean(x) * x.mean()", "mean = Linear(dim, dim)")).modules[0].graph
    assert names(graph) == ["linear", "mean", "mul"]


def test_functions_and_modules_as_arguments() -> None:
    text = "module A(dim: int, act: fn = gelu, norm: module = LayerNorm) {\n n = norm(dim)\n"
    text += " forward(x: [B, dim]) -> [B, dim] { return act(n(x)) }\n}\n"
    text += "fn double(x: [..., D]) -> [..., D] { return x * 2 }\n"
    unit = built(text + "module Net() {\n a = A(4)\n b = A(4, act=double, norm=RMSNorm)\n}\n")
    assert [(m.class_name, names(m.graph)) for m in unit.modules] == [
        ("A", ["layer_norm", "gelu"]),
        ("A2", ["rms_norm", "mul"]),
        ("Net", []),
    ]


def test_dropout_follows_the_mode() -> None:
    layers = "drop = Dropout(0.2)"
    graph = built(body("return drop(dropout(x, 0.1))", layers)).modules[0].graph
    assert [n.inputs[1] for n in graph.nodes] == [
        Scalar(None, "0.1 if self.training else 0.0"),
        Scalar(None, "0.2 if self.training else 0.0"),
    ]
    assert [n.layer for n in graph.nodes] == ["", "drop"]


def test_dtypes_are_converted() -> None:
    text = "return (x.to(f64).to(float) + m.float() + n.float()) * m.int()"
    graph = built(body(text, inputs="x: float[B, dim], m: bool[B, dim], n: int[B, 1]")).modules[0].graph
    found = [str(n.output.type) for n in graph.nodes if n.op.name not in ("add", "mul")]
    assert found == ["f64[B, dim]", "float[B, dim]", "float[B, dim]", "float[B, 1]", "int[B, dim]"]


CONFORMING = ("triplet", "imbalanced", "vae", "gpt", "cnn")


@pytest.mark.parametrize("name", CONFORMING)
def test_conformance_programs(name: str) -> None:
    if not CONFORMANCE.exists():
        pytest.skip("the conformance programs are not beside the repository")
    program, reporter = load(str(CONFORMANCE / f"{name}.model"), probe=probe)
    assert program is not None
    unit = build(program, reporter)
    assert unit is not None, reporter.diagnostics
    for run in unit.runs.values():
        assert run.loss.outputs[0].type.shape == ()


def test_the_example() -> None:
    program, reporter = load(str(ROOT / "examples" / "digits.model"), probe=probe)
    assert program is not None
    unit = build(program, reporter)
    assert unit is not None
    assert not reporter.diagnostics
    block = next(m for m in unit.modules if m.class_name == "Block")
    norm = ["pow", "mean", "add", "rsqrt", "mul", "mul"]
    assert names(block.graph) == [*norm, "linear", "gelu", "dropout", "linear", "add"]
    assert names(unit.runs["digits"].loss) == ["call_module", "cross_entropy"]
    compare = unit.evaluations["digits"].compare
    assert compare is not None
    assert [str(v.type) for v in compare.outputs] == ["float[B, 10]", "int[B]"]


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [c for c in CODES.values() if c.code[0] == "E"], ids=lambda each: each.code)
def test_examples_raise_their_code(code: Code) -> None:
    found = mistakes(code.example)
    assert [each.code for each in found] == [code.code]
    assert found[0].span is not None


def test_every_code_is_listed() -> None:
    files = [p for p in (ROOT / "compiler").rglob("*.py") if p.name != "codes.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert set(re.findall(r'"(E2\d{2})"', text)) == {code for code in CODES if code[0] == "E"}


@pytest.mark.parametrize(
    ("text", "code", "caret", "help"),
    [
        ("return gleu(x)", "E110", "gleu", "did you mean `gelu`?"),
        ("return x.sofmax(dim=-1)", "E110", "sofmax", "did you mean `softmax`?"),
        ("return softmax(x, dmi=-1)", "E202", "dmi=-1", "did you mean `dim`?"),
        ("return softmax(x)", "E202", "softmax(x)", "it takes input, dim, dtype"),
        ("return gelu(x, x)", "E202", "x", "it takes input, approximate"),
        ('return softmax(x, dim="a")', "E202", '"a"', "such as `dim=-1`"),
        ("return x @ x", "E203", "x @ x", "transpose the second: `a @ b.T`"),
        ("return up(x)", "E203", "up(x)", "`Linear(_, ...)` takes `in_features` from what it is given"),
        ("return x[:, 9]", "E204", "x[:, 9]", "indices count from 0 to the size less 1, or back from -1"),
        ("return x.cat(x)", "E202", "x", "such as `dim=-1`"),
        ("return x if x.sum() > 0 else x", "E208", "x.sum() > 0", "choose among tensors with `where(mask, a, b)`"),
        ("return x[x > 0]", "E206", "x > 0", "choose with `where(mask, x, other)`"),
        ("return dropout(x, 1.5)", "E202", "dropout(x, 1.5)", "it is the share that is set to zero, such as `0.1`"),
        ("return x.reshape(B, 3, -1)", "E208", "x.reshape(B, 3, -1)", "state it: `assume dim % 3 == 0`"),
    ],
)
def test_a_mistake_is_told_where_it_is(text: str, code: str, caret: str, help: str | None) -> None:
    (found,) = mistakes(body(text, "up = Linear(9, 2)"))
    assert found.span is not None
    assert (found.code, found.span.text, found.help) == (code, caret, help)


def test_a_mismatch_names_both_shapes_and_where_they_came_from() -> None:
    (found,) = mistakes(body("h = up(x)\nreturn h + x", "up = Linear(dim, 2 * dim)"))
    assert found.message == "shapes do not match in `+`"
    assert found.label == "float[B, 2 * dim] and float[B, dim]"
    assert found.notes == ("`up` doubles the last dimension (net.model:2:6)",)


def test_independent_mistakes_are_all_told_and_their_consequences_are_not() -> None:
    text = body("a = reluu(x)\nb = a + 1\nc = softmax(x, dim=5)\nreturn b + c")
    text += "module N() {\n l = Linear(1)\n forward(x: [B, 1]) -> [B, 1] { return l(x) }\n}\n"
    text += "fn f(x: [B]) -> [] { return x }\n"
    assert [each.code for each in mistakes(text)] == ["E110", "E204", "E202", "E207"]


def test_a_mistake_in_an_element_of_a_list_names_the_element() -> None:
    (found,) = mistakes(body("return x |> net", "net = [Linear(dim, 4), ReLU(), Linear(5, dim)]"))
    assert found.code == "E203"
    assert found.notes[-1] == "in element 2 of `net`, which is given float[B, 4]"


# Wild programs -------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r'"[^"\n]*"|[A-Za-z_]\w*|\d[\w.]*|\|>|\*\*|//|[=!<>]=|->|\s+|.')
WORDS = [
    "x",
    "dim",
    "B",
    "h",
    "mean",
    "size",
    "Linear",
    "Dropout",
    "Sequential",
    "relu",
    "softmax",
    "cat",
    "range",
    "sum",
]
WORDS += ["where", "clamp", "training", "randn_like", "chunk", "reshape", "index", "attention", "rope", "self", "none"]
WORDS += ["0", "-1", "1.5", '"x"', "_", "[1, 2]", "(3, 4)", "...", "9223372036854775807"]
WILD_STACK = """h = x |> blocks
    a, b = h.chunk(2, dim=-1)
    z = cat([a, b], dim=-1)[:, 0:T]
    return where(z > 0, z, h)"""
WILD_BODY = """h = rearrange(up(x), "b (h d) -> h b d", h=2)
    return dropout(softmax(h, dim=-1), 0.1).sum(0)"""
WILD = NORM + BLOCK + _stack(WILD_STACK) + body(WILD_BODY, "up = Linear(_, 16)", outputs="float[B, 8]")


def test_mutated_programs_yield_diagnostics_and_no_exception() -> None:
    draw = random.Random(0)
    tokens = TOKEN.findall(WILD)
    places = [i for i, token in enumerate(tokens) if not token.isspace()]
    told = 0
    for _ in range(1500):
        changed = list(tokens)
        for i in draw.sample(places, draw.choice([1, 1, 2])):
            changed[i] = draw.choice([*WORDS, *(tokens[j] for j in draw.sample(places, 3))])
        unit, diagnostics = elaborate("".join(changed))
        assert all(each.span is not None for each in diagnostics)
        assert unit is not None or diagnostics, "".join(changed)
        told += bool(diagnostics)
    assert told > 500
