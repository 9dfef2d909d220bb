"""A linear layer and a cross-entropy without all scores: against float64, chunk by chunk, and never too much memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tdsl.compiler import pipeline
from tdsl.runtime import chunks
from tests.helpers import ROOT, UNFUSED, compiled, disagreements, emitted, graph_of, python, written
from tests.vocabularies import EXAMPLES, imported, program, project

Option = tuple[str, bool, float, int | None, bool]
OPTIONS: list[Option] = [
    *product(("mean", "sum"), (False, True), (0, 0.1), (None, 3), (True,)),
    ("mean", False, 0, None, False),
]


def module(name: str, body: str, inputs: str = "x: float[B, 16], t: int[B]", bias: bool = True, out: int = 8192) -> str:
    lines = "".join(f"        {line.strip()}\n" for line in body.strip().splitlines())
    head = f"    head = Linear(16, {out}, bias={str(bias).lower()})\n"
    return f"module {name}() {{\n{head}    forward({inputs}) -> float[] {{\n{lines}    }}\n}}\n\n"


def _options() -> str:
    found = []
    for i, (reduction, weighted, smoothing, ignored, bias) in enumerate(OPTIONS):
        given = {"weight": "w" if weighted else "", "label_smoothing": smoothing, "ignore_index": ignored}
        listed = "".join(f", {name}={value}" for name, value in given.items() if value)
        inputs = "x: float[B, 16], t: int[B]" + (", w: float[8192]" if weighted else "")
        found.append(
            module(f"M{i}", f'return cross_entropy(head(x), t{listed}, reduction="{reduction}")', inputs, bias)
        )
    return "".join(found)


def test_options_agree_with_float64(tmp_path: Path) -> None:
    unit = compiled(_options())
    found = [g.structure.template for g in pipeline.groups(unit) if g.structure is not None]
    assert found == ["linear_cross_entropy"] * len(OPTIONS)
    assert disagreements(written(emitted(unit), tmp_path)) == []


TOKENS = "x: float[B, T, 16], t: int[B, T]"
JOINED = {
    "flattened": "return cross_entropy(head(x).flatten(0, 1), t.flatten(0, 1))",
    "reshaped": "return cross_entropy(head(x).reshape(-1, 8192), t.reshape(-1))",
    "moved": "return cross_entropy(head(x).transpose(1, 2), t)",
    "written out": "return -log_softmax(head(x), dim=-1).gather(-1, t[..., none]).mean()",
    "by its logarithm": "s = head(x)\nreturn mean(logsumexp(s, -1) - s.gather(-1, t[..., none]).squeeze(-1))",
    "as float": "return cross_entropy(head(x).float().flatten(0, 1), t.flatten())",
    "by a function": "return cross_entropy(linear(x, head.weight, head.bias).flatten(0, 1), t.flatten())",
}
APART = {
    "scores that are read again": "s = head(x)\nreturn cross_entropy(s.flatten(0, 1), t.flatten()) + s.mean()",
    "losses that are not added up": 'return cross_entropy(head(x).transpose(1, 2), t, reduction="none").square().mean()',
    "scores that are scaled": "return cross_entropy(head(x).flatten(0, 1) / 2, t.flatten())",
    "other rows": "return cross_entropy(head(x).reshape(-1, 4096), t.repeat_interleave(2).reshape(-1))",
}


def templates(text: str) -> list[str]:
    nodes = graph_of(compiled(text), "M").nodes
    return [n.group.structure.template for n in nodes if n.group is not None and n.group.structure is not None]


@pytest.mark.parametrize("name", JOINED)
def test_what_is_joined(name: str) -> None:
    assert templates(module("M", JOINED[name], TOKENS)) == ["linear_cross_entropy"]


@pytest.mark.parametrize("name", APART)
def test_what_stays_apart(name: str) -> None:
    assert "linear_cross_entropy" not in templates(module("M", APART[name], TOKENS))


@pytest.mark.parametrize(("out", "joined"), [(65, False), (8191, False), (8192, True), (50257, True)])
def test_few_classes_are_computed_as_they_are(out: int, joined: bool) -> None:
    found = templates(module("M", "return cross_entropy(head(x), t)", out=out))
    assert found == ["linear_cross_entropy" if joined else "cross_entropy"]
    wide = "module M() {\n    head = Linear(4096, 8192)\n    forward(x: float[B, 4096], t: int[B]) -> float[] {"
    assert templates(f"{wide} return cross_entropy(head(x), t) }}\n}}\n") == ["cross_entropy"]


def test_joined_losses_agree_with_float64(tmp_path: Path) -> None:
    text = "".join(module(f"M{i}", body, TOKENS) for i, body in enumerate(JOINED.values()))
    assert disagreements(written(emitted(compiled(text)), tmp_path)) == []


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_parameters_may_be_in_float32(precision: str, tmp_path: Path) -> None:
    """Beside activations of a lower precision; in float16 the gradients are magnified until the loss is scaled."""
    files = emitted(compiled(program(precision=precision)))
    assert ("64.0" in files["kernels.py"]) is (precision == "f16")
    assert disagreements(written(files, tmp_path)) == []


# The parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 4])
def test_chunks(size: int) -> None:
    """As few as fit, two at least, none of them nearly empty."""
    for rows in [*range(1, 700), 1023, 4096, 8192, 65536, 1_000_003]:
        for cols in (1, 8192, 50257, 128256, 1_000_000):
            step = chunks.rows_at_once(rows, cols, size)
            count = -(-rows // step)
            assert step == rows or rows >= chunks.SEVERAL
            assert step * cols * size <= max(chunks.MOST_BYTES + 16 * cols * size, chunks.TILE * cols * size)
            assert count >= (2 if rows >= chunks.SEVERAL else 1)
            assert rows - (count - 1) * step > min(step, rows) // 8 or count > 8
    assert chunks.rows_at_once(0, 10, size) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_products_are_added_up_widely(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 40, 30).to(dtype), torch.randn(2, 30, 20).to(dtype)
    total = chunks.total(torch.empty(40, 20, dtype=dtype), dtype, n_rows=60)
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for i in range(2):
        chunks.add_product(total, a[i], b[i], first=i == 0)
    wanted = (a.double() @ b.double()).sum(0)
    torch.testing.assert_close(total.double(), wanted, rtol=1e-5, atol=1e-5)
    assert not chunks.total(torch.empty(3, 2), torch.float32, n_rows=0).any()


def test_rows_of_the_buffer_begin_where_products_are_fastest() -> None:
    for cols in (1, 8, 50257, 50304):
        for dtype in (torch.float32, torch.bfloat16):
            made = chunks.buffer(3, cols, torch.empty(0, dtype=dtype))
            assert made.shape == (3, cols)
            assert made.stride(0) * made.element_size() % 128 == 0
            assert not made.as_strided((3, made.stride(0)), made.stride())[:, cols:].any()


@pytest.mark.parametrize("ignored", [-100, 3, None])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_a_mean_divides_by(ignored: int | None, weighted: bool) -> None:
    labels = torch.tensor([0, 1, 3, 3, 2])
    weight = torch.tensor([1.0, 2.0, 4.0, 8.0]) if weighted else None
    found = chunks.count(labels, 4, ignored, weight)
    kept = labels if ignored is None else labels[labels != ignored]
    assert found.item() == (weight[kept].sum().item() if weight is not None else len(kept))
    assert chunks.count(torch.tensor([9]), 4, ignored, weight).isnan().item() is weighted


# In PyTorch, where there is no kernel --------------------------------------------------------------------------------


def _plain(x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, options: dict[str, object]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    loss = F.cross_entropy(F.linear(*leaves), target, **options)  # type: ignore[arg-type]
    return [loss.detach(), *torch.autograd.grad(loss * 3, leaves)]


@pytest.mark.parametrize("option", OPTIONS[:-1])
def test_without_kernels_it_is_what_pytorch_computes(option: Option, tmp_path: Path) -> None:
    reduction, weighted, smoothing, ignored, _ = option
    given = {"weight": "w" if weighted else "", "label_smoothing": smoothing, "ignore_index": ignored}
    listed = "".join(f", {name}={value}" for name, value in given.items() if value)
    inputs = "x: float[B, 16], t: int[B]" + (", w: float[8192]" if weighted else "")
    text = module("M", f'return cross_entropy(head(x), t{listed}, reduction="{reduction}")', inputs)
    from tdsl.runtime.verify import load

    kernels = load(written(emitted(compiled(text)), tmp_path) / "kernels.py")
    torch.manual_seed(0)
    x, weight, bias = torch.randn(70, 16), torch.randn(50, 16), torch.randn(50)
    target = torch.randint(0, 50, (70,))
    target[::4] = -100 if ignored is None else ignored
    classes = torch.rand(50) + 0.5
    options: dict[str, object] = {"reduction": reduction, "label_smoothing": smoothing}
    options |= {"weight": classes} if weighted else {}
    options |= {"ignore_index": ignored} if ignored is not None else {}
    wanted = _plain(x, weight, bias, target, options)
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    loss = kernels.linear_cross_entropy(*leaves, target, *([classes] if weighted else []))
    for a, b in zip([loss.detach(), *torch.autograd.grad(loss * 3, leaves)], wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> object:
    from tdsl.runtime.verify import load

    text = module("M", "return cross_entropy(head(x), t)", bias=False)
    return load(written(emitted(compiled(text)), tmp_path_factory.mktemp("plain")) / "kernels.py")


def test_only_gradients_that_are_needed_are_made(kernels: object) -> None:
    x, weight, target = torch.randn(70, 16), torch.randn(50, 16), torch.randint(0, 50, (70,))
    wanted = _plain(x, weight, torch.zeros(50), target, {})
    for needed in ((True, False), (False, True)):
        leaves = [t.clone().requires_grad_(n) for t, n in zip((x, weight), needed, strict=True)]
        loss = kernels.linear_cross_entropy(*leaves, target)  # type: ignore[attr-defined]
        (loss * 3).backward()
        for leaf, learns, gradient in zip(leaves, needed, wanted[1:], strict=False):
            assert (leaf.grad is not None) is learns
            if leaf.grad is not None:
                torch.testing.assert_close(leaf.grad, gradient, rtol=1e-5, atol=1e-5)


def test_nothing_counts(kernels: object) -> None:
    """The mean over no labels is NaN, and its gradients are 0."""
    for rows in (0, 40):
        x, weight = torch.randn(rows, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
        loss = kernels.linear_cross_entropy(x, weight, torch.full((rows,), -100))  # type: ignore[attr-defined]
        loss.backward()
        assert loss.isnan()
        assert x.grad is not None
        assert weight.grad is not None
        assert not x.grad.any()
        assert not weight.grad.any()


def test_a_second_backward_is_refused(kernels: object) -> None:
    x, weight = torch.randn(40, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    loss = kernels.linear_cross_entropy(x, weight, torch.randint(0, 50, (40,)))  # type: ignore[attr-defined]
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_label_that_is_no_class_is_refused(kernels: object) -> None:
    x, weight = torch.randn(40, 16), torch.randn(50, 16)
    with pytest.raises(IndexError):
        kernels.linear_cross_entropy(x, weight, torch.full((40,), 50))  # type: ignore[attr-defined]


# Memory --------------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The most bytes of a tensor that is made within, those of gradients too; views count for what they view."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(each, Tensor):
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return found


def gpt(precision: str) -> str:
    """examples/gpt.model, small but for its vocabulary, with a run."""
    run = f"""
data Digits {{
    source = csv("data/digits.csv")
    field tokens:  int[64] = columns("p*")
    field targets: int[64] = columns("p*")
}}

train words {{
    model = GPT(dim=32, heads=2, layers=1)
    data  = Digits
    loss(batch) {{
        logits = model(batch.tokens)
        return cross_entropy(logits.flatten(0, 1), batch.targets.flatten(0, 1))
    }}
    optimizer  = AdamW(lr=1e-3)
    steps      = 1
    batch_size = 4
    precision  = {precision}
}}
"""
    return (EXAMPLES / "gpt.model").read_text(encoding="utf-8") + run


def largest(folder: Path, learns: bool) -> float:
    """Of the loss of a batch of 256 tokens, the bytes of its largest tensor over those of all scores in float32."""
    with imported(folder) as script:
        batch = next(iter(script["data"].batches("train", 4, seed=0)))
        torch.manual_seed(0)
        model = sys.modules["model"].GPT(dim=32, heads=2, layers=1)
        with Largest() as found, torch.set_grad_enabled(learns):
            loss = script["loss"](model, batch)
            if learns:
                loss.backward()
        assert loss.isfinite()
        return found.bytes / (4 * 64 * 50304 * 4)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("learns", [True, False])
def test_gpt_never_has_all_scores(precision: str, learns: bool, tmp_path: Path) -> None:
    """50,304 classes of 256 tokens: two chunks here, more of them the more tokens there are."""
    assert largest(project(gpt(precision), tmp_path / "fused"), learns) < 0.52
    assert largest(project(gpt(precision), tmp_path / "plain", UNFUSED), learns) >= 1


def test_gpt_never_has_all_scores_with_kernels(tmp_path: Path) -> None:
    ran = python("-m", "tests.test_linear_cross_entropy", project(gpt("f32"), tmp_path), interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert float(ran.stdout.splitlines()[-1]) < 0.52


def test_kernels_compile_ahead_of_time(tmp_path: Path) -> None:
    text = module("M", "return cross_entropy(head(x), t)", out=50257)
    ran = python("-m", "tdsl.runtime.aot", written(emitted(compiled(text)), tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _main(arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    print(largest(Path(arguments[0]), learns=True))


if __name__ == "__main__":
    _main(sys.argv[1:])
