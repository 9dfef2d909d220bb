"""`grad(y, x)`: what it computes, to any order, by kernels too; what is emitted for it, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SHARED, compiled, emitted, mistakes, python, tdsl, written
from tests.running import executed

# A network whose body fuses to one kernel, and its gradient and the gradient's gradient with respect to the input.
FIELD = """
module Field(hidden: int = 8) {
    up   = Linear(2, hidden)
    down = Linear(hidden, 1)
    forward(p: float[B, 2]) -> float[B] {
        h = up(p)
        g = sigmoid(h) * h + 0.5 * h * h
        return down(g).squeeze(-1)
    }
}
module Curvature() {
    field = Field()
    forward(p: float[B, 2]) -> (float[B], float[B, 2], float[B]) {
        u = field(p)
        du = grad(u.sum(), p)
        d2 = grad(du[:, 0].sum(), p)
        return u, du, d2[:, 0]
    }
}
"""


def field(model: nn.Module, p: Tensor) -> Tensor:
    h = model.up(p)
    found: Tensor = model.down(torch.sigmoid(h) * h + 0.5 * h * h).squeeze(-1)
    return found


def test_gradients_of_gradients_are_those_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = executed(FIELD, tmp_path).Curvature().double()
    p = torch.randn(5, 2, dtype=torch.float64)
    wanted_p = p.clone().requires_grad_()
    u = field(model.field, wanted_p)
    (du,) = torch.autograd.grad(u.sum(), wanted_p, create_graph=True)
    (d2,) = torch.autograd.grad(du[:, 0].sum(), wanted_p, create_graph=True)
    with torch.no_grad():  # as in validation
        results = model(p)
    for found, wanted in zip(results, (u, du, d2[:, 0])):
        torch.testing.assert_close(found, wanted)
    assert not p.requires_grad

    loss = u.square().sum() + (du[:, 1] - d2[:, 0]).square().sum()
    wanted_grads = torch.autograd.grad(loss, list(model.parameters()))
    u, du, d2 = model(p)
    (u.square().sum() + (du[:, 1] - d2).square().sum()).backward()
    for parameter, grad in zip(model.parameters(), wanted_grads):
        torch.testing.assert_close(parameter.grad, grad)


def test_kernels_are_differentiated_twice(tmp_path: Path) -> None:
    """In the interpreter: the first derivative by the kernel's gradient, the second through the reference."""
    folder = written(emitted(compiled(FIELD)), tmp_path)
    script = """
import sys, torch, kernels
from torch.autograd import gradcheck
from model import Curvature
torch.manual_seed(0)
model = Curvature()
p = torch.randn(7, 2, requires_grad=True)
u, du, d2 = model(p)
(u.square().sum() + du.square().sum() + d2.sum()).backward()
found = [each.clone() for each in (u, du, d2, p.grad, *(w.grad for w in model.parameters()))]
kernels.launch.use_kernels = lambda *tensors: False
p.grad = None
model.zero_grad()
u, du, d2 = model.double()(p.double())
(u.square().sum() + du.square().sum() + d2.sum()).backward()
wanted = [u, du, d2, p.grad, *(w.grad for w in model.parameters())]
for a, b in zip(found, wanted, strict=True):
    torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-5)
"""
    (folder / "check.py").write_text(script)
    done = python(folder / "check.py", interpret=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "kernels.py").read_text()
    assert "launch.reference_backward(" in text
    assert "once_differentiable" not in text


def test_a_program_without_grad_differentiates_once() -> None:
    text = emitted(compiled(FIELD.partition("module Curvature")[0]))["kernels.py"]
    assert "@once_differentiable" in text
    assert "reference_backward" not in text


def test_what_is_emitted() -> None:
    text = emitted(compiled(FIELD))["model.py"].partition("class Curvature")[2]
    assert text[text.index("    @torch") :] == (
        "    @torch.enable_grad()\n"
        "    def forward(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [B, 2] -> [B], [B, 2], [B]\n"
        "        p = nn_functions.requires_grad(p)  # [B, 2]\n"
        "        u = self.field(p)  # [B]\n"
        "        du = nn_functions.grad(u.sum(), p)  # [B, 2]\n"
        "        d2 = nn_functions.grad(du[:, 0].sum(), p)  # [B, 2]\n"
        "        return u, du, d2[:, 0]\n"
    )


def test_by_a_value_in_between_in_a_fn_and_by_a_parameter(tmp_path: Path) -> None:
    text = """
fn slope(y: float[], x: float[B, D]) -> float[B] { return (grad(y, x) ** 2).sum(dim=-1) }
module M() {
    param weight: [3] = normal()
    forward(x: float[B, 3]) -> (float[B], float[3]) {
        z = x * 2
        y = (tanh(z * weight) * z).sum()
        return slope(y, z), grad(y, weight)
    }
}
"""
    model = executed(text, tmp_path).M().double()
    x = torch.randn(4, 3, dtype=torch.float64)
    z = (x * 2).requires_grad_()
    y = (torch.tanh(z * model.weight) * z).sum()
    dz, dw = torch.autograd.grad(y, (z, model.weight))
    found = model(x)
    torch.testing.assert_close(found[0], dz.square().sum(-1))
    torch.testing.assert_close(found[1], dw)


def test_a_gradient_of_a_linear_function_is_constant(tmp_path: Path) -> None:
    """Its own gradient is zero, where PyTorch has no graph to follow."""
    text = """
module M() {
    forward(x: float[B, 3]) -> float[B, 3] {
        y = (x * 2).sum()
        return grad(grad(y, x).sum(), x)
    }
}
"""
    found = executed(text, tmp_path).M()(torch.randn(2, 3))
    assert torch.equal(found, torch.zeros(2, 3))


BODY = "module M() {\n    l = Linear(3, 3)\n    forward(x: float[B, 3], n: int[B]) -> float[B, 3] {\n%s\n    }\n}\n"


@pytest.mark.parametrize(
    ("body", "code", "message", "label", "help"),
    [
        ("return grad(l(x), x)", "E203", "`grad` differentiates a single number", "`y` is float[B, 3]", "y.sum()"),
        ("return grad(l(x).sum(), n)", "E205", "`grad` is by floating-point values", "`x` is int[B]", ".float()"),
        ("return grad(l(x).sum(), l(x))", "E202", "`grad` by a tensor that `y` is not made from", "", "from `x`"),
        ("return grad(detach(l(x)).sum(), x)", "E202", "`grad` by a tensor that `y` is not made from", "", "`detach`"),
        ("no_grad { y = l(x).sum() }\nreturn grad(y, x)", "E202", "`grad` by a tensor that", "", "`no_grad`"),
    ],
)
def test_what_is_refused(body: str, code: str, message: str, label: str, help: str) -> None:
    (found,) = mistakes(BODY % body)
    assert (found.code, found.label) == (code, label)
    assert found.message.startswith(message)
    assert found.span is not None
    assert found.span.text.startswith("grad(")
    assert help in (found.help or "")


def test_a_physics_informed_network_trains(tmp_path: Path) -> None:
    """The loss differentiates the model twice, in training, in validation and in the evaluation."""
    folder = SHARED / "conformance"
    if not (folder / "heat.model").exists():
        pytest.skip("the conformance programs are not beside this checkout")
    shutil.copy(folder / "points.csv", tmp_path)
    text = (folder / "heat.model").read_text()
    text = text.replace("return model(batch.p), batch.u", "return grad(model(batch.p).sum(), batch.p)[:, 0], batch.u")
    (tmp_path / "heat.model").write_text(text)
    done = tdsl("train", "heat.model", "--device", "cpu", "--steps", "40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    done = tdsl("evaluate", "heat.model", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_within_branches_and_loops(tmp_path: Path) -> None:
    text = """
module M() {
    l = Linear(3, 3)
    forward(x: float[B, 3]) -> (float[B, 3], float[B, 3]) {
        before = x.sum(dim=-1, keepdim=true)
        if training {
            z = tanh(x) * before
            y = (l(z) * z).sum()
            g = grad(y, z) + grad(y, x)
        } else {
            g = x
        }
        for i in range(2) { x = x - 0.1 * grad((l(x) ** 2).sum(), x) }
        return g, x
    }
}
"""
    model = executed(text, tmp_path).M().double()
    x = torch.randn(4, 3, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    z = torch.tanh(leaf) * leaf.sum(-1, keepdim=True)
    y = (model.l(z) * z).sum()
    dz, dx = torch.autograd.grad(y, (z, leaf))
    stepped = leaf
    for _ in range(2):
        (slope,) = torch.autograd.grad(model.l(stepped).square().sum(), stepped, create_graph=True)
        stepped = stepped - 0.1 * slope
    found, end = model(x)
    torch.testing.assert_close(found, dz + dx)
    torch.testing.assert_close(end, stepped)
    found, end = model.eval()(x)
    torch.testing.assert_close(found, x)
    torch.testing.assert_close(end, stepped)
