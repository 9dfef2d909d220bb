"""Batch norm with residual and activation in one: what becomes such a group, its text, and its kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tdsl.compiler import pipeline
from tdsl.compiler.ir import Graph
from tdsl.compiler.passes.place_casts import place_casts
from tests import cnn_by_hand
from tests.batch_norm_checks import CHECKS
from tests.helpers import ROOT, built, compiled, disagreements, emitted, graph_of, python, written

PROGRAM = """
module Images(c: int = 3, slope: float = 0.2) {
    n1 = BatchNorm2d(c)
    n2 = BatchNorm2d(c)
    n3 = BatchNorm2d(c)
    n4 = BatchNorm2d(c)
    n5 = BatchNorm2d(c, affine=false)
    n6 = BatchNorm2d(c)
    act = Hardswish()
    conv = Conv2d(c, c, 1)
    forward(x: float[B, c, H, W]) -> float[B, c, H, W] {
        a = relu(n1(conv(x)))
        b = relu(x + n2(conv(a)))
        d = n3(conv(b)) + a
        e = gelu(n4(conv(d)) + b)
        f = relu6(d + n5(conv(e)))
        return act(leaky_relu(n6(conv(f)), slope))
    }
}

module Rows(c: int = 3) {
    n1 = BatchNorm1d(c)
    n2 = BatchNorm1d(c, affine=false)
    forward(x: float[B, c]) -> float[B, c] { return mish(n2(relu(n1(x)) * 2)) }
}

module Volumes(c: int = 3) {
    norm = BatchNorm3d(c)
    forward(x: float[B, c, D, H, W]) -> float[B, c, D, H, W] { return tanh(norm(x)) }
}

module Called(c: int = 3) {
    buffer m: [c] = zeros()
    buffer v: [c] = ones()
    param w: [c] = ones()
    param b: [c] = zeros()
    forward(x: float[B, c, L]) -> float[B, c, L] {
        if training { y = relu(batch_norm(x, m, v, training=true)) } else { y = relu(batch_norm(x, m, v)) }
        z = silu(x + batch_norm(y, none, none, w, b, training=true))
        return elu(batch_norm(z, m, v, w, b, eps=1e-3))
    }
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(emitted(compiled(PROGRAM)), tmp_path_factory.mktemp("batch_norm"))


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, list[str]]:
    """What each check found wrong."""
    ran = python("-m", "tests.batch_norm_checks", folder, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, list[str]] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_kernels(check: str, told: dict[str, list[str]]) -> None:
    assert not told[check]


def test_kernels_in_every_memory_layout(folder: Path) -> None:
    """Transposed, sliced, expanded; NaN and infinity."""
    assert not disagreements(folder)


def test_kernels_of_a_run_in_lower_precision(tmp_path: Path) -> None:
    text = module(
        "return relu(x + norm(conv(relu(n(x)))))",
        "norm = BatchNorm2d(c)\n    n = BatchNorm2d(c)\n    conv = Conv2d(c, c, 1)",
    )
    files = emitted(pipeline.distinct(place_casts(compiled(text), "f16")))
    assert "F.relu(norm(x_f32))" in files["kernels.py"]
    assert not disagreements(written(files, tmp_path))


# What becomes a group ------------------------------------------------------------------------------------------------


def ops(graph: Graph) -> list[str]:
    return [node.group.name if node.group else node.op.name for node in graph.nodes]


def module(body: str, members: str = "norm = BatchNorm2d(c)\n    conv = Conv2d(c, c, 1)", result: str = "") -> str:
    shape = "float[B, c, H, W]"
    return f"module M(c: int = 4) {{\n    {members}\n    forward(x: {shape}) -> {result or shape} {{ {body} }}\n}}\n"


def test_layers_see_batches_in_the_order_of_the_program() -> None:
    """What waits for its activation is not overtaken by another call of its layer, nor by a look at its statistics."""
    found = [
        "batch_norm_relu" in ops(graph_of(compiled(module(f"a = norm(conv(x))\n b = {b}\n return b * relu(a)")), "M"))
        for b in ("exp(x)", "norm(conv(-x))", "x + norm.running_mean.sum()")
    ]
    assert found == [True, False, False]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return relu(norm(conv(x)))", ["conv2d", "batch_norm_relu"]),
        ("return relu(x + norm(conv(x)))", ["conv2d", "batch_norm_add_relu"]),
        ("return norm(conv(x)) + x", ["conv2d", "batch_norm_add"]),
        ("return softplus(norm(conv(x)), beta=2.0)", ["conv2d", "batch_norm_softplus"]),
        # Alone, or before what is no activation, PyTorch computes it as well.
        ("return norm(conv(x))", ["conv2d", "batch_norm_layer"]),
        ("return max_pool2d(norm(conv(x)), 1)", ["conv2d", "batch_norm_layer", "max_pool2d"]),
        ("return softmax(norm(conv(x)), dim=1)", ["conv2d", "batch_norm_layer", "softmax"]),
        ("return floor(norm(conv(x)))", ["conv2d", "batch_norm_layer", "floor"]),
        # What is normalised is no residual, nor what is of another shape.
        ("return relu(x + norm(x))", ["batch_norm_layer", "add_relu"]),
        ("return relu(x[:, :1] + norm(conv(x)))", ["conv2d", "batch_norm_layer", "add_relu"]),
        # Its result is needed for something else.
        ("y = norm(conv(x))\n return relu(y) * sigmoid(y)", ["conv2d", "batch_norm_layer", "relu_sigmoid"]),
    ],
)
def test_what_is_recognised(body: str, expected: list[str]) -> None:
    found = ops(graph_of(compiled(module(body)), "M"))
    assert [name for name in found if name != "index"] == expected


def test_the_activation_may_be_a_layer_in_a_sequential() -> None:
    text = module(
        "return body(x)",
        "body = Sequential(Conv2d(c, c, 1), BatchNorm2d(c), ReLU(), Conv2d(c, c, 1), BatchNorm2d(c))",
    )
    unit = compiled(text)
    assert ops(graph_of(unit, "M")) == ["conv2d", "batch_norm_relu", "conv2d", "batch_norm_layer"]
    files = emitted(unit)
    assert "kernels.batch_norm_relu(self.body[0](x), self.body[1])" in files["model.py"]


def test_a_sequential_without_an_activation_after_a_norm_stays_one() -> None:
    text = module("return body(x)", "body = Sequential(Conv2d(c, c, 1), BatchNorm2d(c), MaxPool2d(1), ReLU())")
    assert ops(graph_of(compiled(text), "M")) == ["call_module"]


def test_programs_that_differentiate_gradients_have_none() -> None:
    text = module("y = relu(norm(conv(x)))\n return y * grad(y.sum(), x)")
    assert "batch_norm_relu" not in ops(graph_of(compiled(text), "M"))


def test_one_function_serves_tensors_of_every_rank() -> None:
    unit = compiled(PROGRAM)
    names = [group.name for group in pipeline.groups(unit)]
    assert len([name for name in names if name.startswith("batch_norm_relu")]) == 3  # a layer's, and two calls'
    relu = [n for m in unit.modules for n in m.graph.nodes if n.group is not None and n.group.name == "batch_norm_relu"]
    assert {len(node.values[0].type.shape) for node in relu} == {2, 4}


def test_statistics_stand_once_in_a_file() -> None:
    text = emitted(compiled(PROGRAM))["kernels.py"]
    assert text.count("def _column_statistics(") == text.count("def _statistics(") == 1


def test_names_of_layers_are_no_names_of_groups() -> None:
    """A program's own `Norm`, and a module called `Launch`, beside what the file imports."""
    text = module("return relu(n(conv(x))) * 2 - 1", "n = BatchNorm2d(c)\n    conv = Conv2d(c, c, 1)")
    assert "def batch_norm_relu(x: Tensor, norm: nn.Module)" in emitted(compiled(text))["kernels.py"]


# Ahead of time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout", "dtype"),
    [
        ((8, 64, 28, 28), "channels_last", torch.bfloat16),
        ((8, 64, 28, 28), "contiguous", torch.float32),
        ((2, 2048, 7, 7), "contiguous", torch.bfloat16),
    ],
)
def test_kernels_compile_ahead_of_time_without_spills(
    folder: Path, shape: tuple[int, ...], layout: str, dtype: torch.dtype
) -> None:
    from tdsl.runtime import aot, verify
    from tdsl.runtime.verify_inputs import Case

    kernels = verify.load(folder / "kernels.py")
    case = Case("batch_norm_add_gelu", (shape, shape, shape[1:2]), ("float", "float", "BatchNorm2d:train"), (), layout)
    launches = aot.launches(kernels, case, dtype)
    found = [aot.compiled(each, target, dtype) for each in launches for target in aot.TARGETS]
    assert len({each.kernel for each in found}) == 5
    assert [each for each in found if each.spilled] == []


# Training ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not cnn_by_hand.PROGRAM.exists(), reason="needs the conformance programs beside the repository")
@pytest.mark.parametrize("how", ["reference", "kernels"])
def test_the_conformance_network_trains_as_one_by_hand(how: str, tmp_path: Path) -> None:
    if how == "reference":
        assert not cnn_by_hand.disagreement(tmp_path, 1e-6)
        return
    ran = python("-m", "tests.cnn_by_hand", tmp_path, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]


def test_built_programs_are_unchanged() -> None:
    """Lints and `inspect` see layers and their parameters."""
    graph = graph_of(built(PROGRAM), "Images")
    assert [node.op.name for node in graph.nodes].count("batch_norm_layer") == 6
