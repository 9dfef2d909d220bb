"""Projections split into heads, some of them turned: which are recognised, what they compute, what autograd sees."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tdsl.compiler import pipeline
from tdsl.compiler.ir import Group
from tdsl.compiler.passes.place_casts import place_casts
from tests.helpers import ROOT, compiled, disagreements, emitted, graph_of, python, written

CHUNKED = "q, k, v = u(x).chunk(3, dim=-1)"
HEADS = "\n".join(f'{name} = rearrange({name}, "b t (h d) -> b h t d", h=heads)' for name in "qkv")
RESULT = 'return rearrange(attention(q, k, v, causal=true), "b h t d -> b t (h d)")'


def module(body: str, name: str = "M", width: str = "3 * dim", params: str = "dim: int = 24, heads: int = 3") -> str:
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    forward = f"    forward(x: float[B, T, dim]) -> float[B, T, dim] {{\n{lines}    }}\n"
    return f"module {name}({params}) {{\n    u = Linear(dim, {width}, bias=false)\n{forward}}}\n\n"


def _rotated(first: str, *more: str) -> str:
    return "\n".join([first, *more, "q, k = rope(q), rope(k)", RESULT])


_VIEW = ".view(B, T, heads, dim / heads).transpose(1, 2)"
GROUPED = "dim: int = 24, heads: int = 4, groups: int = 2"
SMALL = "small = groups * (dim / heads)"
FEW = 'k, v = rearrange(k, "b t (h d) -> b h t d", h=groups), rearrange(v, "b t (h d) -> b h t d", h=groups)'
FOUND = {
    "Chunked": module(_rotated(CHUNKED, HEADS)),
    "Sliced": module(
        _rotated("y = u(x)", *(f"{n} = y[..., {i} * dim : {i + 1} * dim]{_VIEW}" for i, n in enumerate("qkv")))
    ),
    "Unbound": module(_rotated('q, k, v = rearrange(u(x), "b t (n h d) -> n b h t d", n=3, h=heads).unbind(0)')),
    "Taking turns": module(
        "y = rearrange(u(x), 'b t (h n d) -> n b h t d', n=3, h=heads)\n"
        "q, k, v = rope(y[0]), rope(y[1]), y[2]\nz = attention(q, k, v)\n"
        'return rearrange(z, "b h t d -> b t (h d)").view(B, T, dim)'
    ).replace("'", '"'),
    "Other order": module(_rotated("v, q, k = u(x).chunk(3, -1)", HEADS)),
    "Grouped": module(
        _rotated(
            SMALL,
            "q, k, v = u(x).split([dim, small, small], dim=-1)",
            'q = rearrange(q, "b t (h d) -> b h t d", h=heads)',
            FEW,
        ),
        width="dim + 2 * groups * (dim / heads)",
        params=GROUPED,
    ),
    "Values alone": module(
        "k, v = u(x).chunk(2, dim=-1)\n"
        'q = rope(rearrange(x, "b t (h d) -> b h t d", h=heads), 100.0, 3)\n'
        'k = rope(rearrange(k, "b t (h d) -> b h t d", h=heads), 100.0, 3)\n'
        f'v = rearrange(v, "b t (h d) -> b h t d", h=heads)\n{RESULT}',
        width="2 * dim",
    ),
    "Numbers": module(_rotated(CHUNKED.replace("3", "3"), HEADS.replace("h=heads", "d=8"))),
    "Read again": module(
        f"{CHUNKED}\n{HEADS}\nq, k = rope(q), rope(k)\nz = attention(q, k, v * v.mean() + v, causal=true)\n"
        'return rearrange(z, "b h t d -> b t (h d)")'
    ),
}
OTHERS = {
    # Each head of its own kind, a part left over, angles that differ: ropes by themselves, or both together.
    "One width": module(_rotated("q, k, v = u(x).split([dim, dim, dim + 8], dim=-1)", HEADS.splitlines()[0], HEADS.splitlines()[1],
        'v = rearrange(v, "b t (h d) -> b h t d", d=8)[:, :3]'), width="3 * dim + 8"),
    "A rest": module(_rotated("q, k, v = u(x)[..., :3 * dim].chunk(3, dim=-1)", HEADS), width="3 * dim + 8"),
    "Other angles": module(f"{CHUNKED}\n{HEADS}\nq, k = rope(q), rope(k, offset=1)\n{RESULT}"),
    "Values as they are": module(f'{CHUNKED}\nw = v + 1\n{HEADS}\nq, k = rope(q), rope(k)\nv = rearrange(w, "b t (h d) -> b h t d", h=heads)\n{RESULT}'),
}  # fmt: skip


def _groups(text: str) -> list[Group]:
    return [n.group for n in graph_of(compiled(text), "M").nodes if n.group is not None]


def _templates(text: str) -> list[str]:
    return [group.structure.template for group in _groups(text) if group.structure is not None]


@pytest.mark.parametrize("name", FOUND)
def test_projections_that_are_recognised(name: str) -> None:
    found = _templates(FOUND[name])
    assert found.count("split_rope") == 1
    assert found.count("rope") == (name == "Values alone")
    ops = {node.op.name for node in graph_of(compiled(FOUND[name]), "M").nodes}
    assert not ops & {"chunk", "split", "unbind", "index", "rope"}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_as_they_are(name: str) -> None:
    assert set(_templates(OTHERS[name])) == {"rope"}


def test_a_program_that_differentiates_gradients_has_no_such_kernel() -> None:
    twice = FOUND["Chunked"].replace("return", "y =").replace("    }\n}", "        return grad(y.sum(), x)\n    }\n}")
    assert _templates(twice) == []


def test_modules_with_other_words_for_it_share_a_kernel() -> None:
    other = FOUND["Chunked"].replace("module M", "module N").replace("heads", "n_head").replace("dim", "width")
    unit = compiled(FOUND["Chunked"] + other.replace("width=-1", "dim=-1"))
    assert [group.name for group in pipeline.groups(unit)] == ["split_rope"]
    assert "kernels.split_rope(self.u(x), self.n_head)" in emitted(unit)["model.py"]


def test_numbers_of_heads_are_called_as_the_source_calls_them() -> None:
    """Also where the keys come first."""
    names = {"q": "heads", "k": "groups", "v": "groups"}
    turned = "\n".join(f'{n} = rearrange({n}, "b t (h d) -> b h t d", h={h})' for n, h in names.items())
    text = module(
        _rotated(SMALL, "k, v, q = u(x).split([small, small, dim], dim=-1)", turned),
        width="dim + 2 * groups * (dim / heads)",
        params=GROUPED,
    )
    (group,) = _groups(text)
    assert [scalar.text for scalar in group.scalars] == ["self.groups", "self.heads", "self.dim // self.heads"]
    assert (
        "def split_rope(kvq: Tensor, groups: int, heads: int, head_dim: int)" in emitted(compiled(text))["kernels.py"]
    )


def test_a_module_made_with_several_numbers_of_heads_keeps_them_apart() -> None:
    """Groups that are as many as heads in one use are not in another: what is known of sizes tells nothing."""
    uses = "module N() {\n    one = M(24, 4, 4)\n    two = M(24, 4, 2)\n"
    uses += "    forward(x: float[B, T, 24]) -> float[B, T, 24] { return two(one(x)) }\n}\n"
    (group,) = pipeline.groups(
        compiled(FOUND["Grouped"].replace("heads: int = 4, groups: int = 2", "heads: int, groups: int") + uses)
    )
    assert [scalar.text for scalar in group.scalars] == ["self.heads", "self.groups", "self.dim // self.heads"]


# What they compute ---------------------------------------------------------------------------------------------------


def test_kernels_agree_with_float64(tmp_path: Path) -> None:
    """All together, in the memory layouts of `tdsl verify`, in float32 and float16."""
    text = "".join(each.replace("module M", f"module M{i}") for i, each in enumerate(FOUND.values()))
    folder = written(emitted(compiled(text)), tmp_path)
    told = disagreements(folder)
    assert not told, f"{len(told)} cases:\n" + "\n".join(told[:10])
    formatted = python("-m", "ruff", "format", "--check", "--no-cache", "--isolated", "--line-length=120", folder)
    assert formatted.returncode == 0, formatted.stdout[-3000:]


def test_kernels_of_a_run_in_lower_precision(tmp_path: Path) -> None:
    """What is turned is computed in float32 between casts, what is not turned is not cast at all."""
    unit = pipeline.distinct(place_casts(compiled(FOUND["Grouped"]), "f16"))
    files = emitted(unit)
    assert "rope(q.transpose(1, 2).float(), " not in files["kernels.py"]
    assert "q = nn_functions.rope(q.transpose(1, 2).float()).to(qkv.dtype)\n" in files["kernels.py"]
    assert "v = v.transpose(1, 2)\n" in files["kernels.py"]
    assert not disagreements(written(files, tmp_path))


@pytest.mark.parametrize("check", ["shared", "launches", "subsets", "layouts", "again", "anomaly", "inference"])
def test_autograd(check: str, tmp_path: Path) -> None:
    folder = written(emitted(compiled(FOUND["Grouped"])), tmp_path)
    ran = python("-m", "tests.test_split_rope", folder, check, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_one_kernel_each_way(tmp_path: Path) -> None:
    import torch

    from tdsl.runtime import aot, verify
    from tdsl.runtime.verify_inputs import Case

    kernels = verify.load(written(emitted(compiled(FOUND["Grouped"])), tmp_path) / "kernels.py")
    case = Case("split_rope", ((B, T, (H + 2 * G) * D),), ("float",), (H, G, D))
    launches = aot.launches(kernels, case, torch.float32)
    assert [each.name for each in launches] == ["_split_rope_forward", "_split_rope_backward"]


@pytest.mark.slow
def test_kernels_compile_ahead_of_time_without_spills(tmp_path: Path) -> None:
    for name, sizes in (("Chunked", "768, heads: int = 12"), ("Grouped", "4096, heads: int = 32, groups: int = 8")):
        text = FOUND[name].replace("24, heads: int = 3", sizes).replace("24, heads: int = 4, groups: int = 2", sizes)
        folder = written(emitted(compiled(text)), tmp_path / name)
        ran = python("-m", "tdsl.runtime.aot", folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "2 kernels, 16 variants compiled, 0 spill" in ran.stdout


# Run in the interpreter ----------------------------------------------------------------------------------------------

B, T, H, G, D = 2, 9, 4, 2, 6


def _projection(kernels: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return torch.randn(B, T, (H + 2 * G) * D, requires_grad=True)


def _expected(kernels: Any, x: Any, grads: Any) -> Any:
    """The gradient of the projection in plain PyTorch."""
    import torch

    copy = x.detach().clone().requires_grad_()
    outputs = kernels.split_rope_reference(copy, H, G, D)
    torch.autograd.backward(outputs, grads)
    return copy.grad


def _grads(outputs: Any) -> Any:
    import torch

    return [torch.randn(o.shape) for o in outputs]


def _check_shared(kernels: Any) -> None:
    """What is not turned lies in the projection; what is turned lies by positions, so that joining heads is free."""
    x = _projection(kernels)
    q, k, v = kernels.split_rope(x, H, G, D)
    assert v.data_ptr() == x.data_ptr() + 4 * (H + G) * D
    assert v.stride() == (T * (H + 2 * G) * D, D, (H + 2 * G) * D, 1)
    for t in (q, k):
        assert t.transpose(1, 2).is_contiguous()
        assert t.transpose(1, 2).flatten(2).data_ptr() == t.data_ptr()


def _check_launches(kernels: Any) -> None:
    """No operation on numbers beside the kernels: nothing is filled, copied, joined or added."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    called: list[str] = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    x = _projection(kernels)
    kernels.split_rope(x, H, G, D)  # the table is made once
    with Noted():
        outputs = kernels.split_rope(x, H, G, D)
    grads = [torch.randn(B, T, o.shape[1], D).transpose(1, 2) for o in outputs]
    with Noted():
        torch.autograd.backward(outputs, grads)
    # The interpreter itself copies what a kernel reads and writes.
    views = {"view", "transpose", "slice", "alias", "detach", "_unsafe_view"}
    assert set(called) <= {*views, "new_empty", "empty", "set_", "copy_"}, called


def _check_subsets(kernels: Any) -> None:
    """Results that nothing reads have no gradient; those that are read twice have the sum."""
    import torch

    x = _projection(kernels)
    for read in ([0], [1], [2], [0, 2], [2, 2, 1]):
        outputs = kernels.split_rope(x, H, G, D)
        grads = _grads([outputs[i] for i in read])
        (found,) = torch.autograd.grad([outputs[i] for i in read], [x], grads)
        whole = [sum((g for g, i in zip(grads, read) if i == j), torch.zeros_like(o)) for j, o in enumerate(outputs)]
        torch.testing.assert_close(found, _expected(kernels, x, whole))
    y = _projection(kernels).detach()
    assert not any(o.requires_grad for o in kernels.split_rope(y, H, G, D))


def _check_layouts(kernels: Any) -> None:
    """Gradients that lie in memory in any way, and projections that do."""
    import torch

    x = _projection(kernels)
    outputs = kernels.split_rope(x, H, G, D)
    for lay in (
        lambda g: g,
        lambda g: g.transpose(1, 2).contiguous().transpose(1, 2),
        lambda g: g.mT.contiguous().mT,
        lambda g: g[:1].expand_as(g),
        lambda g: g[..., :1].expand_as(g),
        lambda g: torch.cat([g, g], -1)[..., ::2],
    ):
        grads = list(map(lay, _grads(outputs)))
        (found,) = torch.autograd.grad(outputs, [x], grads, retain_graph=True)
        torch.testing.assert_close(found, _expected(kernels, x, grads))
    sliced = torch.randn(B, T, 2 * x.shape[-1])[..., ::2]
    for a, b in zip(kernels.split_rope(sliced, H, G, D), kernels.split_rope_reference(sliced, H, G, D)):
        torch.testing.assert_close(a, b)


def _check_again(kernels: Any) -> None:
    """Bit-equal from run to run; and NaN and infinity stay where they are."""
    import torch

    x = _projection(kernels)
    runs = []
    for _ in range(2):
        outputs = kernels.split_rope(x, H, G, D)
        torch.manual_seed(1)
        runs.append([*outputs, *torch.autograd.grad(outputs, [x], _grads(outputs))])
    assert all(torch.equal(a, b) for a, b in zip(*runs))
    with torch.no_grad():
        x[0, 0, 0], x[1, 2, D], x[1, 3, -1] = float("nan"), float("inf"), float("inf")
    for a, b in zip(kernels.split_rope(x, H, G, D), kernels.split_rope_reference(x, H, G, D)):
        torch.testing.assert_close(a, b, equal_nan=True)


def _check_anomaly(kernels: Any) -> None:
    """Anomaly mode, a saved view, and a backward that is run twice."""
    import torch

    x = _projection(kernels)
    with torch.autograd.detect_anomaly(check_nan=True):
        q, k, v = kernels.split_rope(x * 1.0, H, G, D)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True) + v.sum()
        y.sum().backward(retain_graph=True)
    first = x.grad.clone()
    x.grad = None
    y.sum().backward()
    assert torch.equal(x.grad, first)


def _check_inference(kernels: Any) -> None:
    """A table that was made in inference mode serves training, and that of training inference."""
    import torch

    x = _projection(kernels)
    with torch.inference_mode():
        a = kernels.split_rope(x, H, G, D)
    outputs = kernels.split_rope(x, H, G, D)
    outputs[0].sum().backward()
    assert all(torch.equal(p, q) for p, q in zip(a, outputs))
    with torch.no_grad():
        assert all(torch.equal(p, q) for p, q in zip(a, kernels.split_rope(x, H, G, D)))


def _main(folder: Path, check: str) -> int:
    from tdsl.runtime import verify

    globals()[f"_check_{check}"](verify.load(folder / "kernels.py"))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(Path(sys.argv[1]), sys.argv[2]))
