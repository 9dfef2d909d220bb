"""The command `tdsl`. Each command imports what it needs: `check` and `compile` never import torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from tdsl import __version__
from tdsl.compiler.commands.program import SHORTHANDS, Stop

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 fine, 1 a run failed, 2 the program or the command line is wrong."""
    parser = command_line()
    options, rest = parser.parse_known_args(argv)
    if rest and not options.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        return int(import_module(f"tdsl.compiler.commands.{options.handler}").run(options))
    except Stop as stop:
        return stop.status
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def command_line() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(prog="tdsl", description="Neural networks, declared: checked, fused, compiled.")
    parser.add_argument("--version", action="version", version=f"tdsl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _new(commands)
    _on_text(commands)
    _on_runs(commands)
    _on_insides(commands)
    lsp = _command(commands, "lsp", "serve an editor: errors, hover, completion and more")
    lsp.add_argument("--stdio", action="store_true", help=argparse.SUPPRESS)  # as editors ask of any server
    return parser


def _new(commands: Commands) -> None:
    new = _command(commands, "new", "a commented starter program that runs, with data")
    new.add_argument("folder", type=Path, metavar="NAME", help="the folder to make, and the program's name")
    new.add_argument(
        "--template", choices=("tabular", "image", "text", "custom"), default="tabular", help="default: tabular"
    )


def _on_text(commands: Commands) -> None:
    _reading(commands, "check", "parse, resolve, prove shapes; nothing else", several=True)
    fmt = _command(commands, "fmt", "lay programs out in the one way")
    fmt.add_argument("files", nargs="+", metavar="FILE", help="- for the standard input")
    fmt.add_argument("--check", action="store_true", help="write nothing; status 1 where a file would change")
    fmt.add_argument("--diff", action="store_true", help="write nothing; print what would change")
    _format(fmt)


def _on_runs(commands: Commands) -> None:
    compile = _reading(commands, "compile", "emit PyTorch modules, Triton kernels and scripts")
    compile.add_argument("-o", "--out", type=Path, metavar="DIR", help="where the project goes")
    compile.add_argument("--run", metavar="NAME", help="the run whose scripts are emitted, where there are several")
    compile.add_argument("--standalone", action="store_true", help="copy the run-time files in: tdsl need not be there")
    compile.add_argument("--emit", choices=("ast", "ir", "fused", "kernels"), help="print a stage instead")
    for name in ("train", "evaluate", "predict"):
        script = _reading(commands, name, f"compile, then run {name}.py with the rest of the line")
        script.set_defaults(handler="scripts", script=f"{name}.py", passes_on=True)
        script.add_argument("run", nargs="?", metavar="NAME", help="the run, where the file has several")
        script.add_argument("--out", type=Path, metavar="DIR", help="default: runs/NAME beside the program")

    _on_export(commands)


def _on_export(commands: Commands) -> None:
    export = _reading(commands, "export", "a checkpoint in another format, compared with the model", told=False)
    export.add_argument("run", nargs="?", metavar="NAME", help="the run, where the file has several")
    export.add_argument("--checkpoint", default="best", metavar="best|last|PATH", help="which one (default: best)")
    export.add_argument(
        "--format",
        dest="target",
        required=True,
        choices=("state_dict", "module", "safetensors", "pt2", "onnx"),
        help="weights alone, the whole module, or a program",
    )
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: the run's name and the format's ending"
    )
    export.add_argument("--model", default="model", metavar="NAME", help="another model of the run")
    export.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder; default: runs/NAME beside the program"
    )
    export.add_argument(
        "--device", default="cpu", metavar="cpu|cuda|cuda:N", help="where it is computed (default: cpu)"
    )
    diff = _command(commands, "diff", "which weights of a checkpoint load into a changed program")
    diff.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a folder step-N, or a safetensors file")
    _program(diff)
    diff.set_defaults(format="text")
    diff.add_argument("run", nargs="?", metavar="NAME", help="the run, where the file has several")
    diff.add_argument("--model", default="model", metavar="NAME", help="another model of the run")
    diff.add_argument("--json", action="store_true", help="print all weights as JSON instead of tables")


def _on_insides(commands: Commands) -> None:
    inspect = _reading(commands, "inspect", "parameters by name, shape and count; memory")
    inspect.add_argument("--memory", metavar="24GiB|device", help="tell whether a step fits")
    graph = _reading(commands, "graph", "the model and its fusion groups as SVG")
    graph.add_argument("--module", metavar="NAME", help="this module instead of the models of the runs")
    graph.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="where the picture goes; default: standard output"
    )
    explain = _reading(commands, "explain", "each line's kernel, bytes, FLOPs; why what did not fuse did not")
    explain.add_argument("run", nargs="?", metavar="NAME", help="the run, where the file has several")
    explain.add_argument("--module", metavar="NAME", help="this module alone")
    explain.add_argument(
        "--registers",
        nargs="?",
        const="sm_90",
        choices=("sm_80", "sm_90", "sm_100", "gfx942"),
        help="compile the kernels ahead of time for this GPU (default: sm_90), and tell their registers",
    )
    explain.add_argument("--compare", choices=("eager",), help="count a step, beside one of plain PyTorch, instead")
    explain.add_argument(
        "--ops", action="store_true", help="with --compare: every operator and kernel that is launched"
    )
    verify = _reading(commands, "verify", "run every fused kernel against its reference", several=True)
    verify.add_argument("--ahead-of-time", action="store_true", help="compile for sm_80, sm_90, sm_100, gfx942 instead")


def _command(commands: Commands, name: str, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(handler=name, passes_on=False)
    return parser


def _reading(
    commands: Commands, name: str, help: str, several: bool = False, told: bool = True
) -> argparse.ArgumentParser:
    """A command that reads a program, with the options that say how; with `told`, `--format` is that of mistakes."""
    parser = _command(commands, name, help)
    if told:
        _format(parser)
    else:
        parser.set_defaults(format="text")
    _program(parser, several)
    return parser


def _program(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The program that is read, and how."""
    if several:
        parser.add_argument("files", nargs="+", metavar="FILE", help="- for the standard input")
    else:
        parser.add_argument("file", metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the run")
    parser.add_argument("--allow-outside", action="store_true", help="let data lie outside the program's folder")
    for shorthand in SHORTHANDS:
        parser.add_argument(f"--{shorthand}", metavar="N", help=f"short for --set {shorthand}=N")


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how mistakes are printed")
