"""`extern module`: a Python class by its declared types, in emitted code and in errors."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import compiled, emitted, mistakes
from tests.running import executed

EXTERNS = """
# Twice as many features.
extern module Wide(dim: int, p: float = 0.5) : float[B, dim] -> float[B, 2 * dim] = "their_nets.blocks:Widened"
extern module Pair() : (float[B, N], int[B]) -> (float[B, N], float[B]) = "their_nets.blocks:Pair"
"""
NET = """
module Net(dim: int = 4) {
    wide = Wide(dim, p=0.25)
    more = [Wide(2 * dim), Wide(4 * dim, 0.75)]
    seq  = Sequential(Wide(8 * dim), ReLU())
    pair = Pair()
    head = Linear(_, 3)
    forward(x: float[B, dim], n: int[B]) -> (float[B, 3], float[B]) {
        y = wide(x) |> more |> seq
        y, s = pair(y, n)
        return head(y), s
    }
}
"""
PYTHON = """
import torch
from torch import nn

class Widened(nn.Module):
    def __init__(self, dim, p=0.5):
        super().__init__()
        self.p = p
        self.l = nn.Linear(dim, 2 * dim)

    def forward(self, x):
        return self.l(x) * self.p

class Pair(nn.Module):
    def forward(self, x, n):
        return x * n[:, None], x.sum(-1)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "their_nets"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "blocks.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("their_nets", "their_nets.blocks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_an_extern_module_is_used_as_any(package: Path) -> None:
    net = executed(EXTERNS + NET, package / "out").Net()
    assert [net.wide.p, net.more[0].p, net.more[1].p, net.head.in_features] == [0.25, 0.5, 0.75, 64]
    x, n = torch.randn(2, 4), torch.tensor([1, 2])
    wide = net.seq(net.more[1](net.more[0](net.wide(x))))
    y, s = net(x, n)
    torch.testing.assert_close(y, net.head(wide * n[:, None]))
    torch.testing.assert_close(s, wide.sum(-1))


def test_what_is_emitted() -> None:
    text = emitted(compiled(EXTERNS + NET))["model.py"]
    assert "from their_nets.blocks import Pair\nfrom their_nets.blocks import Widened as Wide\n" in text
    assert "self.wide = Wide(dim, p=0.25)" in text
    assert "class Wide" not in text


def test_a_run_may_train_one() -> None:
    from tdsl.compiler.emit.train import emit_train
    from tests.helpers import ROOT, built
    from tests.test_emit_train import LOSS, program

    text = 'extern module Net(classes: int = 10) : float[B, 64] -> float[B, classes] = "their_nets.blocks:Net"\n'
    unit = built(text + program(loss=f"return {LOSS}").partition("}\n\n")[2], ROOT / "examples" / "program.model")
    script = emit_train(unit, unit.runs["digits"])
    assert "from model import Net\n" in script
    assert "model = Net().to(device)" in script
    assert "from their_nets.blocks import Net as Net\n" in emitted(unit)["model.py"]


@pytest.mark.parametrize(
    "target",
    ["their_nets", "their_nets:", ":Net", "a.b", "a..b:C", "a:b.c", "a:1", "import:C", "a:class", "a b:C", "a:C ", "a-b:C",
     "os:system\\n", "a:C\\nimport os", "ä:C", "a:C;x"],
)  # fmt: skip
def test_a_malformed_target_is_told(target: str) -> None:
    (found,) = mistakes(f'extern module M() : [B] -> [B] = "{target}"\n')
    assert (found.code, found.message) == ("E211", "this names no Python class")
    assert found.span is not None
    assert found.span.text == f'"{target}"'
    assert found.help == 'write "package.module:Class", as in "mypackage.backbones:ResNet"'


@pytest.mark.parametrize(
    ("text", "code", "message", "caret"),
    [
        (
            'extern module M(f: fn) : [B] -> [B] = "a:C"\n',
            "E211",
            "a Python class takes no fn of this language",
            "f: fn",
        ),
        ('extern module M() : [b] -> [B] = "a:C"\n', "E110", "unknown size `b`", "b"),
        ('extern module M() : [B] -> [C] = "a:C"\n', "E110", "unknown size `C`", "C"),
        (
            EXTERNS + NET.replace("wide(x) |>", "wide(n) |>"),
            "E203",
            "shapes do not match in the call of `Wide`",
            "wide(n)",
        ),
        (
            EXTERNS + NET.replace("Wide(2 * dim)", "Wide(3 * dim)"),
            "E203",
            "shapes do not match in the call of",
            "wide(x)",
        ),
        (EXTERNS + NET.replace("p=0.25", "q=0.25"), "E202", "`Wide` has no argument `q`", "q=0.25"),
        (EXTERNS + NET.replace("pair(y, n)", "pair(y)"), "E202", "`pair` needs `input1`", "pair(y)"),
    ],
)
def test_mistakes(text: str, code: str, message: str, caret: str) -> None:
    found = mistakes(text)[0]
    assert found.code == code
    assert found.message.startswith(message)
    assert found.span is not None
    assert found.span.text.startswith(caret)


def test_no_string_reaches_the_code() -> None:
    """The syntax tree of what is emitted has the target's words as names alone."""
    tree = ast.parse(emitted(compiled(EXTERNS + NET))["model.py"])
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "their_nets.blocks"
    ]
    assert {(a.name, a.asname) for node in imports for a in node.names} == {("Widened", "Wide"), ("Pair", None)}
