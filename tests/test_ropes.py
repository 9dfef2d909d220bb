"""Rotary positions by themselves, and of queries and keys together: what is recognised and what kernels compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tdsl.compiler import pipeline
from tdsl.compiler.ir import Node
from tdsl.compiler.passes.place_casts import place_casts
from tests.helpers import ROOT, compiled, disagreements, emitted, graph_of, python, written

INPUTS = "q: float[B, 4, T, 8], k: float[B, 2, T, 8]"
RESULTS = "(float[B, 4, T, 8], float[B, 2, T, 8])"
SAME = "float[B, 4, T, 8]"
TOGETHER = {
    "queries and keys": (INPUTS, "return rope(q), rope(k)", RESULTS),
    "angles of their own": (INPUTS, "return rope(q, 100.0, offset=3), rope(k, 100.0, 3)", RESULTS),
    "something between": (INPUTS, "a = rope(q)\nb = k * 2\nreturn a, rope(b)", RESULTS),
    "names": (INPUTS, "queries = rope(q)\nkeys = rope(k)\nreturn queries, keys", RESULTS),
}
APART = {
    "one": ("x: [..., T, D]", "return rope(x)", "[..., T, D]"),
    "one of two dimensions": ("x: float[T, 6]", "return rope(x, offset=-2)", "float[T, 6]"),
    "one of three": ("x: float[B, T, 34]", "return rope(x)", "float[B, T, 34]"),
    "of a size of the program": ("x: [..., T, D]", "return rope(x, base, offset=start + 1)", "[..., T, D]"),
    "one after the other": (f"x: {SAME}", "return rope(rope(x))", SAME),
    "one waits for the other": (f"x: {SAME}", "y = rope(x)\nreturn rope(y + x)", SAME),
    "other angles": (INPUTS, "return rope(q), rope(k, 100.0)", RESULTS),
    "other positions": (
        "q: float[B, 4, T, 8], k: float[B, 2, S, 8]",
        "return rope(q), rope(k)",
        "(float[B, 4, T, 8], float[B, 2, S, 8])",
    ),
}


def module(case: tuple[str, str, str], name: str = "M") -> str:
    inputs, body, result = case
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    params = "D: int = 6, base: float = 300.0, start: int = 4"
    return f"module {name}({params}) {{\n    forward({inputs}) -> {result} {{\n{lines}    }}\n}}\n\n"


def _ropes(case: tuple[str, str, str]) -> list[Node]:
    nodes = graph_of(compiled(module(case)), "M").nodes
    assert all(node.op.name != "rope" for node in nodes)
    return [n for n in nodes if n.group and n.group.structure and n.group.structure.template == "rope"]


@pytest.mark.parametrize("name", TOGETHER)
def test_ropes_of_the_same_positions_are_one_kernel(name: str) -> None:
    (node,) = _ropes(TOGETHER[name])
    assert len(node.outputs) == 2
    assert node.group is not None
    assert node.group.name == {"names": "rope_both", "something between": "rope_ab"}.get(name, "rope_qk")


@pytest.mark.parametrize("name", APART)
def test_others_are_a_kernel_each(name: str) -> None:
    assert {len(node.outputs) for node in _ropes(APART[name])} == {1}


def test_an_offset_of_the_run_is_left_to_pytorch() -> None:
    text = module(("x: float[B, T, 6], y: float[S]", "return rope(x, offset=S)", "float[B, T, 6]"))
    assert [n.op.name for n in graph_of(compiled(text), "M").nodes] == ["rope"]


def test_kernels_agree_with_float64(tmp_path: Path) -> None:
    cases = [*TOGETHER.values(), *APART.values()]
    folder = written(emitted(compiled("".join(module(c, f"M{i}") for i, c in enumerate(cases)))), tmp_path)
    told = disagreements(folder)
    assert not told, f"{len(told)} cases:\n" + "\n".join(told[:10])
    formatted = python("-m", "ruff", "format", "--check", "--no-cache", "--isolated", "--line-length=120", folder)
    assert formatted.returncode == 0, formatted.stdout[-3000:]


def test_any_memory_layout_is_read_as_it_lies(tmp_path: Path) -> None:
    text = module(APART["one"]) + module(TOGETHER["queries and keys"], "N")
    folder = written(emitted(compiled(text)), tmp_path)
    ran = python("-m", "tests.test_ropes", folder, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_a_parameter_is_cast_before_it_is_turned(tmp_path: Path) -> None:
    """A kernel yields the precision that it reads: in a run in lower precision that is not a parameter's."""
    text = "module M() {\n    param x: [5, 6] = normal()\n    forward(y: float[B, 5, 6]) -> float[B, 5, 6] {"
    unit = pipeline.distinct(place_casts(compiled(f"{text} return rope(x) @ y.mT @ y }}\n}}\n"), "f16"))
    files = emitted(unit)
    assert "kernels.rope(self.x.to(torch.float16))" in files["model.py"]
    assert not disagreements(written(files, tmp_path))


# Run in the interpreter ----------------------------------------------------------------------------------------------


def _layouts() -> list[Any]:
    import torch

    x = torch.randn(2, 3, 5, 6)
    by_position = torch.randn(2, 5, 40)[..., 4:22].unflatten(-1, (3, 6)).transpose(1, 2)
    wide = torch.randn(2, 3, 5, 12)
    return [x, by_position, x.transpose(1, 2), x.mT.contiguous().mT, x[:1].expand_as(x), x[:, :1].expand_as(x),
            wide[..., ::2], wide[..., 3:9], x[:, :, ::2], x[..., :2], x[0], x[0, 0], x[None, :, :, None].squeeze(3),
            torch.randn(2, 4, 3, 5, 6).transpose(1, 2), torch.randn(0, 3, 5, 6), torch.randn(2, 3, 0, 6)]  # fmt: skip


def _main(folder: Path) -> int:
    import torch

    from tdsl.runtime import verify

    kernels = verify.load(folder / "kernels.py")
    for x in _layouts():
        leaf = x.detach().requires_grad_()
        y, expected = kernels.rope(leaf), kernels.rope_reference(leaf)
        torch.testing.assert_close(y, expected)
        assert torch.equal(y, kernels.rope(leaf))
        if x.dim() == 4 and x.stride(1) < x.stride(2) and x.numel():
            assert y.transpose(1, 2).is_contiguous()
        for grad in (torch.randn(x.shape), torch.randn(x.shape[-1:]).expand(x.shape), torch.ones(()).expand(x.shape)):
            (a,) = torch.autograd.grad(y, [leaf], [grad], retain_graph=True)
            (b,) = torch.autograd.grad(expected, [leaf], [grad], retain_graph=True)
            torch.testing.assert_close(a, b)
    q, k = torch.randn(2, 5, 4, 8).transpose(1, 2), torch.randn(2, 2, 5, 8)
    for a, b in zip(kernels.rope_qk(q, k), kernels.rope_qk_reference(q, k)):
        torch.testing.assert_close(a, b)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(Path(sys.argv[1])))
