"""Runs in bf16 and f16: where the casts are, what the kernels read and write, and that training works."""

from __future__ import annotations

import inspect
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdsl.compiler import pipeline
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.emit.train import emit_train
from tdsl.compiler.memory import memory
from tdsl.compiler.passes.place_casts import TABLES
from tdsl.runtime import mixed_precision
from tests.helpers import ROOT, UNFUSED, built, disagreements, emitted, tdsl, written
from tests.running import loaded
from tests.test_emit_train import EXAMPLES, program

LOW = {"bf16": torch.bfloat16, "f16": torch.float16}

NETWORK = """
module RMSNorm(dim: int, eps: float = 1e-6) {
    param weight: [dim] = ones()
    forward(x: [..., dim]) -> [..., dim] {
        return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + eps) * weight
    }
}

module Net(dim: int = 32) {
    embed = Embedding(11, dim)
    param position: [5, dim] = normal(std=0.1)
    param scale: [] = ones()
    norm = RMSNorm(dim)
    up   = Linear(dim, 2 * dim)
    down = Linear(2 * dim, dim, bias=false)
    last = LayerNorm(dim)
    head = Linear(dim, 3)
    forward(tokens: int[B, 5], x: float[B, 5, dim]) -> float[B, 3] {
        h = embed(tokens) + position + x
        h = h + down(gelu(up(norm(h))))
        return head(last(h)[:, 0] * scale)
    }
}

data D {
    source = synthetic(rows=8)
    field tokens: int[5] = column("tokens")
    field x: float[5, 32] = column("x")
    field label: int[] = column("label")
}

train net {
    model = Net()
    data  = D
    optimizer = SGD(lr=0.1)
    epochs = 1
    precision = PRECISION
    loss(batch) { return cross_entropy(model(batch.tokens, batch.x), batch.label) }
}
"""


class ByHand(nn.Module):
    """The network as one writes it who casts by hand: parameters in float32, all between operations in `low`."""

    def __init__(self, low: torch.dtype) -> None:
        super().__init__()
        self.low = low
        self.embed = nn.Embedding(11, 32)
        self.position = nn.Parameter(torch.zeros(5, 32))
        self.scale = nn.Parameter(torch.ones(()))
        self.norm = nn.RMSNorm(32, eps=1e-6)
        self.up, self.down, self.last, self.head = (
            nn.Linear(32, 64), nn.Linear(64, 32, bias=False), nn.LayerNorm(32), nn.Linear(32, 3),
        )  # fmt: skip

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight.to(self.low), None if layer.bias is None else layer.bias.to(self.low))

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        h = (self.embed(tokens).to(self.low).float() + self.position + x.float()).to(self.low)
        y = (h.float() * torch.rsqrt((h.float() ** 2).mean(-1, keepdim=True) + 1e-6) * self.norm.weight).to(self.low)
        h = h + self.linear(self.down, F.gelu(self.linear(self.up, y)))
        z = F.layer_norm(h.float(), (32,), self.last.weight, self.last.bias).to(self.low)[:, 0]
        return self.linear(self.head, z * self.scale.to(self.low))


@pytest.mark.parametrize("precision", LOW)
def test_a_model_is_what_one_writes_by_hand(precision: str, tmp_path: Path) -> None:
    unit = pipeline.run(built(NETWORK.replace("PRECISION", precision)))
    module = loaded(written(emitted(unit), tmp_path))
    torch.manual_seed(3)
    model, hand = module.Net(), ByHand(LOW[precision])
    hand.load_state_dict(model.state_dict())
    tokens, x = torch.randint(0, 11, (4, 5)), torch.randn(4, 5, 32)
    found, wanted = model(tokens, x.to(LOW[precision])), hand(tokens, x.to(LOW[precision]))
    assert found.dtype == wanted.dtype == LOW[precision]
    eps = torch.finfo(LOW[precision]).eps
    torch.testing.assert_close(found, wanted, rtol=4 * eps, atol=4 * eps)
    found.float().square().sum().backward()
    wanted.float().square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), hand.parameters(), strict=True):
        assert p.grad is not None, name
        assert p.grad.dtype == p.dtype == torch.float32
        torch.testing.assert_close(p.grad, q.grad, rtol=0.05, atol=16 * eps * float(q.grad.abs().max()), msg=name)


def test_branches_and_regions_are_cast_too(tmp_path: Path) -> None:
    text = NETWORK.replace(
        "        h = h + down(",
        "        if training { h = norm(h) * scale } else { h = h * scale }\n        no_grad { h = h + position }\n"
        "        h = h + down(",
    )
    module = loaded(written(emitted(pipeline.run(built(text.replace("PRECISION", "bf16")))), tmp_path))
    model = module.Net()
    for mode in (True, False):
        model.train(mode)
        found = model(torch.randint(0, 11, (4, 5)), torch.randn(4, 5, 32, dtype=torch.bfloat16))
        assert found.dtype == torch.bfloat16
        assert found.isfinite().all()


def test_the_loss_is_in_float32() -> None:
    unit = pipeline.run(built(NETWORK.replace("PRECISION", "bf16")))
    text = emit_train(unit, unit.runs["net"])
    # The kernel reads what the model yields, and computes in float32.
    assert "return kernels.cross_entropy(model(batch.tokens, batch.x.to(torch.bfloat16)), batch.label)" in text
    unit = pipeline.run(built(NETWORK.replace("PRECISION", "bf16")), UNFUSED)
    assert "model(batch.tokens, batch.x.to(torch.bfloat16)).float()" in emit_train(unit, unit.runs["net"])
    assert "scaler" not in text
    assert "autocast" not in text


def test_runs_of_one_program_may_differ(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    text = program("    epochs = 1\n    precision = bf16\n", f"return {CE}")
    run = text[text.index("train digits") :]
    text += run.replace("train digits", "train full").replace("bf16", "f32")
    (tmp_path / "p.model").write_text(text)
    for name, cast in (("digits", True), ("full", False)):
        assert tdsl("compile", tmp_path / "p.model", "--run", name, "-o", tmp_path / name).returncode == 0
        assert ("mixed_precision" in (tmp_path / name / "model.py").read_text()) is cast


def test_a_program_in_f32_has_no_casts() -> None:
    files = emitted(pipeline.run(built(NETWORK.replace("PRECISION", "f32"))))
    assert not any(word in text for text in files.values() for word in (".float()", "mixed_precision", "float32=("))


@pytest.mark.parametrize("precision", LOW)
def test_kernels_agree_with_their_references(precision: str, tmp_path: Path) -> None:
    files = emitted(pipeline.run(built(NETWORK.replace("PRECISION", precision))))
    kinds = {kind for case in json.loads(files["cases.json"]) for kind in case["dtypes"]}
    assert {kind for kind in kinds if not kind.startswith("below:")} == {"float", "f32"}
    assert disagreements(written(files, tmp_path)) == []


@pytest.mark.parametrize("name", sorted(n for n, layer in LAYERS.items() if layer.params and n not in TABLES))
def test_each_layer_with_parameters_has_a_form_that_keeps_them(name: str) -> None:
    layer, plain = getattr(mixed_precision, name), getattr(nn, name)
    assert issubclass(layer, plain)
    assert inspect.signature(layer.__init__) == inspect.signature(plain.__init__)


LAYER_CASES: dict[str, tuple[tuple[Any, ...], tuple[tuple[int, ...], ...]]] = {
    "Linear": ((8, 4), ((3, 8),)),
    "Bilinear": ((3, 4, 5), ((2, 3), (2, 4))),
    "Conv1d": ((4, 6, 3), ((2, 4, 9),)),
    "Conv2d": ((4, 6, 3, 2, 1), ((2, 4, 9, 8),)),
    "Conv3d": ((2, 3, 2), ((2, 2, 4, 4, 4),)),
    "ConvTranspose1d": ((4, 6, 3, 2, 1, 1), ((2, 4, 9),)),
    "ConvTranspose2d": ((4, 6, 3, 2), ((2, 4, 5, 5),)),
    "ConvTranspose3d": ((2, 3, 2), ((2, 2, 3, 3, 3),)),
    "PReLU": ((4,), ((2, 4, 3),)),
    "LayerNorm": ((8,), ((3, 8),)),
    "RMSNorm": ((8,), ((3, 8),)),
    "GroupNorm": ((2, 4), ((3, 4, 5),)),
    "BatchNorm1d": ((4,), ((6, 4),)),
    "BatchNorm2d": ((4,), ((3, 4, 5, 5),)),
    "BatchNorm3d": ((2,), ((3, 2, 3, 3, 3),)),
    "InstanceNorm1d": ((4,), ((3, 4, 5),)),
    "InstanceNorm2d": ((4,), ((3, 4, 5, 5),)),
    "InstanceNorm3d": ((2,), ((2, 2, 3, 3, 3),)),
    "MultiheadAttention": ((8, 2), ((3, 2, 8), (3, 2, 8), (3, 2, 8))),
    "RNN": ((4, 6), ((3, 2, 4),)),
    "GRU": ((4, 6), ((3, 2, 4),)),
    "LSTM": ((4, 6), ((3, 2, 4),)),
}


@pytest.mark.parametrize("name", LAYER_CASES)
def test_a_layer_computes_as_pytorch_in_float32_and_nearly_so_in_less(name: str) -> None:
    args, shapes = LAYER_CASES[name]
    torch.manual_seed(0)
    plain = getattr(nn, name)(*args)
    layer = getattr(mixed_precision, name)(*args)
    layer.load_state_dict(plain.state_dict())
    inputs = [torch.randn(s).to(torch.bfloat16).float() for s in shapes]
    wanted = _tensors(plain(*inputs))
    for found, right in zip(_tensors(layer(*inputs)), wanted, strict=True):
        assert torch.equal(found, right)
    for found, right in zip(_tensors(layer(*(x.to(torch.bfloat16) for x in inputs))), wanted, strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), right, rtol=0.03, atol=0.03)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach()]
    return [] if value is None else [t for v in value for t in _tensors(v)]


def test_every_layer_with_parameters_is_tried() -> None:
    held = {n for n, layer in LAYERS.items() if layer.params and n not in TABLES}
    assert held - set(LAYER_CASES) == set()


@pytest.mark.parametrize("precision", LOW)
def test_training_in_low_precision_learns_as_in_float32(precision: str, tmp_path: Path) -> None:
    """And a run in f16 that is stopped goes on with its loss scale: the same bits as one that was not."""
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    losses = {}
    for name in ("f32", precision):
        (tmp_path / f"{name}.model").write_text(program(f"    epochs = 3\n    precision = {name}\n", f"return {CE}"))
        ran = tdsl("train", tmp_path / f"{name}.model", "--out", tmp_path / name, "--device", "cpu")
        assert ran.returncode == 0, ran.stderr
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        losses[name] = log[-1]["val/loss"]
    assert losses[precision] == pytest.approx(losses["f32"], rel=0.03)
    half = tmp_path / "half"
    for more in (("--epochs", "2"), ()):
        ran = tdsl("train", tmp_path / f"{precision}.model", *more, "--out", half, "--device", "cpu")
        assert ran.returncode == 0, ran.stderr
    whole = sorted((tmp_path / precision / "checkpoints").iterdir())[-1]
    again = sorted((half / "checkpoints").iterdir())[-1]
    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (whole / file).read_bytes() == (again / file).read_bytes(), file


CE = "cross_entropy(model(batch.pixels), batch.label)"


def test_conformance_gpt_trains_in_bf16(tmp_path: Path) -> None:
    shared = ROOT.parent / "shared" / "conformance"
    if not shared.is_dir():
        pytest.skip("needs the conformance programs beside the repository")
    for file in ("gpt.model", "tinyshakespeare.txt"):
        shutil.copy(shared / file, tmp_path)
    options = ("--steps", "3", "--set", "batch_size=2", "--set", "logging.every=1", "--set", "validate.every=1000")
    ran = tdsl("train", tmp_path / "gpt.model", *options, "--out", tmp_path / "run", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 3
    # The tied head starts from an embedding's wide weights: the first losses are large.
    assert all(math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"]) for line in log)
    assert log[2]["loss"] < log[0]["loss"]


def test_gradients_in_full_lie_in_memory_as_what_they_are_made_of(tmp_path: Path) -> None:
    """That of a parameter is of another dtype than the result's, which may come transposed."""
    place = (
        "module Place(D: int = 7) {{ param at: [D, D] = ones(); forward(x: float[D, D]) -> float[D, D] {{ {} }} }}\n"
    )
    program = place.replace("; ", "\n").format("return 2 * (x * 0.5 + 0.3 * at) + 1") + NETWORK.replace(
        "PRECISION", "f16"
    )
    files = emitted(pipeline.run(built(program)))
    assert "d_at = torch.empty_like(d_y, dtype=torch.float32)" in files["kernels.py"]
    assert disagreements(written(files, tmp_path), ["float16"]) == []


@pytest.mark.parametrize(
    "forward",
    [
        "forward(s: float[B, 1], x: float[B, D]) -> float[B, D] { return tanh(x * s) * x }",
        "forward(x: float[B, D], v: float[D]) -> float[B, D] { return softmax(x + v, dim=-1) * v }",
        "forward(x: float[B, D], s: float[]) -> float[B, D] { return sigmoid(x * s) + x.mean(dim=-1, keepdim=true) }",
    ],
)
def test_inputs_of_less_than_the_whole_space(forward: str, tmp_path: Path) -> None:
    """What is cast first may be smaller than what the kernel goes over."""
    run = NETWORK[NETWORK.index("data D") :].replace("PRECISION", "f16")
    network = NETWORK[: NETWORK.index("data D")]
    unit = pipeline.run(built(f"module Part(D: int = 16) {{ {forward} }}\n{network}{run}"))
    assert disagreements(written(emitted(unit), tmp_path)) == []


def test_activations_of_less_precision_take_half_the_memory() -> None:
    found = {}
    for precision in ("f32", "bf16"):
        unit = built(NETWORK.replace("PRECISION", precision))
        found[precision] = memory(unit, "net")
    assert found["bf16"].parameters == found["f32"].parameters
    assert found["f32"].activations / 2 <= found["bf16"].activations < 0.6 * found["f32"].activations
