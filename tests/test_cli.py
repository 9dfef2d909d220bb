"""The command line: stages, refusals, exit statuses, and what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import environment, python, tdsl

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
    [("ast", "Module("), ("ir", "= tanh("), ("fused", "= group tanh_mul("), ("kernels", "@triton.jit")],
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
    assert sorted({p.name.split("-")[1] for p in (folder / "dump").iterdir()}) == [
        "fuse", "prune", "recognise", "share", "structure",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [["check", "net.model"], ["compile", "net.model", "-o", "out"]])
def test_checking_and_compiling_import_neither_torch_nor_numpy(command: list[str], folder: Path) -> None:
    heavy = "('torch', 'triton', 'numpy', 'pyarrow', 'rich', 'sympy')"
    code = f"import sys; from tdsl.compiler.cli import main; s = main({command!r}); print([m for m in {heavy} if m in sys.modules]); sys.exit(s)"
    ran = python("-c", code, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_program_by_the_standard_input() -> None:
    code = "import sys; from tdsl.compiler.cli import main; sys.exit(main(sys.argv[1:]))"

    def given(text: str, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *args]
        return subprocess.run(command, input=text, env=environment(), capture_output=True, text=True, check=False)

    assert given(PROGRAM, "check", "-").stdout == "1 file checked: no errors\n"
    wrong = given(PROGRAM.replace("tanh", "tanb"), "check", "-", "--format", "json")
    assert wrong.returncode == 2
    assert [(each["file"], each["line"]) for each in json.loads(wrong.stdout)] == [("<stdin>", 3)]
    assert given("const a=1\n", "fmt", "-").stdout == "const a = 1\n"
    assert given("const a=1\n", "fmt", "--check", "-").returncode == 1


def test_help_has_a_line_for_each_command() -> None:
    lines = tdsl("--help").stdout.splitlines()
    found = [
        line.split()[0] for line in lines[lines.index("commands:") + 2 :] if line.startswith("    ") and line[4] != " "
    ]
    assert found == [
        "new",
        "check",
        "fmt",
        "compile",
        "train",
        "evaluate",
        "predict",
        "export",
        "diff",
        "inspect",
        "graph",
        "explain",
        "verify",
        "lsp",
    ]


def test_the_language_server_says_what_it_needs() -> None:
    code = "import sys; sys.modules['pygls'] = None; from tdsl.compiler.cli import main; sys.exit(main(['lsp']))"
    ran = python("-c", code)
    assert (ran.returncode, ran.stderr) == (2, "tdsl: the language server needs pygls: pip install 'tdsl[editor]'\n")
