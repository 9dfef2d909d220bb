"""Activation checkpointing: modules that compute again in the backward, against the same program without it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.emit.project import Options, emit
from tdsl.compiler.emit.project import write as emit_files
from tdsl.compiler.emit.train import emit_train
from tdsl.compiler.explain.compare import write
from tdsl.compiler.memory import memory
from tdsl.compiler.recomputation import recomputed
from tdsl.compiler.trainable import unsupported
from tdsl.runtime import launch, tracking
from tdsl.runtime.activations import recompute
from tdsl.runtime.run import Failure
from tests import rank_runs
from tests.helpers import ROOT, built, compiled, emitted, python, written
from tests.running import executed
from tests.training_runs import finish, logged

EXAMPLES = ROOT / "examples"
NET = """
module RMS(dim: int) {
    param weight: [dim] = ones()
    forward(x: float[B, dim]) -> float[B, dim] { return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 1e-6) * weight }
}
module Block(dim: int) {
    norm  = RMS(dim)
    up    = Linear(dim, 4 * dim)
    down  = Linear(4 * dim, dim)
    batch = BatchNorm1d(dim)
    forward(x: float[B, dim]) -> float[B, dim] {
        h = dropout(down(dropout(gelu(up(norm(x))), 0.2)), 0.1)
        track size = h.abs().mean()
        return x + batch(h)
    }
}
module Net(dim: int = 32, layers: int = 3) {
    stem   = Linear(64, dim)
    blocks = [Block(dim) for i in range(layers)]
    tail   = Sequential(Linear(dim, dim), Tanh(), Linear(dim, dim))
    head   = Linear(dim, 10)
    forward(x: float[B, 64]) -> float[B, 10] {
        h = stem(x)
        for block in blocks {
            h = block(h)
        }
        return head(tail(h))
    }
}
"""
RUN = """
data Digits {
    source = csv("data/digits.csv")
    split  = random(train=0.7, val=0.15, test=0.15, seed=0)
    field pixels: float[64] = columns("p*") / 16
    field label:  int[]     = column("label")
}
train digits {
    model = Net()
    data  = Digits
    loss(batch) { return cross_entropy(model(batch.pixels), batch.label) }
    optimizer  = AdamW(lr=3e-3)
    steps      = 6
    batch_size = 32
    validate { every = 3 }
    logging { every = 1 }
    MORE
}
"""
AGAIN = 'activation_checkpointing = ["blocks.*", "tail"]'


def unit_of(more: str = "", net: str = NET) -> Unit:
    return built(net + RUN.replace("MORE", more), EXAMPLES / "program.model")


# What is computed ----------------------------------------------------------------------------------------------------

Step = tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]


def steps(model: nn.Module, count: int) -> list[Step]:
    """Gradients, buffers and tracked values of steps, each of two parts."""
    torch.manual_seed(1)
    found = []
    for _ in range(count):
        tracked = {}
        for part in torch.randn(2, 8, 64):
            tracking.start()
            loss = model(part).square().mean()
            tracked = tracking.collect()
            loss.backward()
            assert not tracking.collect(), "what is computed again is not tracked again"
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((gradients, {k: v.clone() for k, v in model.named_buffers()}, tracked))
        tracked["next"] = torch.rand(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    return found


def assert_same(found: list[Step], expected: list[Step]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine[0]) == len(theirs[0]) > 10
        assert all(torch.equal(a, b) for a, b in zip(mine[0], theirs[0], strict=True))
        for i in (1, 2):
            assert mine[i].keys() == theirs[i].keys()
            assert all(torch.equal(mine[i][name], theirs[i][name]) for name in mine[i])
    assert int(found[-1][1]["blocks.0.batch.num_batches_tracked"]) == 2 * len(found)


def checked(model: nn.Module, calls: list[str], count: int = 3) -> None:
    """The same steps with and without; `calls` tells what of a block was called in the last forward and backward."""
    plain = copy.deepcopy(model)
    names = list(model.state_dict())
    recompute({"model": model}, "blocks.*", "tail")
    assert list(model.state_dict()) == names
    model.blocks[0].up.register_forward_hook(lambda *_: calls.append("up"))  # type: ignore[index, union-attr]
    assert_same(steps(model, count), steps(plain, count))


def test_values_gradients_and_statistics_are_those_of_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, calls = executed(NET, tmp_path).Net(), []
    checked(model, calls)
    assert len(calls) == 2 * 2 * 3
    model(torch.randn(4, 64)).sum().backward()
    with torch.no_grad():
        model(torch.randn(4, 64))
    assert len(calls) == 12 + 2 + 1


def test_kernels_draw_the_same_numbers_again(tmp_path: Path) -> None:
    folder = written(emitted(compiled(NET)), tmp_path)
    ran = python("-m", "tests.test_activations", folder, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.split() == ["kernels"]


def _in_interpreter(folder: Path) -> None:
    from tests.running import loaded

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if launch.use_kernels(torch.zeros(2)):
        print("kernels")
    checked(loaded(folder).Net(dim=16, layers=1), [], 1)


def test_copies_of_a_model_compute_with_what_is_theirs(tmp_path: Path) -> None:
    """As the averaged model of an EMA does."""
    model = executed(NET, tmp_path).Net()
    recompute({"model": model}, "blocks.*")
    other = copy.deepcopy(model).eval()
    x = torch.randn(4, 64)
    before = other(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(other(x), before)
    other(x).sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())


class Counting(nn.Module):
    """A module of Python's whose buffer changes what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return torch.sin(x * self.calls) * x


def test_what_reads_its_buffers_reads_those_of_the_forward() -> None:
    found = []
    for again in (False, True):
        model = nn.Sequential(Counting())
        if again:
            recompute({"model": model}, "0")
        x = torch.linspace(0, 1, 5, requires_grad=True)
        y = model(x).sum() + model(x).sum()
        (dx,) = torch.autograd.grad(y, x, create_graph=True)
        found.append((dx, *torch.autograd.grad(dx.sum(), x), model[0].calls))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[1][-1] == 2


class Squared(torch.autograd.Function):
    """As an emitted kernel's, which is tried before its first call on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class Trying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tried = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.tried:
            assert launch._builds(Squared.apply, "squared", (x,))
        self.tried = True
        return Squared.apply(x)


def test_a_kernel_may_be_tried_in_the_forward_alone() -> None:
    model = nn.Sequential(Trying())
    recompute({"model": model}, "0")
    x = torch.tensor([3.0], requires_grad=True)
    with patch.object(torch.cuda, "synchronize"):
        model(x).backward()
    assert x.grad == 6.0


GRAD = """
module Slope(dim: int = 64) {
    up  = Linear(dim, 32)
    out = Linear(32, 1)
    forward(x: float[B, dim]) -> float[B, dim] {
        y = out(tanh(up(x)))
        return grad(y.sum(), x)
    }
}
module Net() {
    inner = Slope()
    head  = Linear(64, 10)
    forward(x: float[B, 64]) -> float[B, 10] { return head(inner(x)) }
}
"""


def test_a_gradient_within_is_computed_again_with_its_module(tmp_path: Path) -> None:
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = executed(GRAD, tmp_path).Net()
        if again:
            recompute({"model": model}, "inner")
        x = torch.randn(5, 64, requires_grad=True)
        y = model(x).square().sum()
        (dx,) = torch.autograd.grad(y, x, create_graph=True)
        dx.square().sum().backward()
        found.append([y, dx, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) >= 6
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_whole_runs_log_and_keep_the_same(tmp_path: Path) -> None:
    settings = "precision = bf16, accumulate = 2, ema = EMA(decay=0.9)\n"
    for name, more in (("plain", ""), ("again", AGAIN)):
        unit = pipeline.run(unit_of(settings + more))
        emit_files(emit(unit, Options("digits", root=str(EXAMPLES))), tmp_path / "emitted" / name)
        finish(tmp_path / "emitted" / name, tmp_path / name)
    assert 'activations.recompute(models, "blocks.*", "tail")' in (tmp_path / "emitted/again/train.py").read_text()
    assert len(logged(tmp_path / "plain")) == 6
    assert logged(tmp_path / "plain") == logged(tmp_path / "again")
    plain, again = (load_file(tmp_path / name / "checkpoints/step-6/model.safetensors") for name in ("plain", "again"))
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_compute_again_what_each_has_computed(strategy: str, tmp_path: Path) -> None:
    """Batch norms, which ask the other process, and parameters that are gathered for a block come twice."""
    for name, more in (("plain", ""), ("again", AGAIN)):
        unit = pipeline.run(unit_of(f"accumulate = 2\n    distributed = {strategy}()\n    {more}"))
        emit_files(emit(unit, Options("digits", root=str(EXAMPLES))), tmp_path / "emitted" / name)
        rank_runs.finish(tmp_path / "emitted" / name, tmp_path / name)
    assert len(logged(tmp_path / "plain")) == 6
    assert logged(tmp_path / "plain") == logged(tmp_path / "again")


# Memory --------------------------------------------------------------------------------------------------------------


def saved(model: nn.Module, x: Tensor) -> int:
    """The bytes that autograd keeps, parameters aside; each storage once."""
    found: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(t: Tensor) -> Tensor:
        found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        y = model(x)
    del y
    return sum(size for place, size in found.items() if place not in own)


def test_a_block_keeps_its_input_alone(tmp_path: Path) -> None:
    model, x = executed(NET, tmp_path).Net(dim=128), torch.randn(64, 64)
    whole = saved(model, x)
    recompute({"model": model}, "blocks.*", "tail")
    assert saved(model, x) == 4 * (x.numel() + 5 * 64 * 128)
    assert whole > 9 * saved(model, x)


def test_the_plan_knows_what_is_kept(tmp_path: Path) -> None:
    unit, plain = unit_of(f"precision = bf16\n    {AGAIN}"), memory(unit_of("precision = bf16"), "digits")
    folders = write(unit, "digits", EXAMPLES / "program.model", tmp_path)
    ran = python("-W", "ignore", "-m", "tdsl.runtime.counting.memory", folders["emitted"])
    assert ran.returncode == 0, ran.stderr
    found = memory(unit, "digits")
    assert found.activations == pytest.approx(json.loads(ran.stdout)["kept"], rel=0.05)
    assert found.activations + found.recomputed < plain.activations
    # A block is the largest of what is computed again: one of three, and what is around them is less.
    assert plain.activations / 6 < found.recomputed < plain.activations / 3
    assert found.copies == plain.copies


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ('["blocks.*"]', "model.blocks.0 model.blocks.1 model.blocks.2"),
        ('["blocks"]', "model.blocks.0 model.blocks.1 model.blocks.2"),
        ('["blocks.[12]", "tail"]', "model.blocks.1 model.blocks.2 model.tail"),
        ('["*.up"]', "model.blocks.0.up model.blocks.1.up model.blocks.2.up"),
        ('["*"]', "model.blocks.0 model.blocks.1 model.blocks.2 model.head model.stem model.tail"),
    ],
)
def test_the_compiler_names_the_modules_that_the_run_finds(patterns: str, expected: str, tmp_path: Path) -> None:
    unit = unit_of(f"activation_checkpointing = {patterns}")
    assert not unsupported(unit, unit.runs["digits"])
    assert sorted(recomputed(unit, unit.runs["digits"])) == expected.split()
    model: Any = executed(NET, tmp_path).Net()
    recompute({"model": model}, *json.loads(patterns))
    found = [f"model.{name}" for name, module in model.named_modules() if "forward" in vars(module)]
    assert sorted(found) == expected.split()


@pytest.mark.parametrize(
    ("pattern", "message", "help"),
    [
        ("block.*", '"block.*" matches no module', 'did you mean "blocks.*"?'),
        ("encoder", '"encoder" matches no module', "the modules are stem, blocks, tail, head"),
        ("*.norm", 'what "*.norm" names is computed within the module around it', "name a module that"),
        ("head.weight", '"head.weight" matches no module', "the modules are"),
        ("model.blocks", '"model.blocks" matches no module', "the modules are"),
    ],
)
def test_a_pattern_that_names_nothing_is_an_error_where_it_stands(pattern: str, message: str, help: str) -> None:
    unit = unit_of(f'activation_checkpointing = ["blocks.0", "{pattern}"]')
    (found,) = unsupported(unit, unit.runs["digits"])
    assert (found.code, found.message) == ("E336", message)
    assert found.span is not None
    assert found.span.text == f'"{pattern}"'
    assert found.help is not None
    assert found.help.startswith(help)


def test_models_beside_the_first_have_their_name_in_front() -> None:
    unit = unit_of('teacher = Net(layers=1)\n    activation_checkpointing = ["teacher.blocks.*"]')
    assert recomputed(unit, unit.runs["digits"]) == {"teacher.blocks.0"}
    assert 'activations.recompute(models, "teacher.blocks.*")' in emit_train(unit, unit.runs["digits"])


def test_at_run_time_a_pattern_that_names_nothing_is_told() -> None:
    with pytest.raises(Failure, match=r'"1\.\*" matches no module'):
        recompute({"model": nn.Sequential(nn.Linear(2, 2))}, "0", "1.*")


if __name__ == "__main__":
    import sys

    _in_interpreter(Path(sys.argv[1]))
