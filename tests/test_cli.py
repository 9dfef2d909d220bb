"""The command line: stages, refusals, exit statuses, and what is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import python, tdsl

PROGRAM = """module Net(dim: int = 8) {
    up = Linear(dim, dim)
    forward(x: float[B, dim]) -> float[B, dim] { return tanh(up(x)) * x }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.model").write_text(PROGRAM)
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "shows"),
    [("ast", "Module("), ("ir", "= tanh("), ("fused", "= group tanh("), ("kernels", "@triton.jit")],
)
def test_a_stage_is_printed(stage: str, shows: str, folder: Path) -> None:
    ran = tdsl("compile", "net.model", "--emit", stage, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert shows in ran.stdout


def test_modules_alone_become_two_files_and_a_record(folder: Path) -> None:
    assert tdsl("compile", "net.model", "-o", "out", cwd=folder).returncode == 0
    assert {p.name for p in (folder / "out").iterdir()} == {"model.py", "kernels.py", "program.json", "program.model"}


@pytest.mark.parametrize(
    "arguments",
    [[], ["compile", "net.model"], ["compil", "net.model"], ["check"], ["check", "net.model", "--unknown"],
     ["train", "net.model"], ["train", "net.model", "nothing"], ["check", "net.model", "--set", "epochs"]],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_command_line(arguments: list[str], folder: Path) -> None:
    ran = tdsl(*arguments, cwd=folder)
    assert ran.returncode == 2
    assert ran.stderr
    assert "Traceback" not in ran.stderr


def test_each_pass_is_dumped(folder: Path) -> None:
    assert tdsl("compile", "net.model", "-o", "out", cwd=folder, TDSL_DUMP=str(folder / "dump")).returncode == 0
    assert sorted({p.name.split("-")[1] for p in (folder / "dump").iterdir()}) == ["fuse", "prune", "share"]


@pytest.mark.parametrize("command", [["check", "net.model"], ["compile", "net.model", "-o", "out"]])
def test_checking_and_compiling_import_neither_torch_nor_numpy(command: list[str], folder: Path) -> None:
    heavy = "('torch', 'triton', 'numpy', 'pyarrow', 'rich', 'sympy')"
    code = f"import sys; from tdsl.compiler.cli import main; s = main({command!r}); print([m for m in {heavy} if m in sys.modules]); sys.exit(s)"
    ran = python("-c", code, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"
