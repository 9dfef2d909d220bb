"""Cross-entropy: every option against float64 in Triton's interpreter, PyTorch's corners, and what is recognised."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler import pipeline
from tdsl.compiler.ir import Structure
from tests.helpers import ROOT, compiled, disagreements, emitted, graph_of, python, written
from tests.vocabularies import program


def module(name: str, body: str, inputs: str = "x: float[B, C], t: int[B]", result: str = "float[]") -> str:
    lines = "".join(f"        {line.strip()}\n" for line in body.strip().splitlines())
    return f"module {name}() {{\n    forward({inputs}) -> {result} {{\n{lines}    }}\n}}\n\n"


def structures(body: str, inputs: str = "x: float[B, C], t: int[B]", result: str = "float[]") -> list[Structure]:
    """The structures of the groups that a module becomes."""
    graph = graph_of(compiled(module("M", body, inputs, result)), "M")
    groups = (node.group for node in graph.nodes if node.group is not None)
    return [group.structure for group in groups if group.structure is not None]


# Against float64 -----------------------------------------------------------------------------------------------------


Option = tuple[str, bool, float, int | None]
ALL: list[Option] = [*product(("mean", "sum", "none"), (False, True), (0, 0.1), (None, 3))]
# With so many classes the forward makes the gradient.
SOME: list[Option] = [*product(("mean", "sum"), (False, True), (0, 0.1), (3,))]


def _options(classes: int, options: Sequence[Option]) -> str:
    """A module for each combination of options."""
    found = []
    for i, (reduction, weighted, smoothing, ignored) in enumerate(options):
        given = {"weight": "w" if weighted else "", "label_smoothing": smoothing, "ignore_index": ignored}
        listed = "".join(f", {name}={value}" for name, value in given.items() if value)
        inputs = f"x: float[B, {classes}], t: int[B]" + (f", w: float[{classes}]" if weighted else "")
        result = "float[B]" if reduction == "none" else "float[]"
        body = f'return cross_entropy(x, t{listed}, reduction="{reduction}")'
        found.append(module(f"M{i}", body, inputs, result))
    return "".join(found)


@pytest.mark.parametrize(("classes", "options"), [(13, ALL), (5000, SOME)])
def test_options_agree_with_float64(classes: int, options: Sequence[Option], tmp_path: Path) -> None:
    unit = compiled(_options(classes, options))
    assert len(pipeline.groups(unit)) == len(options)
    assert disagreements(written(emitted(unit), tmp_path)) == []


WRITTEN_OUT = [
    ("return -log_softmax(x, dim=-1).gather(-1, t.unsqueeze(-1)).mean()", "float[]", ("mean", False)),
    ("return mean(-log_softmax(x, dim=1).gather(1, t[:, none]))", "float[]", ("mean", False)),
    ("return -sum(log_softmax(x, dim=1).gather(1, t[..., none]).squeeze(1))", "float[]", ("sum", False)),
    ("return -log_softmax(x, dim=1).gather(1, t[..., none])", "float[B, 1]", ("none", False)),
    ("return -log_softmax(x, dim=-1).gather(1, t[..., none]).squeeze(-1)", "float[B]", ("none", False)),
    ("return nll_loss(log_softmax(x, dim=1), t)", "float[]", ("mean", False)),
    ("return (logsumexp(x, -1) - x.gather(-1, t[:, none]).squeeze(-1)).mean()", "float[]", ("mean", True)),
    ("return mean(logsumexp(x, 1, keepdim=true) - x.gather(1, t[:, none]))", "float[]", ("mean", True)),
    ("return -(x.gather(1, t[:, none]).squeeze(-1) - logsumexp(x, -1)).sum()", "float[]", ("sum", True)),
    ("return logsumexp(x, -1) - x.gather(-1, t[:, none]).squeeze(-1)", "float[B]", ("none", True)),
]
MOVED = [
    "return cross_entropy(x.transpose(1, 2), t)",
    "return cross_entropy(x.T, t, label_smoothing=0.1)",
    "return cross_entropy(x.permute(0, 2, 1), t, ignore_index=3)",
    "return cross_entropy(x.movedim(-1, 1), t)",
    'return cross_entropy(rearrange(x, "b t c -> b c t"), t)',
    "return nll_loss(log_softmax(x, -1).transpose(1, 2), t)",
]
TOKENS = "x: float[B, T, C], t: int[B, T]"


@pytest.mark.parametrize(("body", "result", "expected"), WRITTEN_OUT)
def test_written_out_losses_are_recognised(body: str, result: str, expected: tuple[str, bool]) -> None:
    (found,) = structures(body, result=result)
    assert found.template == "cross_entropy"
    assert (found.options["reduction"], found.options["infinite"]) == expected


@pytest.mark.parametrize("body", MOVED)
def test_classes_are_read_where_they_were(body: str) -> None:
    (found,) = structures(body, TOKENS)
    assert [str(size) for size in found.roles["scores"].type.shape] == ["B", "T", "C"]


def test_what_is_recognised_agrees_with_float64(tmp_path: Path) -> None:
    """Infinite scores too: a loss by `logsumexp` is infinite where `cross_entropy` is NaN."""
    texts = [module(f"W{i}", body, result=result) for i, (body, result, _) in enumerate(WRITTEN_OUT)]
    texts += [module(f"V{i}", body, TOKENS) for i, body in enumerate(MOVED)]
    unit = compiled("".join(texts))
    # What is rearranged is transposed.
    assert len(pipeline.groups(unit)) == len(texts) - 1
    assert disagreements(written(emitted(unit), tmp_path)) == []


OTHERWISE = {
    "probabilities": ("return cross_entropy(x, y)", "x: float[B, C], y: float[B, C]"),
    "classes in the middle": ("return cross_entropy(x, t)", "x: float[B, C, T], t: int[B, T]"),
    "rows in another order": (
        "return cross_entropy(x.transpose(1, 3), t)", "x: float[B, H, W, C], t: int[B, W, H]",
    ),
    "log-probabilities that are read again": (
        "p = log_softmax(x, dim=1)\nreturn nll_loss(p, t) + p.mean()", "x: float[B, C], t: int[B]",
    ),
    "softmax over rows": ("return nll_loss(log_softmax(x, dim=0), t)", "x: float[B, C], t: int[B]"),
    "the logarithm of a probability": (
        "return log_softmax(x, dim=1).gather(1, t[:, none]).mean()", "x: float[B, C], t: int[B]",
    ),
    "labels of fewer rows": (
        "return -log_softmax(x, dim=1).gather(1, t[:, none]).mean()", "x: float[12, C], t: int[7]",
    ),
    "several classes a row": ("return -log_softmax(x, dim=1).gather(1, t).mean()", "x: float[B, C], t: int[B, 1]"),
    "differences of all rows": (
        "return mean(logsumexp(x, 1) - x.gather(1, t[:, none]))", "x: float[B, C], t: int[B]",
    ),
    "another tensor's sum": (
        "return mean(logsumexp(2 * x, 1) - x.gather(1, t[:, none]).squeeze(1))", "x: float[B, C], t: int[B]",
    ),
    "double precision": ("return cross_entropy(x, t).float()", "x: f64[B, C], t: int[B]"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_means_something_else_is_left_to_pytorch(name: str) -> None:
    assert structures(*OTHERWISE[name]) == []


def test_weights_that_are_learned_are_left_to_pytorch() -> None:
    """PyTorch refuses them."""
    text = "module M() {\n    param w: [4] = ones()\n    buffer v: [4] = ones()\n    forward(x: float[B, 4], t: int[B])"
    for weight, count in (("w", 0), ("exp(w)", 0), ("v", 1), ("tensor([1.0, 2.0, 3.0, 4.0])", 1)):
        unit = compiled(f"{text} -> float[] {{\n        return cross_entropy(x, t, weight={weight})\n    }}\n}}\n")
        assert sum(group.structure is not None for group in pipeline.groups(unit)) == count


def test_a_program_that_differentiates_gradients_has_no_such_kernel() -> None:
    body = "y = cross_entropy(x, t)\nreturn y + grad(y, x).square().sum()"
    assert structures(body) == []


# PyTorch's corners ---------------------------------------------------------------------------------------------------

KERNELS = {
    "mean": 'return cross_entropy(x, t, reduction="mean")',
    "total": 'return cross_entropy(x, t, reduction="sum")',
    "each": 'return cross_entropy(x, t, reduction="none")',
    "written": "return -log_softmax(x, dim=1).gather(1, t[:, none]).squeeze(1).mean()",
}


def test_corners(tmp_path: Path) -> None:
    """In a process of its own, in the interpreter: see `_corners`."""
    for classes, name in ((12, "few"), (5000, "many")):
        text = "".join(
            module(
                key.capitalize(), body, f"x: float[B, {classes}], t: int[B]", "float[B]" if key == "each" else "float[]"
            )
            for key, body in KERNELS.items()
        )
        unit = compiled(text)
        names = [group.name for group in pipeline.groups(unit)]
        files = emitted(unit) | {"names.json": json.dumps(dict(zip(KERNELS, names, strict=True)))}
        written(files, tmp_path / name)
    ran = python("-m", "tests.test_cross_entropy", tmp_path, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]


def _same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


def _corners(folder: Path) -> None:
    for name in ("few", "many"):
        from tdsl.runtime.verify import load

        kernels = load(folder / name / "kernels.py")
        names = json.loads((folder / name / "names.json").read_text())
        functions = {key: getattr(kernels, value) for key, value in names.items()}
        _ignored(functions)
        _unknown(functions)
        _layouts(functions)
        _handed_in(functions)
        _twice(functions["mean"], name)
        _unwatched(functions["mean"], kernels)


def _gradients(function: object, x: Tensor, t: Tensor, by: float = 1.0) -> tuple[Tensor, Tensor]:
    assert callable(function)
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = function(leaf, t)
    (loss.sum() * by).backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


REDUCTIONS = {"mean": "mean", "total": "sum", "each": "none"}


def _agree(functions: dict[str, object], x: Tensor, t: Tensor, by: float = 1.0) -> None:
    for key, reduction in REDUCTIONS.items():
        found = _gradients(functions[key], x, t, by)
        wanted = _gradients(lambda a, b, r=reduction: F.cross_entropy(a, b, reduction=r), x, t, by)
        for a, b in zip(found, wanted, strict=True):
            _same(a, b)


def _ignored(functions: dict[str, object]) -> None:
    """Some labels, all labels, no rows; what is NaN in an ignored row."""
    for rows, classes in ((700, 12), (9, 5000)):
        x = torch.randn(rows, classes)
        t = torch.randint(0, classes, (rows,))
        t[::3] = -100
        _agree(functions, x, t)
        _agree(functions, x[:5], torch.full((5,), -100))
        _agree(functions, x[:0], t[:0])
        x[3, 4], x[7, 1], x[6, 2] = float("nan"), float("inf"), float("-inf")
        _agree(functions, x[:9], t[:9])


def _unknown(functions: dict[str, object]) -> None:
    """Labels that are no classes: NaN, not what lies beside the scores. PyTorch refuses them on the CPU."""
    x = torch.randn(4, 12)
    for label in (12, -1, -99, 1 << 40, -(1 << 40)):
        t = torch.tensor([1, label, 2, 3])
        for key, function in functions.items():
            loss, gradient = _gradients(function, x, t)
            assert loss[1].isnan() if key == "each" else loss.isnan()
            assert gradient[1].isnan().all()
            if key == "each":
                assert loss[[0, 2, 3]].isfinite().all()
    loss, _ = _gradients(functions["written"], x, torch.tensor([1, -100, 2, 3]))
    assert loss.isnan()


def _layouts(functions: dict[str, object]) -> None:
    """Scores and labels of any memory layout, bytes as labels, one row without a batch."""
    wide = torch.randn(9, 24)
    t = torch.randint(0, 12, (18,))
    for x in (wide[:, ::2], wide[:, :12], wide[:, 5:17], torch.randn(12, 9).T, wide[:1, :12].expand(9, 12)):
        _agree(functions, x, t[::2])
        _agree(functions, x, t[:1].expand(9))
        _agree(functions, x, t[:9].to(torch.uint8))
    _agree(functions, wide[0, :12], t[0])


def _handed_in(functions: dict[str, object]) -> None:
    """Gradients of the loss other than 1, expanded ones among them."""
    x, t = torch.randn(5, 12), torch.randint(0, 12, (5,))
    for by in (0.0, 1.0, -2.5, float("nan")):
        _agree(functions, x, t, by)


def _twice(function: object, name: str) -> None:
    """Bit for bit; and a second backward, where the first has changed what it would read, is refused."""
    assert callable(function)
    x, t = torch.randn(300, 12), torch.randint(0, 12, (300,))
    first, second = (_gradients(function, x, t, 3.0) for _ in range(2))
    assert all(map(torch.equal, first, second))
    leaf = x.clone().requires_grad_()
    loss = function(leaf, t)
    (g,) = torch.autograd.grad(loss, leaf, torch.tensor(2.0), retain_graph=True)
    kept = g.clone()
    if name == "many":
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(loss, leaf, torch.tensor(2.0))
    else:
        (again,) = torch.autograd.grad(loss, leaf, torch.tensor(2.0))
        assert torch.equal(again, kept)


def _unwatched(function: object, kernels: object) -> None:
    """Without gradients none is written."""
    assert callable(function)
    x, t = torch.randn(5, 5000), torch.randint(0, 5000, (5,))
    before = x.clone()
    with torch.no_grad():
        found = function(x, t)
    _same(found, F.cross_entropy(x, t))
    assert torch.equal(x, before)


# Text, and ahead of time ---------------------------------------------------------------------------------------------


def test_many_classes_are_read_once() -> None:
    """The forward writes the gradient; in float16, whose gradients need a scale that comes later, the backward does."""
    inputs = "x: float[B, 5000], t: int[B]"
    text = emitted(compiled(module("M", KERNELS["mean"], inputs)))["kernels.py"]
    assert text.count("@triton.jit") == 3
    assert "_cross_entropy_scale" in text
    assert "_cross_entropy_backward" not in text
    text = emitted(compiled(module("M", KERNELS["each"], inputs, "float[B]")))["kernels.py"]
    assert "_cross_entropy_backward" in text
    assert "_cross_entropy_scale" not in text


@pytest.mark.parametrize(("precision", "late"), [("bf16", False), ("f16", True)])
def test_gradients_in_float16_wait_for_their_scale(precision: str, late: bool) -> None:
    text = emitted(compiled(program(precision=precision, classes=5000)))["kernels.py"]
    assert ("_cross_entropy_backward" in text) is late


SIZES = {
    "few": module("Few", KERNELS["mean"], "x: float[B, 10], t: int[B]"),
    "odd": module("Odd", KERNELS["mean"], "x: float[B, 50257], t: int[B]"),
    "long": module("Long", KERNELS["mean"], "x: float[B, 128256], t: int[B]"),
    "weighted": module(
        "Weighted",
        "return cross_entropy(x, t, weight=w, label_smoothing=0.1)",
        "x: float[B, 50304], t: int[B], w: float[50304]",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_kernels_compile_ahead_of_time(name: str, tmp_path: Path) -> None:
    """For all GPUs, without spills, at the sizes of real vocabularies."""
    ran = python("-m", "tdsl.runtime.aot", written(emitted(compiled(SIZES[name])), tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    _corners(Path(sys.argv[1]))
