"""Look-ups in a table: which have a kernel, what it yields, and the table's gradient."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tdsl.compiler import pipeline
from tdsl.compiler.passes.place_casts import place_casts
from tests.helpers import ROOT, compiled, disagreements, emitted, graph_of, python, written

CALLS = {
    "plain": "embedding(x, table)",
    "padded": "embedding(x, table, padding_idx=2)",
    "padded from the end": "embedding(x, table, padding_idx=-1)",
    "padded by the module": "embedding(x, table, padding_idx=pad)",
}
OTHERS = {
    "norms": "embedding(x, table, max_norm=1.0)",
    "frequencies": "embedding(x, table, scale_grad_by_freq=true)",
}


def module(call: str, name: str = "M", inputs: str = "x: int[B, T]", result: str = "float[B, T, dim]") -> str:
    head = f"module {name}(dim: int = 12, pad: int = 3) {{\n    param table: [9, dim] = normal()\n"
    return f"{head}    forward({inputs}) -> {result} {{ return {call} }}\n}}\n\n"


def _ops(call: str) -> list[str]:
    nodes = graph_of(compiled(module(call)), "M").nodes
    return [n.op.name if n.group is None or n.group.structure is None else n.group.structure.template for n in nodes]


@pytest.mark.parametrize("name", CALLS)
def test_look_ups_with_a_kernel(name: str) -> None:
    nodes = graph_of(compiled(module(CALLS[name])), "M").nodes
    assert [node.op.name for node in nodes] == ["group"]
    assert _ops(CALLS[name]) == ["embedding"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_pytorch_does_to_rows_stays_its_own(name: str) -> None:
    (node,) = graph_of(compiled(module(OTHERS[name])), "M").nodes
    assert node.op.name == "embedding"
    assert node.group is None


def test_kernels_agree_with_float64(tmp_path: Path) -> None:
    text = "".join(module(call, f"M{i}") for i, call in enumerate(CALLS.values()))
    text += module("embedding(x, table)", "Row", "x: int[N]", "float[N, dim]")
    text += module("embedding(x, table)", "One", "x: int[]", "float[dim]")
    unit = compiled(text)
    folder = written(emitted(unit), tmp_path)
    assert [group.name for group in pipeline.groups(unit)].count("embedding") == 1
    told = disagreements(folder)
    assert not told, f"{len(told)} cases:\n" + "\n".join(told[:10])
    formatted = python("-m", "ruff", "format", "--check", "--no-cache", "--isolated", "--line-length=120", folder)
    assert formatted.returncode == 0, formatted.stdout[-3000:]


def test_a_run_in_lower_precision_looks_up_and_casts_in_one(tmp_path: Path) -> None:
    for precision, dtype in (("bf16", "bfloat16"), ("f16", "float16")):
        unit = pipeline.distinct(place_casts(compiled(module(CALLS["padded"])), precision))
        files = emitted(unit)
        assert "return kernels.embedding(x, self.table)\n" in files["model.py"]
        assert f"return F.embedding(x, table, padding_idx=2).to(torch.{dtype})" in files["kernels.py"]
        assert f"launch.use_kernels(x, float32=(table,), writes=torch.{dtype})" in files["kernels.py"]
        assert not disagreements(written(files, tmp_path / precision))


LOSS = """module M(dim: int = 6) {
    forward(x: float[B, dim]) -> float[B, dim] { return x * x }
}

data D {
    source = synthetic(rows=8)
    field x: float[6] = column("x")
    field t: int[] = column("t")
}

train m {
    model = M()
    data = D
    loss(batch) { return embedding(batch.t, model(batch.x)).square().sum() }
    optimizer = SGD(lr=0.1)
    steps = 1
    batch_size = 4
    precision = f16
}
"""


def test_a_table_that_a_model_yields_has_its_gradient_in_the_lower_precision(tmp_path: Path) -> None:
    """A loss is in float32: so is what is looked up."""
    files = emitted(compiled(LOSS))
    assert "dtype=torch.float32)" in files["kernels.py"]
    assert "return None, d_weight.to(ctx.dtype)\n" in files["kernels.py"]
    assert not disagreements(written(files, tmp_path))


CHECKS = ["skewed", pytest.param("text", marks=pytest.mark.slow), "outside", "padding", "layouts", "again", "nan"]


@pytest.mark.parametrize("check", CHECKS)
def test_the_gradient_of_the_table(check: str, tmp_path: Path) -> None:
    text = module(CALLS["plain"]) + module(CALLS["padded"], "N")
    folder = written(emitted(compiled(text)), tmp_path)
    ran = python("-m", "tests.test_embedding", folder, check, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.slow
def test_kernels_compile_ahead_of_time_without_spills(tmp_path: Path) -> None:
    """For a table as wide as GPT-2's, in float32, and in the low precisions that runs write."""
    wide = module(CALLS["plain"]).replace("dim: int = 12", "dim: int = 768").replace("[9, dim]", "[300, dim]")
    for precision in ("f32", "bf16", "f16"):
        unit = compiled(wide)
        unit = unit if precision == "f32" else pipeline.distinct(place_casts(unit, precision))
        ran = python("-m", "tdsl.runtime.aot", written(emitted(unit), tmp_path / precision))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.startswith("3 kernels")
        assert " 0 spill" in ran.stdout


def test_launches() -> None:
    """One kernel forward; backward one for the runs, one for what crosses, where there is more than one stretch."""
    from tdsl.runtime import launch

    assert launch.runs(1, 8) == launch.Runs(1, 16, 8, 1)
    assert launch.runs(65536, 768) == launch.Runs(2048, 32, 512, 2)
    assert launch.runs(1 << 24, 64).length == 256


# Run in the interpreter ----------------------------------------------------------------------------------------------


def _tokens() -> Iterator[tuple[str, Any, int, int]]:
    """Numbers, how many entries there are, and their width."""
    import torch

    torch.manual_seed(0)
    yield "all alike", torch.full((3000,), 4), 6, 5
    yield "all alike, a whole number of stretches", torch.full((64,), 0), 1, 3
    yield "few", torch.randint(0, 65, (4096,)), 65, 4
    yield "many", torch.randint(0, 50000, (700,)), 50000, 3
    yield "one frequent", torch.where(torch.rand(900) < 0.9, 7, torch.randint(0, 40, (900,))), 40, 2
    yield "stretches of their own", torch.arange(5).repeat_interleave(16), 5, 3
    yield "a run across two", torch.tensor([0] * 9 + [1] * 14 + [2] * 9), 3, 3
    yield "each once", torch.randperm(100), 100, 7
    yield "none", torch.zeros(0, dtype=torch.int64), 5, 3
    yield "one", torch.tensor([2]), 5, 3
    yield "integers of 32 bits", torch.randint(0, 9, (50,), dtype=torch.int32), 9, 3
    yield "no width", torch.randint(0, 9, (5,)), 9, 0


def _gradient(function: Any, tokens: Any, weight: Any, grad: Any) -> Any:
    import torch

    leaf = weight.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(function(tokens, leaf), [leaf], [grad])
    return found


def _check_text(kernels: Any) -> None:
    """A batch of characters: 64 windows of 256."""
    import torch

    _compare(kernels, "characters", torch.randint(0, 65, (64 * 256,)), 65, 2)


def _check_skewed(kernels: Any) -> None:
    for each in _tokens():
        _compare(kernels, *each)


def _compare(kernels: Any, name: str, tokens: Any, entries: int, width: int) -> None:
    import torch

    weight, grad = torch.randn(entries, width), torch.randn(len(tokens), width)
    assert torch.equal(kernels.embedding(tokens, weight), weight[tokens.long()]), name
    found = _gradient(kernels.embedding, tokens, weight, grad)
    exact = torch.zeros(entries, width, dtype=torch.float64).index_add_(0, tokens.long(), grad.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4, msg=name)
    assert found.dtype == torch.float32


def _check_outside(kernels: Any) -> None:
    """Numbers of no row yield NaN and leave no gradient, wherever they lie among others."""
    import torch

    weight = torch.randn(5, 3)
    for wrong in (-1, -100, 5, 1 << 20, 1 << 40, -(1 << 62)):
        tokens = torch.tensor([[wrong, 0, 4] * 9, [wrong] * 27, [1, wrong, 1] * 9])
        y = kernels.embedding(tokens, weight)
        outside = tokens == wrong
        assert y[outside].isnan().all()
        assert torch.equal(y[~outside], weight[tokens[~outside]])
        grad = torch.randn(y.shape)
        found = _gradient(kernels.embedding, tokens, weight, grad)
        expected = torch.zeros(5, 3).index_add_(0, tokens[~outside], grad[~outside])
        torch.testing.assert_close(found, expected)
    nowhere = torch.zeros(4, dtype=torch.int64)
    assert kernels.embedding(nowhere, torch.zeros(0, 3)).isnan().all()
    assert _gradient(kernels.embedding, nowhere, torch.zeros(0, 3), torch.randn(4, 3)).shape == (0, 3)


def _check_padding(kernels: Any) -> None:
    """The padded row is looked up like others; its gradient stays zero, also where its run is long."""
    import torch

    tokens = torch.where(torch.rand(300) < 0.7, 2, torch.randint(0, 9, (300,)))
    weight, grad = torch.randn(9, 4), torch.randn(300, 4)
    assert torch.equal(kernels.embedding_2(tokens, weight), weight[tokens])
    found = _gradient(kernels.embedding_2, tokens, weight, grad)
    assert not found[2].any()
    torch.testing.assert_close(found, _gradient(kernels.embedding_2_reference, tokens, weight, grad))


def _check_layouts(kernels: Any) -> None:
    import torch

    tokens, weight = torch.randint(0, 9, (4, 6)), torch.randn(3, 9).T
    for x in (tokens, tokens.T, tokens[:, ::2], tokens[:1].expand(4, 6), tokens[0, 0]):
        y = kernels.embedding(x, weight)
        assert torch.equal(y, weight[x])
        whole = torch.randn(y.shape)
        for grad in (whole, whole.mT.contiguous().mT if whole.dim() > 1 else whole, torch.ones(()).expand(y.shape)):
            found = _gradient(kernels.embedding, x, weight, grad)
            torch.testing.assert_close(found, _gradient(kernels.embedding_reference, x, weight, grad))
    frozen = kernels.embedding(tokens, weight)
    assert not frozen.requires_grad


def _check_again(kernels: Any) -> None:
    import torch

    tokens, weight, grad = torch.randint(0, 3, (999,)), torch.randn(3, 9), torch.randn(999, 9)
    first = _gradient(kernels.embedding, tokens, weight, grad)
    assert torch.equal(first, _gradient(kernels.embedding, tokens, weight, grad))


def _check_nan(kernels: Any) -> None:
    """What is not finite stays in the row that it belongs to."""
    import torch

    tokens = torch.arange(6).repeat(20)
    grad = torch.randn(120, 4)
    grad[7, 1], grad[14, 2] = float("nan"), float("inf")
    found = _gradient(kernels.embedding, tokens, torch.randn(6, 4), grad)
    expected = _gradient(kernels.embedding_reference, tokens, torch.randn(6, 4), grad)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isfinite().sum() == found.numel() - 2


def _main(folder: Path, check: str) -> int:
    from tdsl.runtime import verify

    globals()[f"_check_{check}"](verify.load(folder / "kernels.py"))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(Path(sys.argv[1]), sys.argv[2]))
