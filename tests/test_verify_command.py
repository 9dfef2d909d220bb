"""`tdsl verify`: in Triton's interpreter, and ahead of time for GPUs that are not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import ROOT, SHARED, compiled, emitted, python, tdsl, written

SMALL = """module Small(dim: int = 8) {
    param weight: [dim] = ones()
    forward(x: float[B, dim]) -> float[B, dim] { return gelu(x * weight) }
}
"""
PLAIN = "module Plain() {\n    forward(x: float[B, 4]) -> float[B, 4] { return x + 1 }\n}\n"


def test_every_kernel_agrees(tmp_path: Path) -> None:
    (tmp_path / "small.model").write_text(SMALL)
    ran = tdsl("verify", "small.model", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    agreed = re.search(r"(\d+) of (\d+) cases agree", ran.stdout)
    assert agreed is not None
    assert agreed[1] == agreed[2] != "0"


def test_several_programs_are_verified_at_once(tmp_path: Path) -> None:
    (tmp_path / "small.model").write_text(SMALL)
    (tmp_path / "plain.model").write_text(PLAIN)
    (tmp_path / "other.model").write_text(
        SMALL.replace("Small", "Other").replace("gelu(x * weight)", "tanh(x) + weight")
    )
    ran = tdsl("verify", "small.model", "plain.model", "other.model", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {line.split("│")[1].strip() for line in ran.stdout.splitlines() if line.startswith("│")} == {
        "small",
        "other",
    }


def test_a_size_that_is_known_to_be_one_stays_one(tmp_path: Path) -> None:
    (tmp_path / "small.model").write_text(SMALL.replace("= 8", "= 1").replace("x * weight", "where(x > 1, weight, x)"))
    ran = tdsl("verify", "small.model", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    """And a kernel that errs, and one that does not run."""
    folders = [written(emitted(compiled(SMALL)), tmp_path / name) for name in ("right", "wrong", "broken")]
    kernels = (folders[0] / "kernels.py").read_text()
    (folders[1] / "kernels.py").write_text(
        kernels.replace("tl.store(y_ptr + offsets, y,", "tl.store(y_ptr + offsets, y + 1,")
    )
    (folders[2] / "kernels.py").write_text(kernels.replace("mask=mask)", "mask=misk)"))
    told = []
    for jobs in (1, 3):
        options = ("--precision", "float32", "--jobs", str(jobs))
        ran = python("-m", "tdsl.runtime.verify_folders", *folders, *options, interpret=True)
        assert ran.returncode == 1, ran.stderr
        told.append(ran.stdout)
    assert told[0] == told[1]
    lines = {line.split("│")[1].strip(): line for line in told[0].splitlines() if line.startswith("│")}
    assert "ok" in lines["right"]
    assert "error too large" in lines["wrong"]
    assert "misk" in told[0]
    below = told[0].split("cases agree")[1]
    assert [line.split(",")[0] for line in below.splitlines() if "allowed" in line] == ["wrong", "broken"], below


def test_no_gradient_is_a_gradient_of_zeros(tmp_path: Path) -> None:
    """PyTorch's of `sign` are zeros; where they are others, none is a mistake."""
    unit = compiled("module M() { forward(x: [B, 8], y: [B, 8]) -> [B, 8] { return tanh(x) + sign(y) } }\n")
    folders = [written(emitted(unit), tmp_path / name) for name in ("right", "none", "wrong")]
    kernels, returned = (folders[0] / "kernels.py").read_text(), "return d_x, d_y_2.new_zeros(ctx.y_shape)\n"
    assert returned in kernels
    for folder, instead in zip(folders[1:], ("return d_x, None\n", "return None, None\n")):
        (folder / "kernels.py").write_text(kernels.replace(returned, instead))
    ran = python("-m", "tdsl.runtime.verify_folders", *folders, "--precision", "float32", interpret=True)
    told = [line for line in ran.stdout.splitlines() if "float32" in line]
    assert "ok" in told[0]
    assert "ok" in told[1]
    assert "error too large" in told[2]


def test_a_program_without_kernels_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain.model").write_text(PLAIN)
    ran = tdsl("verify", "plain.model", cwd=tmp_path)
    assert ran.returncode == 0
    assert "no fused kernels" in ran.stdout


def test_a_mistaken_program_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "wrong.model").write_text(SMALL.replace("gelu", "gelo"))
    ran = tdsl("verify", "wrong.model", cwd=tmp_path)
    assert ran.returncode == 2
    assert "gelo" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", ["examples/digits.model"])
def test_kernels_compile_ahead_of_time_without_spills(program: str) -> None:
    ran = tdsl("verify", "--ahead-of-time", ROOT / program)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 spill" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imbalanced", "triplet", "vae"])
def test_conformance_programs_agree(name: str) -> None:
    program = SHARED / "conformance" / f"{name}.model"
    if not program.exists():
        pytest.skip("the conformance programs lie outside the repository")
    ran = tdsl("verify", program)
    assert ran.returncode == 0, ran.stdout + ran.stderr
