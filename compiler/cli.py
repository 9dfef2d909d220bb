"""The command `tdsl`. Each command imports what it needs: `check` and `compile` never import torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from tdsl import __version__
from tdsl.compiler.commands.program import SHORTHANDS, Stop
from tdsl.dsl.names import did_you_mean

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Option: TypeAlias = tuple[str, str, str]
STATUS = (
    "Exit status: 0 fine; 1 a run failed, or a check of files found something; 2 the program or the command line is "
    "wrong; 128 and the signal's number where a signal stopped it. `tdsl COMMAND --help` tells a command's options."
)
_DEVICE: Option = ("--device", "auto|cpu|cuda|cuda:N", "where it is computed (default: auto)")
_CHECKPOINT: Option = ("--checkpoint", "best|last|PATH", "which one (default: best)")
# What the emitted scripts take beside what the program says.
SCRIPTS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "train": (
        "train a run: compile it, and run its train.py",
        (("--resume", "auto|none|PATH", "go on from the newest checkpoint, from none, or from that one"), _DEVICE),
    ),
    "evaluate": (
        "evaluate a run: a table, metrics.json, report.html",
        (
            _CHECKPOINT,
            ("--split", "NAME", "the split to evaluate on (default: test, where there is one)"),
            ("--predict", "FILE", "write the predictions of the split, too"),
            _DEVICE,
        ),
    ),
    "predict": (
        "results of a run for new rows, to a file",
        (
            ("--input", "FILE|SOURCE", "new rows: a file, or a source as a program writes it"),
            ("--output", "FILE", "where they go: .csv, .jsonl, .parquet or .npz"),
            _CHECKPOINT,
            _DEVICE,
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 fine, 1 a run failed, 2 the program or the command line is wrong."""
    words = sys.argv[1:] if argv is None else argv
    parser = command_line()
    if words and not words[0].startswith("-"):
        _known(parser, "command", words[0], parser.get_default("names"))
    options, rest = parser.parse_known_args(words)
    if rest and not rest[0].startswith("-") and options.named and options.run is None:
        options.run = rest.pop(0)  # which argparse does not find behind an option
    for word in rest:
        _known(options.parser, "option" if word.startswith("-") else "argument", word.partition("=")[0], options.flags)
    try:
        return int(import_module(f"tdsl.compiler.commands.{options.handler}").run(options))
    except Stop as stop:
        return stop.status
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _known(parser: argparse.ArgumentParser, what: str, word: str, known: Sequence[str]) -> None:
    """End where a word is none of those known, with the nearest of them."""
    if word not in known:
        near = did_you_mean(word, known)
        parser.error(f"unknown {what} `{word}`" + (f": {near}" if near else ""))


def command_line() -> argparse.ArgumentParser:
    """The parser of every command."""
    what = "Neural networks, declared: checked, fused, compiled."
    parser = argparse.ArgumentParser(prog="tdsl", description=what, epilog=STATUS)
    parser.add_argument("--version", action="version", version=f"tdsl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _new(commands)
    _on_text(commands)
    _on_runs(commands)
    _on_insides(commands)
    lsp = _command(commands, "lsp", "serve an editor: errors, hover, completion and more")
    lsp.add_argument("--stdio", action="store_true", help=argparse.SUPPRESS)  # as editors ask of any server
    parser.set_defaults(names=(*commands.choices,))
    for each in commands.choices.values():
        each.set_defaults(flags=(*each._option_string_actions,))
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
    fmt.add_argument("files", nargs="+", metavar="FILE", help="programs; - for the standard input")
    fmt.add_argument("--check", action="store_true", help="write nothing; status 1 where a file would change")
    fmt.add_argument("--diff", action="store_true", help="write nothing; print what would change")
    _format(fmt)


def _on_runs(commands: Commands) -> None:
    compile = _reading(commands, "compile", "emit PyTorch modules, Triton kernels and scripts")
    compile.add_argument("-o", "--out", type=Path, metavar="DIR", help="where the project goes")
    compile.add_argument("--run", metavar="NAME", help="the run whose scripts are emitted, where there are several")
    compile.add_argument("--standalone", action="store_true", help="copy the run-time files in: tdsl need not be there")
    compile.add_argument("--emit", choices=("ast", "ir", "fused", "kernels"), help="print a stage instead")
    for name, (help, passed) in SCRIPTS.items():
        script = _reading(commands, name, help)
        script.set_defaults(handler="scripts", script=f"{name}.py", rest=())
        _name(script)
        script.add_argument(
            "--out", type=Path, metavar="DIR", help="the run's folder; default: runs/NAME beside the program"
        )
        for flag, value, told in passed:
            needed = flag in ("--input", "--output")
            script.add_argument(
                flag, action=_Pass, required=needed, default=argparse.SUPPRESS, metavar=value, help=told
            )
    _on_export(commands)


class _Pass(argparse.Action):
    """An option for the script, which reads it."""

    def __call__(self, parser: object, namespace: argparse.Namespace, value: Any, flag: str | None = None) -> None:
        namespace.rest = (*namespace.rest, f"{flag}={value}")


def _on_export(commands: Commands) -> None:
    export = _reading(commands, "export", "a checkpoint in another format, compared with the model", told=False)
    _name(export)
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
    _name(diff)
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
    _name(explain)
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
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
    parser.set_defaults(handler=name, parser=parser, named=False)
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
        parser.add_argument("files", nargs="+", metavar="FILE", help="programs; - for the standard input")
    else:
        parser.add_argument("file", metavar="FILE", help="the program")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the run, such as optimizer.lr=1e-3",
    )
    parser.add_argument("--allow-outside", action="store_true", help="let data lie outside the program's folder")
    for shorthand in SHORTHANDS:
        parser.add_argument(f"--{shorthand}", metavar="N", help=f"short for --set {shorthand}=N")


def _name(parser: argparse.ArgumentParser) -> None:
    """The run that is meant."""
    parser.add_argument("run", nargs="?", metavar="NAME", help="the run, where the file has several")
    parser.set_defaults(named=True)


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how mistakes are printed")
