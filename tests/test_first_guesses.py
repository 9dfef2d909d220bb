"""What people write who have read only what the language is: each runs, or is told what to write instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tdsl.compiler.build.program import build
from tdsl.dsl.resolve import load
from tests.helpers import built, emitted, tdsl, written
from tests.running import loaded
from tests.test_emit_train import EXAMPLES

DATA = """
data D {
    source = csv("data/digits.csv")
    split  = sequential(train=0.5, val=0.25, test=0.25)
    field pixels: float[8, 8] = columns("p*").reshape(8, 8) / 16
    field label:  int[]       = column("label")
}
"""
NET = """
module Net(dim: int, classes: int = 10) {
    up   = Linear(dim ** 2, 4 * dim ** 2)
    head = Linear(4 * dim * dim, classes)
    forward(x: float[B, dim, dim]) -> float[B, classes] { return x.flatten(1) |> up |> relu |> head }
}
"""


def test_a_run_makes_its_models_by_position_and_reads_shaped_fields(tmp_path: Path) -> None:
    """And a second model may be called what a network of targets is called."""
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    text = f"""{NET}{DATA}
train t {{
    model  = Net(8, 10)
    target = Net(8)
    data   = D
    freeze = ["target"]
    optimizer = SGD(lr=0.1)
    epochs = 1
    loss(batch) {{
        scores = model(batch.pixels)
        return cross_entropy(scores, batch.label) + 0.1 * mse_loss(scores, detach(target(batch.pixels)))
    }}
}}

evaluate t {{
    compare(batch) {{ return model(batch.pixels), batch.label }}
    metrics = [Accuracy()]
}}
"""
    (tmp_path / "p.model").write_text(text)
    for command in ("train", "evaluate"):
        ran = tdsl(command, tmp_path / "p.model", "--out", tmp_path / "run", "--device", "cpu")
        assert ran.returncode == 0, ran.stderr
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["val/loss"] < 2.3


def test_a_field_is_computed_row_by_row(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    (tmp_path / "p.model").write_text(f"{NET}{DATA}{RUN}")
    assert tdsl("compile", tmp_path / "p.model", "-o", tmp_path / "out").returncode == 0
    assert 'table.columns("p*").reshape(-1, 8, 8) / 16' in (tmp_path / "out" / "data.py").read_text()


RUN = """
train t {
    model = Net(8)
    data  = D
    optimizer = SGD(lr=0.1)
    epochs = 1
    loss(batch) { return cross_entropy(model(batch.pixels), batch.label) }
}
"""


@pytest.mark.parametrize(
    "field", ['columns("p*").sort(dim=-1)', 'columns("p*").mean()', 'softmax(columns("p*"), dim=0)']
)
def test_a_field_that_would_mix_rows_is_refused(field: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    net = NET.replace("float[B, dim, dim]", "float[B, dim * dim]").replace("x.flatten(1)", "x")
    text = f"{net}{DATA}{RUN}".replace('columns("p*").reshape(8, 8) / 16', field).replace("[8, 8]", "[64]", 1)
    (tmp_path / "p.model").write_text(text)
    ran = tdsl("check", tmp_path / "p.model")
    assert ran.returncode == 2
    assert "E455" in ran.stderr
    assert "dim=-1" in ran.stderr


def test_powers_of_parameters_are_sizes(tmp_path: Path) -> None:
    unit = built("module M(r: int = 3) {\n    l = Linear(r ** 2, 2 * r ** 3)\n"
                 "    forward(x: float[B, r * r]) -> float[B, 2 * r * r * r] { return l(x) }\n}\n")  # fmt: skip
    model = loaded(written(emitted(unit), tmp_path)).M()
    assert model(torch.zeros(2, 9)).shape == (2, 54)


@pytest.mark.parametrize(("size", "code"), [("r ** 9", "E201"), ("r ** -1", "E201"), ("2 ** r", "E201")])
def test_other_powers_are_refused(size: str, code: str) -> None:
    text = f"module M(r: int = 3) {{\n    l = Linear({size}, 2)\n}}\n"
    program, reporter = load("p.model", text=text)
    assert program is not None
    assert build(program, reporter) is None
    assert [d.code for d in reporter.diagnostics] == [code]


def test_a_default_is_no_other_parameter() -> None:
    text = "module M(a: int, b: int = a) {\n    l = Linear(a, b)\n}\nmodule N() {\n    m = M(1, b=2)\n}\n"
    program, reporter = load("p.model", text=text)
    assert program is not None
    assert build(program, reporter) is None
    (told,) = reporter.diagnostics
    assert (told.code, told.span.line, told.help) == ("E120", 1, "give it where the module is made")


def test_an_extern_module_may_lie_beside_its_program(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    (tmp_path / "mine.py").write_text("from torch import nn\n\n\nclass Flat(nn.Flatten):\n    pass\n")
    text = f"{NET}{DATA}{RUN}".replace("x.flatten(1)", "flat(x)").replace("    up ", "    flat = Flat()\n    up ")
    extern = 'extern module Flat() : float[B, H, W] -> float[B, H * W] = "mine:Flat"\n'
    (tmp_path / "p.model").write_text(extern + text)
    ran = tdsl("train", tmp_path / "p.model", "--out", tmp_path / "run", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr


def test_compile_says_how_a_run_is_named(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    (tmp_path / "p.model").write_text(f"{NET}{DATA}{RUN}{RUN.replace('train t', 'train u')}")
    ran = tdsl("compile", tmp_path / "p.model", "-o", tmp_path / "out")
    assert ran.returncode == 2
    assert "t, u, with --run NAME" in ran.stderr
