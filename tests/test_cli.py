"""The command line: stages, refusals, exit statuses, and what is imported."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tdsl.compiler import cli
from tdsl.compiler.commands.program import SHORTHANDS
from tdsl.runtime import evaluation, prediction, run
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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("compil net.model", "unknown command `compil`: did you mean `compile`?"),
        ("zzz net.model", "unknown command `zzz`"),
        ("fmt --chek net.model", "unknown option `--chek`: did you mean `--check`?"),
        ("train net.model --epoch 3", "unknown option `--epoch`: did you mean `--epochs`?"),
        ("train net.model --devise=cpu", "unknown option `--devise`: did you mean `--device`?"),
        ("evaluate net.model --spilt val", "unknown option `--spilt`: did you mean `--split`?"),
        ("compile net.model b.model", "unknown argument `b.model`"),
        ("predict net.model", "required: --input, --output"),
    ],
)
def test_what_is_not_known_is_told_with_the_nearest_name(
    line: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(expected)


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for flag in parser._option_string_actions if flag.startswith("--")} - {"--help", "--out"}


def test_the_options_of_the_scripts_are_options_of_the_commands() -> None:
    own = {
        "train": flags(run._parser("net", Path())) - {"--set", *(f"--{name}" for name in SHORTHANDS)},
        "evaluate": flags(evaluation._parser("net", Path(), "test", True)),
        "predict": flags(prediction._parser("net", Path())),
    }
    assert {name: {option[0] for option in options} for name, (_, options) in cli.SCRIPTS.items()} == own


def test_options_are_handed_to_the_script() -> None:
    words = ["evaluate", "net.model", "n", "--device", "cpu", "--seed", "3", "--split=val", "--predict", "a b.csv"]
    options = cli.command_line().parse_args(words)
    assert options.rest == ("--device=cpu", "--split=val", "--predict=a b.csv")
    assert (options.run, options.seed) == ("n", "3")


def test_the_name_of_a_run_may_stand_behind_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("tdsl.compiler.commands.scripts.run", lambda options: seen.append(options) or 0)
    for words in (["n", "--epochs", "3"], ["--epochs", "3", "n"], ["--device", "cpu", "n", "--epochs", "3"]):
        assert cli.main(["train", "net.model", *words]) == 0
    assert [(each.file, each.run, each.epochs) for each in seen] == 3 * [("net.model", "n", "3")]


def test_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], *([name] for name in cli.command_line().get_default("names"))):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


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
