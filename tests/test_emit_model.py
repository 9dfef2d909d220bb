"""Emitted modules: their text, and that they compute what hand-written PyTorch does."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdsl.compiler.build.unit import (
    ConstantMember,
    LayerMember,
    ListMember,
    Member,
    ModuleIR,
    ModuleMember,
    ParameterIR,
    RepeatMember,
    RunIR,
    SequentialMember,
    TensorMember,
    Unit,
)
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.ir import Graph, Scalar, TensorType
from tdsl.compiler.passes.fuse import fuse
from tdsl.compiler.size import Size, Symbol
from tests.graphs import REST, B, body, param, tensor


def module(name: str, graph: Graph, members: dict[str, Member] | None = None, **more: Any) -> ModuleIR:
    params = tuple(more.pop("params", ()))
    ties = tuple(more.pop("ties", ()))
    return ModuleIR(name, cast(Any, None), params, members or {}, ties, graph, **more)


def unit(*modules: ModuleIR, runs: dict[str, RunIR] | None = None) -> Unit:
    program = SimpleNamespace(source=SimpleNamespace(name="some/digits.model"))
    return Unit(cast(Any, program), modules, runs or {})


def executed(text: str, **names: Any) -> SimpleNamespace:
    space: dict[str, Any] = dict(names)
    exec(compile(text, "model.py", "exec"), space)
    return SimpleNamespace(**space)


def integer(name: str, default: int | None = None) -> ParameterIR:
    return ParameterIR(name, "int", default, default is None)


def mlp() -> ModuleIR:
    x = tensor("x", B, 64)
    b = body(x)
    h = b("gelu", b.linear("up", x, 64, param("hidden")), name="h")
    rate = Scalar(None, "0.1 if self.training else 0.0")
    graph = b.graph((b.linear("down", b("dropout", h, rate), param("hidden"), param("classes")),), {})
    members: dict[str, Member] = {
        "up": LayerMember("nn.Linear", (("", 64), ("", param("hidden")))),
        "down": LayerMember("nn.Linear", (("", param("hidden")), ("", param("classes")), ("bias", False))),
    }
    params = (integer("hidden", 128), integer("classes", 10))
    return module("MLP", graph, members, params=params, doc="Two layers.")


MLP = '''\
"""Modules of digits.model, written by tdsl 0.1.0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Two layers."""

    def __init__(self, hidden: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.up = nn.Linear(64, hidden)
        self.down = nn.Linear(hidden, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, 64] -> [B, classes]
        h = F.gelu(self.up(x))  # [B, hidden]
        return self.down(F.dropout(h, 0.1, self.training))
'''


def test_the_text_of_a_module() -> None:
    assert model_text(unit(mlp())) == MLP
    assert model_text(unit(mlp())) == model_text(unit(mlp()))


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 32)
        self.down = nn.Linear(32, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.up(x)
        result: Tensor = self.down(F.dropout(F.gelu(hidden), 0.1, self.training))
        return result


def test_a_module_computes_what_pytorch_does() -> None:
    torch.manual_seed(0)
    hand = ByHand()
    made = executed(model_text(unit(mlp()))).MLP(hidden=32)
    made.load_state_dict(hand.state_dict())
    x = torch.randn(7, 64)
    for training in (True, False):
        results = []
        for each in (hand.train(training), made.train(training)):
            torch.manual_seed(1)
            each.zero_grad()
            loss = F.cross_entropy(each(x), torch.arange(7))
            loss.backward()
            results.append([loss.detach(), *(p.grad for p in each.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def norm_module() -> ModuleIR:
    x = tensor("x", REST, param("dim"))
    b = body(x)
    weight = b.parameter("weight", TensorType("float", (param("dim"),)))
    mean = b("mean", b("pow", x, 2), dim=-1, keepdim=True)
    scale = b("rsqrt", b("add", mean, Scalar(1e-6, "self.eps")))
    members: dict[str, Member] = {"weight": TensorMember((param("dim"),), "float", "ones", (), True)}
    params = (integer("dim"), ParameterIR("eps", "float", 1e-6, False))
    return module("RMSNorm", b.graph((b("mul", b("mul", x, scale), weight),), {}), members, params=params)


def block_module() -> ModuleIR:
    """The norm inlined: its `eps` is read through the module that has it."""
    x = tensor("x", B, param("dim"))
    b = body(x)
    weight = b.parameter("norm.weight", TensorType("float", (param("dim"),)))
    mean = b("mean", b("pow", x, 2), dim=-1, keepdim=True)
    scale = b("rsqrt", b("add", mean, Scalar(1e-5, "self.norm.eps")))
    h = b("mul", b("mul", x, scale), weight, name="h")
    graph = b.graph((b("add", x, b.linear("proj", h, param("dim"), param("dim"))),), {})
    members: dict[str, Member] = {
        "norm": ModuleMember("RMSNorm", (("", param("dim")), ("eps", 1e-5))),
        "proj": LayerMember("nn.Linear", (("", param("dim")), ("", param("dim")))),
    }
    return module("Block", graph, members, params=(integer("dim"),))


def gpt_module() -> ModuleIR:
    tokens = tensor("tokens", B, dtype="i64")
    b = body(tokens)
    kind = TensorType("float", (B, param("dim")))
    table = b.parameter("embed.weight", TensorType("float", (param("vocab"), param("dim"))))
    x = b("embedding", tokens, table, layer="embed", name="x")
    x = b.call("blocks", x, types=(kind,), name="x", op="call_list")
    graph = b.graph((b("linear", x, table, layer="head"),), {})
    members: dict[str, Member] = {
        "embed": LayerMember("nn.Embedding", (("", param("vocab")), ("", param("dim")))),
        "blocks": RepeatMember(ModuleMember("Block", (("", param("dim")),)), "i", param("layers")),
        "head": LayerMember("nn.Linear", (("", param("dim")), ("", param("vocab")), ("bias", False))),
    }
    params = (integer("vocab"), integer("dim", 8), integer("layers", 2))
    return module("GPT", graph, members, params=params, ties=[("head.weight", "embed.weight")])


class Norm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class HandBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = Norm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.proj(self.norm(x)))


class HandGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([HandBlock(8) for _ in range(2)])
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.head(x))


def test_nested_modules_lists_and_ties() -> None:
    text = model_text(unit(norm_module(), block_module(), gpt_module()))
    made, hand = executed(text).GPT(vocab=11), HandGPT()
    assert list(made.state_dict()) == list(hand.state_dict())
    assert made.head.weight is made.embed.weight
    made.load_state_dict(hand.state_dict())
    tokens = torch.tensor([1, 5, 10, 5])
    for each in (made, hand):
        F.cross_entropy(each(tokens), tokens).backward()
    pairs = zip(made.parameters(), hand.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-8) for a, b in pairs)


def test_parameters_are_kept_where_something_reads_them() -> None:
    text = model_text(unit(norm_module(), block_module(), gpt_module()))
    assert re.findall(r"self\.(\w+) = \1\b", text) == ["eps"]


def members_module() -> ModuleIR:
    """Members of every kind, one with a line that is too long."""
    elements = tuple(LayerMember("nn.Linear", (("", param("width")), ("", param("width")))) for _ in range(4))
    width = (param("width"),)
    x = tensor("x", B, param("width"))
    b = body(x)
    scale = b.parameter("scale", TensorType("float", width), False)
    graph = b.graph((b("mul", x, scale),), {})
    members: dict[str, Member] = {
        "short": ListMember(elements[:2]),
        "long": ListMember(elements),
        "net": SequentialMember((*elements, SequentialMember(elements), LayerMember("nn.ReLU", ()))),
        "steps": RepeatMember(LayerMember("nn.Linear", (("", param("i") + 1), ("", 2))), "i", 3),
        "layers": ConstantMember((1, 2.5, "a'\"b", None, True)),
        "half": ConstantMember(Scalar(None, "self.rate * 0.5")),
        "scale": TensorMember(width, "float", "constant", (("val", 0.5),), False),
        "count": TensorMember((), "i64", "zeros", (), False),
        "start": TensorMember(width, "float", "normal", (("mean", 2.0), ("std", 1e-3)), True),
        "matrix": TensorMember((*width, *width), "float", "xavier_uniform", (("gain", 2.0),), True),
        "eye": TensorMember((*width, *width), "float", "eye", (), True),
    }
    params = (integer("width", 3), ParameterIR("rate", "float", 0.5, False))
    return module("Members", graph, members, params=params)


def test_members_of_every_kind() -> None:
    made = executed(model_text(unit(members_module()))).Members()
    assert [len(made.short), len(made.long), len(made.net)] == [2, 4, 6]
    assert [step.in_features for step in made.steps] == [1, 2, 3]
    assert made.layers == (1, 2.5, "a'\"b", None, True)
    assert made.half == 0.25
    assert {name for name, _ in made.named_buffers()} == {"scale", "count"}
    assert torch.equal(made.scale, torch.full((3,), 0.5))
    assert made.count.dtype == torch.int64
    assert made.count.shape == ()
    assert (made.start - 2).abs().max() < 0.1
    assert torch.equal(made.eye, torch.eye(3))
    assert made.matrix.abs().max() <= 2
    x = torch.randn(2, 3)
    assert torch.equal(made(x), x * 0.5)


def test_what_strings_and_comments_say_is_not_imported() -> None:
    features = Size.of(Symbol("F"))
    x = tensor("x", features)
    b = body(x)
    graph = b.graph((b("add", x, 1.0),), {})
    text = model_text(unit(module("M", graph, {"a": ConstantMember("import kernels, \"math\" 'torch'")})))
    assert re.findall("^(?:import|from) .*", text, re.MULTILINE) == [
        "from __future__ import annotations",
        "from torch import Tensor, nn",
    ]


def test_parameters_that_a_loss_reads_are_kept() -> None:
    x = tensor("batch.x", B)
    b = body(x, owner="")
    loss = b.graph((b("sum", b("mul", x, Scalar(1e-6, "model.eps"))),), {})
    run = RunIR(cast(Any, None), {"model": ModuleMember("RMSNorm", ())}, loss)
    assert "self.dim" not in model_text(unit(norm_module(), runs={"run": run}))
    plain = replace(norm_module(), graph=Graph("forward", (), (), (), ()))
    assert "self.eps = eps" in model_text(unit(plain, runs={"run": run}))
    assert "self.eps = eps" not in model_text(unit(plain))


@pytest.mark.parametrize(
    "doc",
    ['Quotes """ within, or at the end"', "A backslash \\", "{{ braces }} {% raw %}", "Two\n\nparagraphs.", "w " * 99],
)
def test_documentation_is_text_and_nothing_else(doc: str) -> None:
    text = model_text(unit(module("Empty", Graph("forward", (), (), (), ()), doc=doc)))
    (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert (ast.get_docstring(found) or "").split() == doc.split()
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ["x y", "x\nimport os", "class", "", "x)", "naïve", "1x"])
def test_only_identifiers_become_names(name: str) -> None:
    x = tensor("x", B)
    b = body(x)
    graph = b.graph((b("exp", x),), {})
    with pytest.raises(ValueError, match="can't be a name"):
        model_text(unit(module(name, graph)))
    with pytest.raises(ValueError, match="can't be a name"):
        model_text(unit(module("M", graph, {name: ConstantMember(1)})))


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
def test_emitted_modules_are_ruff_clean(tmp_path: Path) -> None:
    modules = (mlp(), norm_module(), block_module(), gpt_module(), members_module())
    fused = unit(*modules).map_graphs(fuse)
    (tmp_path / "model.py").write_text(model_text(fused), encoding="utf-8")
    (tmp_path / "kernels.py").write_text("", encoding="utf-8")
    config = Path(__file__).resolve().parent.parent / "pyproject.toml"
    ruff = str(Path(sys.executable).parent / "ruff")
    command = [ruff, "check", "--no-cache", "--config", str(config), "model.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
