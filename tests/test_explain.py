"""`tdsl explain`: its bytes by hand, its FLOPs by PyTorch's counter, what it says is kept by PyTorch's hooks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tdsl.compiler import pipeline
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.explain.data import to_json
from tdsl.compiler.explain.explain import explain
from tdsl.compiler.explain.model import Explanation, Part, PartKind
from tdsl.compiler.explain.show import show
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.passes.fusible import MOST_TENSORS, Why
from tests.helpers import ROOT, UNFUSED, built, python, tdsl

NORM = """
module RMSNorm(dim: int, eps: float = 1e-6) {
    param weight: [dim] = ones()

    forward(x: [..., dim]) -> [..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + eps) * weight
    }
}
"""


def module(body: str, members: str = "", inputs: str = "x: float[6, 16]", result: str = "float[6, 16]") -> str:
    return f"module M() {{\n{members}\nforward({inputs}) -> {result} {{\n{body}\n}}\n}}\n"


def explained(text: str, name: str = "M", **more: Any) -> Explanation:
    """A module by itself, as if its inputs carried gradients."""
    return explain(built(text), module=name, **more)


def the_kernel(found: Explanation) -> Part:
    (kernel,) = (p for t in found.tables for p in t.parts if p.kind is PartKind.KERNEL)
    return kernel


# Bytes, by hand: of a [6, 16] tensor 384, of a vector of 16 columns 64, of a number for each of 6 rows 24 --------------

FULL, COLS, ROWS = 6 * 16 * 4, 16 * 4, 6 * 4


def test_bytes_of_rms_norm() -> None:
    found = the_kernel(explained(module("return norm(x)", "norm = RMSNorm(16)") + NORM)).cost
    assert found.forward == FULL + COLS + FULL + ROWS  # x, weight; y, one over the root a row
    assert found.backward == FULL + COLS + ROWS + FULL + FULL + COLS  # x, weight, that number, dy; dx, dweight
    assert found.kept == ROWS


def test_bytes_of_bias_and_gelu() -> None:
    found = the_kernel(explained(module("return gelu(x + b)", "param b: [16] = zeros()"))).cost
    assert found.forward == FULL + COLS + FULL
    assert found.backward == FULL + COLS + FULL + FULL + COLS
    # Alone the sum writes FULL and reads it again, the gelu keeps it; the sum's gradient by x is gelu's, handed on.
    alone = (FULL + COLS + FULL) + (FULL + FULL) + (FULL + FULL + FULL) + (FULL + COLS)
    assert found.saved == alone - found.moved
    assert found.kept == 0


def test_bytes_of_softmax() -> None:
    found = the_kernel(explained(module("return softmax(x * 2.0, dim=-1)"))).cost
    # It keeps a row's greatest value and the sum of its exponentials, and reads x again.
    assert found.forward == FULL + FULL + 2 * ROWS
    assert found.backward == FULL + 2 * ROWS + FULL + FULL
    assert found.kept == 2 * ROWS


def test_bytes_of_a_batch_norm_with_what_follows_it() -> None:
    layers, image = "norm = BatchNorm2d(4)\n    conv = Conv2d(4, 4, 1)", "float[2, 4, 3, 3]"
    found = explained(module("return relu(x + norm(conv(x)))", layers, f"x: {image}", image))
    cost, tensor = the_kernel(found).cost, 2 * 4 * 3 * 3 * 4
    assert cost.forward == 4 * tensor  # x for its statistics, x, the residual; y
    assert cost.backward == 7 * tensor  # x, y, dy; dz; x, dz; dx
    # Alone, a call counts each of its tensors once: the norm 2 and 3, the sum 3, its gradient handed on, the relu 2 and 3.
    assert cost.saved == 13 * tensor - cost.moved
    assert cost.kept == tensor + 2 * 4 * 4  # y, a mean and a variance a channel
    assert found.unfused == ()


def test_in_low_precision_tensors_take_half_and_parameters_do_not(tmp_path: Path) -> None:
    full, low = (explain(built(run(precision=p), tmp_path / "p.model"), "r").tables for p in ("f32", "bf16"))
    kernels = [[p.cost for t in tables for p in t.parts if p.name == "rms_norm"] for tables in (full, low)]
    assert kernels[0][0].forward == FULL + COLS + FULL + ROWS
    assert kernels[1][0].forward == FULL // 2 + COLS + FULL // 2 + ROWS


# FLOPs -----------------------------------------------------------------------------------------------------------------


def emitted(text: str) -> Any:
    """The module `M` as plain PyTorch."""
    space: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(model_text(pipeline.run(built(text), UNFUSED)), "model.py", "exec"), space)
    return space["M"]()


PRODUCTS = [
    (module("return l(x)", "l = Linear(16, 8)", result="float[6, 8]"), (6, 16)),
    (module("return l(x)", "l = [Linear(16, 16) for i in range(3)]"), (6, 16)),
    (module("return l(x)", "l = Sequential(Linear(16, 32), GELU(), Linear(32, 16, bias=false))"), (6, 16)),
    (module("return x @ x.T @ x"), (6, 16)),
    (module('return einsum("i j, k j -> i k", x, x)', result="float[6, 6]"), (6, 16)),
    (
        module("return c(x)", "c = Conv2d(4, 8, 3, padding=1)", "x: float[2, 4, 9, 9]", "float[2, 8, 9, 9]"),
        (2, 4, 9, 9),
    ),
    (
        module("return c(x)", "c = Conv2d(4, 8, 3, stride=2, groups=2)", "x: float[2, 4, 9, 9]", "float[2, 8, 4, 4]"),
        (2, 4, 9, 9),
    ),
    (module("return c(x)", "c = ConvTranspose1d(4, 3, 5)", "x: float[2, 4, 9]", "float[2, 3, 13]"), (2, 4, 9)),
]


def counted(model: Any, x: Tensor) -> tuple[int, int]:
    """FLOPs of products, forward and backward, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        y = model(x)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize(("text", "shape"), PRODUCTS)
def test_flops_of_products_are_those_that_pytorch_counts(text: str, shape: tuple[int, ...]) -> None:
    found = explained(text).tables[0].cost
    elementwise = 32 * 6 * 8 if "GELU" in text else 0
    forward, backward = counted(emitted(text), torch.randn(shape, requires_grad=True))
    assert found.flops - elementwise == forward
    if "groups" in text:  # PyTorch counts the gradient of the weights as if there were one group
        backward -= forward
    assert found.flops_backward == pytest.approx(backward, rel=0.2 if elementwise else 0)


def test_what_carries_no_gradient_has_no_product_for_one() -> None:
    text = module("return l(x)", "l = Linear(16, 8)", result="float[6, 8]")
    (table,) = explain(built(text)).tables
    assert (table.cost.flops, table.cost.flops_backward) == counted(emitted(text), torch.randn(6, 16))


ATTENTION = module("return attention(x, x, x, causal=true)", "", "x: float[2, 3, 7, 8]", "float[2, 3, 7, 8]")


def test_flops_of_attention_are_those_that_pytorch_counts() -> None:
    found = explained(ATTENTION).tables[0].cost
    q = (2, 3, 7, 8)
    forward, backward = cast(Any, sdpa_flop_count), cast(Any, sdpa_backward_flop_count)
    assert found.flops == forward(q, q, q)
    assert found.flops_backward == backward(q, q, q, q)
    with sdpa_kernel(SDPBackend.MATH):
        assert counted(emitted(ATTENTION), torch.randn(q, requires_grad=True))[0] == found.flops


# What is kept ----------------------------------------------------------------------------------------------------------

KEPT = {
    "linear and relu": module("return b(relu(a(x)))", "a = Linear(16, 32)\nb = Linear(32, 16)"),
    "gelu": module("return gelu(x * 2.0) * 3.0"),
    "two readers": module("y = sin(x)\nreturn y * exp(y)"),
    "views share": module("y = tanh(x).reshape(16, 6)\nreturn exp(y.T) * sin(y.T)"),
    "attention": ATTENTION,
    "a list": module("return l(x)", "l = [Linear(16, 16) for i in range(4)]"),
    "modules": module("return l(x)", "l = [Inner() for i in range(4)]")
    + "module Inner() {\nl = Linear(16, 16)\nforward(x: [..., 16]) -> [..., 16] { return x + sigmoid(l(x)) }\n}\n",
    "no gradient": module("no_grad {\ny = exp(sin(x))\n}\nreturn x * y"),
    "cross entropy": module("return cross_entropy(x * 2.0, t)", "", "x: float[6, 16], t: int[6]", "float[]"),
    "max_pool": module("return max_pool2d(sin(x), 2)", "", "x: float[2, 3, 8, 8]", "float[2, 3, 4, 4]"),
}


def saved_by_pytorch(model: Any, inputs: list[Tensor]) -> int:
    """Bytes that autograd holds on to, beside parameters and inputs, each memory once."""
    known = {t.untyped_storage().data_ptr() for t in (*inputs, *model.parameters())}
    found: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known and tensor.numel() > 1:
            found[place] = (tensor.untyped_storage().nbytes(), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(*inputs)
    return sum(n for n, _ in found.values())


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_what_autograd_saves(name: str) -> None:
    text = KEPT[name]
    found = explained(text, passes=UNFUSED).tables[0]
    shape = next(s for s in ((2, 3, 7, 8), (2, 3, 8, 8), (6, 16)) if f"float{list(s)}" in text)
    inputs = [torch.randn(shape, requires_grad=True)]
    inputs += [torch.randint(0, 16, (6,))] if "t: int[6]" in text else []
    assert found.cost.kept == saved_by_pytorch(emitted(text), inputs)


def test_what_a_whole_model_keeps_is_nearly_what_autograd_saves() -> None:
    wrapped = "g = GPT(vocab=64, dim=32, heads=2, layers=3)", "t: int[2, 16]", "float[2, 16, 64]"
    text = (ROOT / "examples" / "gpt.model").read_text() + module("return g(t)", *wrapped)
    plain, fused = (explained(text, passes=p).tables[0].cost.kept for p in (UNFUSED, pipeline.PASSES))
    saved = saved_by_pytorch(emitted(text), [torch.randint(0, 64, (2, 16))])
    # A view that PyTorch has to copy is not foreseen: one a layer, of what attention yields.
    assert saved - 3 * (2 * 16 * 32 * 4) == plain
    assert fused < 0.8 * plain


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.model")), ids=lambda path: path.stem)
def test_what_fusing_saves_is_what_the_unfused_program_moves_more(file: Path) -> None:
    unit = built(file.read_text(encoding="utf-8"), file)
    for ir in unit.modules:
        fused, plain = (
            explain(unit, module=ir.class_name, passes=p).tables[0].cost for p in ((*UNFUSED, fuse), UNFUSED)
        )
        assert fused.moved + fused.saved == plain.moved
        assert plain.saved == 0
        assert (fused.flops, fused.moved <= plain.moved) == (plain.flops, True)


def test_fusing_keeps_less() -> None:
    text = module("return silu(a(x)) * sin(x) * exp(x)", "a = Linear(16, 16)")
    fused, plain = (explained(text, passes=p).tables[0].cost for p in (pipeline.PASSES, UNFUSED))
    assert fused.kept == FULL  # what the linear yields
    assert plain.kept > 2 * FULL


# Why not ---------------------------------------------------------------------------------------------------------------

REASONS = {
    Why.LIBRARY: "return exp(l(x))",
    Why.VIEW: "return exp(x).reshape(16, 6).reshape(6, 16)",
    Why.LEADING: "return x - exp(x.reshape(2, 3, 16)).sum(dim=1).sum()",
    Why.SUMS: "return x - exp(x).amax(dim=0)",
    Why.STAGE: "return x - exp(x).sum(dim=0)",
    Why.COLUMNS: "y = exp(x.reshape(2, 3, 16))\nreturn softmax((y - y.sum(dim=(1, 2), keepdim=true)), -1).reshape(6, 16)",
    Why.SPACE: "return (x.T + (x * x).sum(-1)).T",
    Why.TENSORS: "return " + " + ".join(f"p{i}" for i in range(MOST_TENSORS + 4)),
    Why.OPERATIONS: "y = x\n" + "y = sin(y) + x\n" * 30 + "return y",
    Why.INTEGERS: "t = (x * 2.0).long()\nreturn x + (t + 1).sum(dim=-1, keepdim=true)",
    Why.SINGLE: "return x + exp(p1.sum() * 2.0)",
    Why.DOUBLE: "return exp(x.to(f64) * 2.0).to(f32)",
    Why.NO_FLOATS: "t = x.argmax(-1, true)\nreturn x.gather(1, (t + 1) * 2).expand(6, 16)",
    Why.DETOUR: "y = exp(x)\nreturn y * l(y)",
}
MEMBERS = "l = Linear(16, 16)\nparam c: [4, 6, 16] = ones()\n" + "".join(
    f"param p{i}: [6, 16] = ones()\n" for i in range(MOST_TENSORS + 4)
)


@pytest.mark.parametrize("why", REASONS, ids=lambda why: why.name)
def test_each_boundary_has_its_reason(why: Why) -> None:
    found = explained(module(REASONS[why], MEMBERS)).unfused
    assert any(why.value in each.why for each in found), found


def test_a_boundary_names_the_operations_and_the_line() -> None:
    found = explained(module("y = exp(x) * 2.0\nreturn l(y)", "l = Linear(16, 16)")).unfused
    (told,) = found
    assert (told.operations, told.why) == ("mul \u2192 l: linear", "linear is left to PyTorch")
    assert [span.line for span in told.spans] == [5]


def test_what_fuses_whole_has_no_boundary() -> None:
    assert explained(module("return exp(x) * 2.0 + x")).unfused == ()


# Programs --------------------------------------------------------------------------------------------------------------


def run(precision: str = "f32", more: str = "") -> str:
    return f"""{NORM}
module Net() {{
    embed = Embedding(20, 16)
    norms = [RMSNorm(16) for i in range(3)]
    head = Linear(16, 20)
    forward(t: int[B]) -> float[B, 20] {{
        x = embed(t) |> norms
        return head(x)
    }}
}}
data D {{
    source = csv("d.csv")
    split = random(train=0.8, val=0.2, seed=0)
    field t: int[] = column("t")
}}
train r {{
    model = Net()
    data = D
    loss(batch) {{ return cross_entropy(model(batch.t), batch.t) }}
    optimizer = SGD(lr=0.1)
    steps = 10
    batch_size = 6
    precision = {precision}
    {more}
}}
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "d.csv").write_text("t\n1\n2\n")
    (tmp_path / "p.model").write_text(run(more="accumulate = 2"))
    return tmp_path / "p.model"


def test_a_module_counts_as_often_as_it_is_called() -> None:
    found = explain(built(run()), "r")
    tables = {t.title: t for t in found.tables}
    assert {t: tables[t].calls for t in tables} == {"loss of r": 1, "Net": 1, "RMSNorm": 3}
    (norms,) = (p for p in tables["Net"].parts if p.name.startswith("norms"))
    each = tables["RMSNorm"].cost
    assert (norms.cost.forward, norms.cost.flops) == (3 * each.forward, 3 * each.flops)
    # Beside what each keeps itself: what it hands on, which the next, or the head, reads again.
    assert norms.cost.kept == 3 * each.kept + 3 * FULL
    assert found.cost == tables["loss of r"].cost
    assert not found.assumed


def test_accumulating_takes_the_batch_in_parts(program: Path) -> None:
    told = json.loads(tdsl("explain", program, "--format", "json").stdout)
    assert told["passes"] == 2
    assert told["modules"][0]["sizes"] == "B=3"
    assert told["step"]["forward"] == 2 * told["modules"][0]["total"]["forward"]
    assert told["step"]["kept"] == told["modules"][0]["total"]["kept"]


def test_json_has_what_the_text_has(program: Path) -> None:
    unit = built(program.read_text(), program)
    found = explain(unit, "r")
    told = json.loads(to_json(found, ()))
    assert [m["title"] for m in told["modules"]] == [t.title for t in found.tables]
    assert [p["name"] for p in told["modules"][1]["parts"]] == [p.name for p in found.tables[1].parts]
    assert [u["why"] for u in told["unfused"]] == [u.why for u in found.unfused]
    assert told["modules"][0]["parts"][0]["lines"][0]["source"].startswith("loss(batch)")


@pytest.mark.parametrize("width", [100, 140])
def test_the_text_fits(width: int, program: Path) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    show(explain(built(program.read_text(), program), "r"), console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert any("\u25a0 rms_norm" in line for line in lines)
    assert any(line.startswith("A training step of r, f32 (2 passes") for line in lines)
    # No number is cut short.
    assert not any("\u2026" in line[-46:] for line in lines if line.strip())


def test_sizes_that_nothing_tells_are_assumed_and_said() -> None:
    found = explain(built(module("return exp(x) * 2.0", "", "x: float[B, T, 4]", "float[B, T, 4]")))
    assert found.assumed == ("B = 1", "T = 1")
    assert found.tables[0].cost.forward == 2 * 4 * 4


def test_one_module_of_a_run_is_shown_at_its_sizes(program: Path) -> None:
    told = json.loads(tdsl("explain", program, "--module", "RMSNorm", "--format", "json").stdout)
    (table,) = told["modules"]
    assert table["calls"] == 3
    assert table["sizes"] == "dim=16, ...=3"


def test_mistakes_are_told_as_by_any_command(program: Path) -> None:
    program.write_text(program.read_text().replace("Linear(16, 20)", "Linear(17, 20)"))
    as_json, as_text = tdsl("explain", program, "--format", "json"), tdsl("explain", program)
    assert as_json.returncode == as_text.returncode == 2
    assert [d["code"] for d in json.loads(as_json.stdout)] == ["E203"]
    assert "error[E203]" in as_text.stderr


def test_an_unknown_module_is_told(program: Path) -> None:
    ran = tdsl("explain", program, "--module", "RMSNrm")
    assert ran.returncode == 2
    assert "did you mean `RMSNorm`?" in ran.stderr


def test_explaining_needs_no_torch() -> None:
    code = (
        "import sys; from tdsl.compiler.cli import main; status = main(sys.argv[1:]);"
        "assert not {'torch', 'numpy', 'triton'} & set(sys.modules); sys.exit(status)"
    )
    for name in ("gpt", "digits", "autoencoder"):
        ran = python("-c", code, "explain", ROOT / "examples" / f"{name}.model")
        assert ran.returncode == 0, ran.stderr


# In low precision, what is broadcast along some rows ----------------------------------------------------------------------


def test_a_kernel_in_low_precision_takes_what_is_broadcast_along_some_rows(program: Path) -> None:
    text = run(precision="bf16").replace("return head(x)", "y = x * 2.0 + x.sum(dim=0)\nreturn head(y)")
    assert any(p.kind is PartKind.KERNEL for t in explain(built(text, program), "r").tables for p in t.parts)


def test_pieces_of_a_tensor_in_low_precision_take_half(program: Path) -> None:
    gated = "a, b = (x @ x.transpose(0, 1) @ x).chunk(2, dim=-1)\nreturn head(cat([silu(a) * b, a], dim=-1))"
    found = {}
    for precision in ("f32", "bf16"):
        text = run(precision=precision).replace("return head(x)", gated)
        parts = [p for t in explain(built(text, program), "r").tables for p in t.parts if p.name == "silu_mul"]
        found[precision] = parts[0].cost
    piece = 6 * 8 * 4
    assert found["f32"].forward == 3 * piece
    assert found["f32"].backward == 5 * piece
    assert found["bf16"].moved * 2 == found["f32"].moved
