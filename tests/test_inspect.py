"""`tdsl inspect`: parameters and memory, against PyTorch's own and against what a step saves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tdsl.compiler.build.unit import ModuleMember, Unit
from tdsl.compiler.explain.compare import write
from tdsl.compiler.inspect import parameters, states
from tdsl.compiler.memory import MORE, RESERVED, STATES, Memory, fit, memory, size_of
from tdsl.dsl.signatures import OPTIMIZERS
from tdsl.runtime import optim
from tests.helpers import ROOT, built, python, tdsl
from tests.running import executed

EXAMPLES = ROOT / "examples"
NET = """module Net(width: int = 32) {
    up   = Linear(16, width)
    norm = BatchNorm1d(width)
    mid  = Linear(width, width)
    back = Linear(width, 16)
    out  = Linear(width, 16, weight=back.weight, bias=false)
    forward(x: float[B, 16]) -> float[B, 16] {
        h = gelu(norm(up(x)))
        h = h + gelu(mid(h))
        return out(h) + back(relu(h))
    }
}
"""
RUN = """data D {
    source = npz("none.npz")
    field x: float[16] = column("x")
    field y: int[]     = column("y")
}
train net {
    model = Net()
    data  = D
    loss(batch) { return cross_entropy(model(batch.x), batch.y) }
    optimizer  = OPTIMIZER
    steps      = 1
    batch_size = 512
    precision  = PRECISION
}
"""


def unit_of(optimizer: str = "AdamW(lr=1e-3)", precision: str = "f32", net: str = NET, more: str = "") -> Unit:
    text = RUN.replace("OPTIMIZER", optimizer).replace("PRECISION", f"{precision}\n{more}")
    return built(net + text, EXAMPLES / "program.model")


# Parameters -----------------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_pytorch(tmp_path: Path) -> None:
    model = executed(NET, tmp_path).Net()
    unit, member = built(NET), ModuleMember("Net", ())
    assert {p.path: p.shape for p in parameters(unit, member)} == {
        name: tuple(value.shape) for name, value in model.named_parameters()
    }
    once = {value.data_ptr(): name for name, value in sorted(model.state_dict().items())}
    assert len(states(unit, member)) == len(once)
    assert {p.path: p.dims for p in parameters(unit, member)}["up.weight"] == ("width", "16")


SHARING = """module Inner(dim: int) {
    first  = Linear(dim, dim, bias=false)
    second = Linear(dim, dim, bias=false, weight=first.weight)
    forward(x: float[B, dim]) -> float[B, dim] { return second(first(x)) }
}
module Net(dim: int = 4) {
    embed  = Embedding(8, dim)
    inner  = [Inner(dim) for i in range(2)]
    head   = Linear(dim, 8, bias=false, weight=embed.weight)
    other  = Linear(dim, 8, weight=embed.weight)
    forward(x: int[B]) -> float[B, 8] {
        h = embed(x) |> inner
        return head(h) + other(h)
    }
}
"""


def test_the_other_names_of_what_is_shared_are_those_of_pytorch(tmp_path: Path) -> None:
    model = executed(SHARING, tmp_path).Net()
    expected: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        expected.setdefault(id(value), []).append(name)
    found = parameters(built(SHARING), ModuleMember("Net", ()))
    assert [[each.path, *each.ties] for each in found] == [*expected.values()]
    assert sum(each.count for each in found) == sum(each.numel() for each in model.parameters())


def test_the_other_names_of_what_is_shared_are_listed(tmp_path: Path) -> None:
    (tmp_path / "net.model").write_text(SHARING)
    text = tdsl("inspect", "net.model", cwd=tmp_path).stdout
    for line in (
        r"head\.weight \(tied to embed\.weight\)",
        r"inner\.1\.second\.weight \(tied to inner\.1\.first\.weight\)",
    ):
        assert re.search(line, text), text
    told = json.loads(tdsl("inspect", "net.model", "--format", "json", cwd=tmp_path).stdout)
    listed = {each["name"]: each["ties"] for each in told["runs"][""]["models"]["Net"]}
    assert listed["embed.weight"] == ["head.weight", "other.weight"]
    assert listed["other.bias"] == []


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "net"),
    [
        ("f32", NET),
        ("bf16", NET),
        ("f16", NET),
        ("f32", NET.replace("BatchNorm1d", "LayerNorm").replace("gelu(mid(h))", "dropout(mid(h), 0.3)")),
        ("bf16", NET.replace("gelu(norm(up(x)))", "softmax(norm(up(x)) * 2, dim=-1)")),
    ],
)
def test_what_is_kept_is_what_autograd_saves(precision: str, net: str, tmp_path: Path) -> None:
    """A twentieth apart at most: the measured storages are those of whole tensors, and rounded up to none."""
    unit = unit_of(precision=precision, net=net)
    folders = write(unit, "net", EXAMPLES / "program.model", tmp_path)
    ran = python("-W", "ignore", "-m", "tdsl.runtime.counting.memory", folders["emitted"])
    assert ran.returncode == 0, ran.stderr
    measured = json.loads(ran.stdout)
    found = memory(unit, "net")
    assert found.activations == pytest.approx(measured["kept"], rel=0.05)
    assert found.copies == measured["copies"]


def test_the_examples_keep_what_is_planned(tmp_path: Path) -> None:
    from tdsl.compiler.driver import read

    for name in ("autoencoder", "digits"):
        unit, _ = read(EXAMPLES / f"{name}.model")
        assert unit is not None
        folders = write(unit, name, EXAMPLES / f"{name}.model", tmp_path / name)
        ran = python("-W", "ignore", "-m", "tdsl.runtime.counting.memory", folders["emitted"])
        assert memory(unit, name).activations == pytest.approx(json.loads(ran.stdout)["kept"], rel=0.05)


ATTENTION = """module Attention(dim: int = 64, heads: int = 4) {
    qkv  = Linear(dim, 3 * dim, bias=false)
    proj = Linear(dim, dim, bias=false)
    forward(x: float[B, T, dim]) -> float[B, T, dim] {
        q, k, v = qkv(x).chunk(3, dim=-1)
        q = rope(rearrange(q, "b t (h d) -> b h t d", h=heads))
        k = rope(rearrange(k, "b t (h d) -> b h t d", h=heads))
        v = rearrange(v, "b t (h d) -> b h t d", h=heads)
        return proj(rearrange(attention(q, k, v, causal=true), "b h t d -> b t (h d)"))
    }
}
module Net(dim: int = 64) {
    embed  = Linear(16, 32 * dim)
    blocks = [Attention(dim) for i in range(2)]
    head   = Linear(dim, 16)
    forward(x: float[B, 16]) -> float[B, 16] {
        h = rearrange(embed(x), "b (t d) -> b t d", d=dim) |> blocks
        return head(h.mean(dim=1))
    }
}
"""
# A gradient of the first order, one of the second, and three of those side by side.
GRADS = {
    "first": "g = grad(u.sum(), batch.x)\n        return (g ** 2).mean()",
    "second": "g = grad(u.sum(), batch.x)\n        d = grad(g[:, 0].sum(), batch.x)\n        return (d ** 2).mean()",
    "laplacian": "g = grad(u.sum(), batch.x)\n        a = grad(g[:, 0].sum(), batch.x)\n"
    "        b = grad(g[:, 1].sum(), batch.x)\n        c = grad(g[:, 2].sum(), batch.x)\n"
    "        return (a[:, 0] + b[:, 1] + c[:, 2]).square().mean()",
}


def test_a_part_that_is_handed_on_keeps_what_it_is_a_part_of(tmp_path: Path) -> None:
    """The values of an attention lie in the joint projection, all of which stays for their sake."""
    unit = unit_of(net=ATTENTION, precision="bf16")
    folders = write(unit, "net", EXAMPLES / "program.model", tmp_path)
    ran = python("-W", "ignore", "-m", "tdsl.runtime.counting.memory", folders["emitted"])
    assert memory(unit, "net").activations == pytest.approx(json.loads(ran.stdout)["kept"], rel=0.01)


def test_what_grad_keeps_is_estimated_too_high_rather_than_too_low(tmp_path: Path) -> None:
    """Of three programs, in one process."""
    net = NET.replace("norm = BatchNorm1d(width)", "norm = LayerNorm(width)").replace("gelu(mid", "tanh(mid")
    units = {}
    for name, loss in GRADS.items():
        body = f"loss(batch) {{\n        u = model(batch.x)\n        {loss}\n    }}"
        text = RUN.replace("loss(batch) { return cross_entropy(model(batch.x), batch.y) }", body)
        text = text.replace("OPTIMIZER", "SGD()").replace("PRECISION", "f32")
        units[name] = built(net + text, EXAMPLES / "program.model")
    folders = [write(unit, "net", EXAMPLES / "x.model", tmp_path / name)["emitted"] for name, unit in units.items()]
    code = "import sys, json; from pathlib import Path; from tdsl.runtime.counting.memory import kept; "
    code += "print(json.dumps([kept(Path(each))['kept'] for each in sys.argv[1:]]))"
    ran = python("-W", "ignore", "-c", code, *folders)
    assert ran.returncode == 0, ran.stderr
    for unit, measured in zip(units.values(), json.loads(ran.stdout), strict=True):
        found = memory(unit, "net")
        assert measured <= found.activations + found.differentiated <= 2.5 * measured
        assert found.differentiated > found.activations
    assert memory(unit_of(), "net").differentiated == 0


OPTIONS = [
    "",
    "momentum=0.9",
    "momentum=0.9, nesterov=true",
    "amsgrad=true",
    "centered=true",
    "centered=true, momentum=0.5",
]


def _options(name: str) -> list[str]:
    takes = set(MORE.get(name, ()))
    return [o for o in OPTIONS if all(word.partition("=")[0] in takes | {"nesterov"} for word in o.split(", ") if word)]


@pytest.mark.parametrize(
    ("name", "options"), [(n, o) for n in OPTIMIZERS for o in _options(n) if "nesterov" not in o or n == "SGD"]
)
def test_optimizer_state_is_as_large_as_pytorchs(name: str, options: str) -> None:
    net = NET.replace("norm(up(x))", "up(x)").replace("    norm = BatchNorm1d(width)\n", "").replace(
        "    out  = Linear(width, 16, weight=back.weight, bias=false)\n", "").replace("out(h) + ", "")  # fmt: skip
    given = f"lr=0.1{', ' if options else ''}{options}"
    kind: Any = getattr(optim, name, None) or getattr(torch.optim, name)
    args = eval(f"dict({given.replace('true', 'True')})")
    model = nn.Linear(7, 9, bias=name != "Muon")
    made = kind(model.parameters(), **args)
    model(torch.ones(2, 7)).sum().backward()
    made.step()
    weight = model.weight
    tensors = [v for v in made.state[weight].values() if isinstance(v, torch.Tensor) and v.shape == weight.shape]
    if name == "Muon":
        assert STATES[name] == len(tensors)
        return
    found = memory(unit_of(f"{name}({given})", net=net), "net")
    assert found.optimizer == len(tensors) * found.gradients


def test_frozen_parameters_have_neither_gradients_nor_state() -> None:
    free, frozen = (memory(unit_of(more=more), "net") for more in ("", '    freeze = ["mid.*"]'))
    mid = 4 * (32 * 32 + 32)
    assert frozen.parameters == free.parameters
    assert frozen.gradients == free.gradients - mid
    assert frozen.optimizer == free.optimizer - 2 * mid


def test_parts_of_a_batch_keep_less() -> None:
    plain = NET.replace("BatchNorm1d", "LayerNorm")
    whole, parts = (memory(unit_of(net=plain, more=more), "net") for more in ("", "    accumulate = 4"))
    assert (whole.rows, parts.rows, parts.accumulate) == (512, 128, 4)
    assert parts.activations == pytest.approx(whole.activations / 4, rel=0.01)
    assert parts.gradients == whole.gradients
    assert parts.peak < whole.peak


def test_the_accumulate_that_would_fit() -> None:
    unit = unit_of(net=NET.replace("BatchNorm1d", "LayerNorm"))
    found = memory(unit, "net")
    assert fit(unit, "net", found, found.peak + RESERVED).fits
    tight = fit(unit, "net", found, found.peak + RESERVED - 1)
    assert (tight.fits, tight.accumulate) == (False, 2)
    half = fit(unit, "net", found, found.peak // 4 + RESERVED)
    assert half.accumulate is not None
    assert half.accumulate >= 4
    assert fit(unit, "net", found, RESERVED).accumulate is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * 2**30), ("24 GB", 24 * 10**9), ("512MiB", 2**29), ("1.5kib", 1536), ("9B", 9), ("24", None), ("x", None), ("-1GiB", None)],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    assert size_of(text) == size


def test_the_command_tells_all_of_it_and_imports_no_torch() -> None:
    code = (
        "import sys; from tdsl.compiler.cli import main\n"
        "s = main(['inspect', 'examples/digits.model', '--memory', '24GiB', '--format', 'json'])\n"
        "print([m for m in ('torch', 'numpy') if m in sys.modules], file=sys.stderr); sys.exit(s)"
    )
    ran = python("-c", code, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "[]\n")
    run = json.loads(ran.stdout)["runs"]["digits"]
    assert run["fit"] == {"limit": 24 * 2**30, "fits": True, "accumulate": 1, "possible": True}
    sizes = {name: run["memory"][name] for name in Memory.__dataclass_fields__ if name not in ("assumed", "precision")}
    assert sizes["parameters"] == 4 * sum(each["count"] for each in run["models"]["model"])
    assert run["memory"]["peak"] > sum(sizes[name] for name in ("parameters", "optimizer", "activations"))


def test_tables(tmp_path: Path) -> None:
    ran = tdsl("inspect", EXAMPLES / "digits.model", "--memory", "769MiB")
    assert ran.returncode == 0, ran.stderr
    assert "does not fit in 769.0 MiB" in ran.stdout
    assert "activations kept for the backward" in ran.stdout
    (tmp_path / "net.model").write_text(NET)
    assert "back.weight" in tdsl("inspect", tmp_path / "net.model").stdout
    wrong = tdsl("inspect", EXAMPLES / "digits.model", "--memory", "lots")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "tdsl: --memory takes a size, such as 24GiB, or `device`; not 'lots'\n",
    )
