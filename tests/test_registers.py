"""`tdsl explain --registers`: what threads of kernels take, compiled for GPUs that are not there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tdsl.compiler import pipeline
from tdsl.compiler.cases import case
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.explain.explain import explain
from tdsl.compiler.explain.model import Explanation, PartKind
from tdsl.compiler.explain.registers import TARGETS, with_registers
from tdsl.compiler.explain.show import show
from tests.helpers import built, compiled, environment, python, tdsl

NORM = """module Norm(dim: int = 64) {
    param weight: [dim] = ones()
    forward(x: float[B, dim]) -> float[B, dim] { return x * rsqrt(mean(x ** 2, dim=-1, keepdim=true) + 1e-6) * weight }
}
"""


def explained(text: str, module: str | None = None, target: str = "sm_90") -> Explanation:
    unit = built(text)
    return with_registers(explain(unit, module=module), unit, target, environment())


@pytest.mark.parametrize("target", TARGETS)
def test_each_kernel_has_registers(target: str) -> None:
    found = explained(NORM, "Norm", target)
    (part,) = (p for table in found.tables for p in table.parts if p.kind is PartKind.KERNEL)
    assert part.registers is not None
    assert part.registers.forward is not None
    assert part.registers.backward is not None
    assert 8 <= part.registers.forward <= 255
    assert 8 <= part.registers.backward <= 255
    assert part.registers.spilled == 0
    assert found.target == target


def test_no_gradient_no_backward() -> None:
    """By itself a module's input carries no gradient."""
    text = "module M() {\n    forward(x: float[B, 64]) -> float[B, 64] { return gelu(x) * sin(x) }\n}\n"
    (part,) = (p for table in explained(text).tables for p in table.parts)
    assert part.registers is not None
    assert part.registers.backward is None


def test_registers_are_of_the_shapes_that_a_kernel_is_called_with(tmp_path: Path) -> None:
    """A longer row takes more of them."""
    unit = compiled(NORM)
    groups = pipeline.groups(unit)
    (tmp_path / "kernels.py").write_text(emit_kernels(groups, "p.model"))
    shapes = [((4, columns), (columns,)) for columns in (16, 4096)]
    (tmp_path / "cases.json").write_text(json.dumps([case(groups[0], each) for each in shapes]))
    ran = python("-m", "tdsl.runtime.registers", tmp_path, "--target", "sm_80", "--dtype", "bf16")
    assert ran.returncode == 0, ran.stderr
    short, long = json.loads(ran.stdout)
    assert short["forward"]["registers"] < long["forward"]["registers"]


def test_the_text_tells_them_in_the_place_of_flops() -> None:
    found = explained(NORM, "Norm")
    console = Console(width=100, record=True, file=io.StringIO())
    show(found, console)
    lines = console.export_text().splitlines()
    (part,) = (p for table in found.tables for p in table.parts)
    assert part.registers is not None
    line = next(line for line in lines if "\u25a0" in line)
    assert f"{part.registers.forward}/{part.registers.backward}" in line.split()
    assert any("fwd/bwd" in line for line in lines)
    assert "Registers are those of a thread on sm_90, forward and backward." in lines


def test_the_command_tells_them(tmp_path: Path) -> None:
    (tmp_path / "norm.model").write_text(NORM)
    ran = tdsl("explain", tmp_path / "norm.model", "--module", "Norm", "--registers", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["target"] == "sm_90"
    (part,) = told["modules"][0]["parts"]
    assert set(part["registers"]) == {"forward", "backward", "spilled"}


def test_a_program_without_kernels_compiles_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.model").write_text("module P() {\n    forward(x: float[4]) -> float[4] { return x + 1 }\n}\n")
    ran = tdsl("explain", tmp_path / "plain.model", "--registers", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    assert all("registers" not in part for module in json.loads(ran.stdout)["modules"] for part in module["parts"])
