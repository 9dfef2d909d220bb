"""`no_grad`, `detach`, `if training`: what is bound inside is there after, and runs as written by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tdsl.compiler import pipeline
from tdsl.compiler.printer import dump
from tests.helpers import UNFUSED, compiled, emitted, graph_of, mistakes, python, written
from tests.running import executed, loaded, source
from tests.test_grad import BODY

TEACHER = """
module Distilled(dim: int = 4) {
    student = Linear(dim, dim)
    teacher = Linear(dim, dim)
    forward(x: float[B, dim]) -> (float[B, dim], float[B, dim]) {
        no_grad {
            wanted = teacher(x)
            soft = softmax(wanted * 0.5 + 1, dim=-1)
        }
        h = student(x)
        return h * soft, h - detach(wanted)
    }
}
"""


def test_no_grad_binds_what_follows_reads(tmp_path: Path) -> None:
    model = executed(TEACHER, tmp_path).Distilled().double()
    x = torch.randn(3, 4, dtype=torch.float64)
    product, difference = model(x)
    with torch.no_grad():
        wanted = model.teacher(x)
        soft = torch.softmax(wanted * 0.5 + 1, dim=-1)
    torch.testing.assert_close(product, model.student(x) * soft)
    torch.testing.assert_close(difference, model.student(x) - wanted)
    (product.sum() + difference.sum()).backward()
    assert model.teacher.weight.grad is None
    assert model.student.weight.grad is not None


def test_the_text_of_no_grad() -> None:
    assert source(TEACHER, "Distilled") == (
        "with torch.no_grad():\n"
        "    wanted = self.teacher(x)  # [B, dim]\n"
        "    soft = kernels.add_softmax(wanted)  # [B, dim]\n"
        "h = self.student(x)  # [B, dim]\n"
        "return h * soft, h - wanted.detach()\n"
    )


BRANCHES = """
module Noisy(dim: int = 4, p: float = 0.5) {
    up = Linear(dim, dim)
    forward(x: float[B, dim]) -> (float[B, dim], float[B, dim], float[B, dim]) {
        h = up(x)
        old = h * 2
        if training {
            h = h + 1
            k = h * old
        } else if dim > 2 {
            k = h - old
        } else {
            k = old
        }
        scale = 3.0 if training else 0.25
        gate = sigmoid(h) if not training else k
        return h * scale, k, gate
    }
}
"""


@pytest.mark.parametrize("training", [True, False])
def test_branches_compute_what_is_written(training: bool, tmp_path: Path) -> None:
    model = executed(BRANCHES, tmp_path).Noisy().double().train(training)
    x = torch.randn(3, 4, dtype=torch.float64)
    h = model.up(x)
    old = h * 2
    if training:
        h = h + 1
        k = h * old
        wanted = (h * 3.0, k, k)
    else:
        k = h - old
        wanted = (h * 0.25, k, torch.sigmoid(h))
    for found, expected in zip(model(x), wanted, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_branch_may_return_and_what_follows_belongs_to_the_other(tmp_path: Path) -> None:
    text = """
fn noisy(x: float[B, D]) -> float[B, D] {
    if not training { return x }
    return x * 2
}
module M() {
    l = Linear(3, 3)
    forward(x: float[B, 3]) -> float[B, 3] {
        y = noisy(x)
        if training {
            z = l(y)
            return relu(z)
        }
        w = y + 1
        return w * w
    }
}
"""
    model = executed(text, tmp_path).M()
    x = torch.randn(2, 3)
    torch.testing.assert_close(model(x), F.relu(model.l(x * 2)))
    torch.testing.assert_close(model.eval()(x), (x + 1) ** 2)


def test_branches_nest_and_hold_lists_and_lose_what_nothing_reads(tmp_path: Path) -> None:
    text = """
module M() {
    layers = [Linear(3, 3) for i in range(2)]
    drop   = Dropout(0.5)
    forward(x: float[B, 3]) -> float[B, 3] {
        unused = x * 5
        if training {
            x = x |> layers
            no_grad { shift, unused = x * 2, x + 100 }
            x = x + shift
        } else {
            for i in range(2) { x = layers[i](x) + i }
            unused = x
        }
        a, b = x.chunk(3, dim=-1)[0], x[:, 1:]
        return cat([a, b], dim=-1) if training and true else x
    }
}
"""
    model = executed(text, tmp_path).M()
    x = torch.randn(2, 3)
    y = model.layers[1](model.layers[0](x))
    torch.testing.assert_close(model(x), y + 2 * y)
    torch.testing.assert_close(model.eval()(x), model.layers[1](model.layers[0](x) + 0) + 1)
    assert "100" not in source(text, "M")


def test_a_loss_branches_on_the_model() -> None:
    from tdsl.compiler.emit.train import emit_train
    from tests.test_emit_train import unit_of

    loss = "y = model(batch.pixels)\n        if training { y = y * 2 }\n        return cross_entropy(y, batch.label)"
    unit = unit_of("    epochs = 1", loss)
    text = emit_train(unit, unit.runs["digits"])
    assert "    if model.training:\n        y = y * 2  # [B, 10]\n    return F.cross_entropy(y, batch.label)\n" in text


def test_kernels_within_branches(tmp_path: Path) -> None:
    """Groups of a region are kernels like others, checked in the interpreter against float64."""
    from tests.helpers import disagreements

    text = """
module M(D: int = 33) {
    forward(x: float[B, D], y: float[B, D]) -> float[B, D] {
        if training { z = gelu(x) * y + 1 } else { z = layer_norm(x * y, D) }
        no_grad { s = sigmoid(z) * z }
        return s * x + y
    }
}
"""
    folder = written(emitted(compiled(text)), tmp_path)
    assert (folder / "kernels.py").read_text().count("@triton.jit") >= 6
    assert disagreements(folder, ["float32"]) == []
    assert python("-c", "import model", cwd=folder).returncode == 0


def test_the_printer_shows_regions() -> None:
    text = dump(graph_of(compiled(TEACHER), "Distilled"))
    assert "  %wanted: float[B, dim], %soft: float[B, dim] = no_grad(%x, @teacher.weight, @teacher.bias)\n" in text
    assert "    (%x: float[B, dim], @teacher.weight: float[dim, dim], @teacher.bias: float[dim]) {\n" in text


@pytest.mark.parametrize(
    ("body", "code", "message", "caret", "help"),
    [
        ("if training { y = x }\nreturn y", "E110", "`y` is bound in one branch of `if training` only", "y", "branch"),
        (
            "if training { y = x } else { y = x.sum() }\nreturn y",
            "E110",
            "`y` is a tensor float[B, 3] while training, and a tensor float[] otherwise",
            "y",
            "one type",
        ),
        ("if training { return x } else { y = x }", "E207", "one branch of `if training` returns", "if training", ""),
        (
            "if training { return x }\nreturn x.sum(dim=-1)",
            "E207",
            "both branches return values of the same types",
            "return x",
            "",
        ),
        (
            "if x.sum() > 0 { x = x + 1 }\nreturn x",
            "E208",
            "a condition is a compile-time value",
            "x.sum() > 0",
            "where",
        ),
        ("y = x if training else 2\nreturn x", "E203", "both sides of `if training`", "x if training else 2", ""),
        ("y = training + 1\nreturn x", "E201", "`+` does not apply to `training`", "training", ""),
        ("if training { track s = x.sum() }\nreturn x", "E201", "`track` in a branch", "if training", "after"),
        ("no_grad { y = nosuch(x) }\nz = y + 1\nreturn z", "E110", "unknown name `nosuch`", "nosuch", ""),
    ],
)
def test_mistakes(body: str, code: str, message: str, caret: str, help: str) -> None:
    (found,) = mistakes(BODY % body)
    assert found.code == code
    assert found.message.startswith(message)
    assert found.span is not None
    assert found.span.text.startswith(caret)
    assert help in (found.help or "")


def test_training_is_asked_for_where_the_model_runs() -> None:
    (found,) = mistakes("module M() {\n    l = Dropout(0.1 if training else 0.2)\n}\n")
    assert (found.code, found.message) == ("E208", "`training` is only known when the model runs")
    assert found.span is not None
    assert found.span.line == 2
    assert found.help == "ask for it in `forward`"


class _Random:
    """A body at random, as this language and as Python have it; every name is bound before it is read."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.model: list[str] = []
        self.python: list[str] = []

    def body(self, bound: set[str], depth: int, indent: int) -> set[str]:
        for _ in range(self.rng.randint(1, 4)):
            kind = self.rng.choice(["assign", "assign", "assign", "branch", "no_grad"]) if depth else "assign"
            bound = getattr(self, kind)(bound, depth, indent)
        return bound

    def line(self, model: str, python: str, indent: int) -> None:
        self.model.append("    " * indent + model)
        self.python.append("    " * indent + python)

    def expression(self, bound: set[str]) -> str:
        a, b = (self.rng.choice(sorted(bound)) for _ in range(2))
        return self.rng.choice([f"{a} + {b}", f"{a} * 0.5 - {b}", f"l({a})", f"tanh({a})", f"k({a} - {b}) + {a}", a])

    def assign(self, bound: set[str], depth: int, indent: int) -> set[str]:
        name = self.rng.choice("abcx")
        text = self.expression(bound)
        if self.rng.random() < 0.2:
            other = self.expression(bound)
            self.line(f"{name} = {text} if training else {other}", f"{name} = {text} if training else {other}", indent)
        else:
            self.line(f"{name} = {text}", f"{name} = {text}", indent)
        return bound | {name}

    def branch(self, bound: set[str], depth: int, indent: int) -> set[str]:
        self.line("if training {", "if training:", indent)
        then = self.body(bound, depth - 1, indent + 1)
        if self.rng.random() < 0.3:
            self.line("}", "pass", indent)
            return bound & then
        self.model.append("    " * indent + "} else {")
        self.python.append("    " * indent + "else:")
        otherwise = self.body(bound, depth - 1, indent + 1)
        self.line("}", "pass", indent)
        return then & otherwise

    def no_grad(self, bound: set[str], depth: int, indent: int) -> set[str]:
        self.line("no_grad {", "with torch.no_grad():", indent)
        found = self.body(bound, depth - 1, indent + 1)
        self.line("}", "pass", indent)
        return found


def _program(seed: int) -> tuple[str, str]:
    made = _Random(seed)
    bound = sorted(made.body({"x"}, 3, 2))
    results = " + ".join(f"{i} * {name}" for i, name in enumerate(bound, 1))
    head = "module M() {\n    l = Linear(3, 3)\n    k = Linear(3, 3)\n    forward(x: float[B, 3]) -> float[B, 3] {\n"
    model = "\n".join([head.rstrip("\n"), *made.model, f"        return {results}", "    }", "}\n"])
    lines = [*made.python, f"        return {results}"]
    return model, "\n".join(["def run(x, l, k, training):", *lines]).replace("tanh", "torch.tanh")


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_random_bodies_compute_what_python_does(start: int, tmp_path: Path) -> None:
    """Values and gradients, fused and not, in both modes."""
    for seed in range(start, start + 20):
        text, oracle = _program(seed)
        space: dict[str, Any] = {"torch": torch}
        exec(oracle, space)
        for passes in (pipeline.PASSES, UNFUSED):
            model = loaded(written(emitted(compiled(text, passes)), tmp_path / f"{seed}{len(passes)}")).M().double()
            for training in (True, False):
                _compare(model.train(training), space["run"], training, text)


def _compare(model: Any, oracle: Any, training: bool, text: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    found, wanted = model(x), oracle(x, model.l, model.k, training)
    torch.testing.assert_close(found, wanted, msg=text)
    inputs = (x, *model.parameters())
    if not wanted.requires_grad:
        assert not found.requires_grad, text
        return
    grads = (torch.autograd.grad(y.sum(), inputs, allow_unused=True) for y in (found, wanted))
    for given, *pair in zip(inputs, *grads, strict=True):
        # No gradient is a gradient of zeros.
        ours, theirs = (torch.zeros_like(given) if grad is None else grad for grad in pair)
        torch.testing.assert_close(ours, theirs, msg=text)
