"""The command `tdsl`. Each command imports what it needs: `check` and `compile` never import torch."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdsl import __version__

if TYPE_CHECKING:
    from tdsl.compiler.build.unit import Unit
    from tdsl.dsl.diagnostics import Diagnostic

# Settings of the program that are options of their own.
SHORTHANDS = ("epochs", "steps", "seed")


class Stop(Exception):
    """The command ends here, with this status; what there is to say has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 fine, 1 a run failed, 2 the program or the command line is wrong."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and not options.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        return int(options.command(options))
    except Stop as stop:
        return stop.status
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tdsl", description="Neural networks, declared: checked, fused, compiled.")
    parser.add_argument("--version", action="version", version=f"tdsl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = _command(commands, "check", _check, "parse, resolve, prove shapes; nothing else")
    check.add_argument("files", nargs="+", metavar="FILE")
    compile = _command(commands, "compile", _compile, "emit PyTorch modules, Triton kernels and scripts")
    compile.add_argument("file", metavar="FILE")
    compile.add_argument("-o", "--out", type=Path, metavar="DIR", help="where the project goes")
    compile.add_argument("--run", metavar="NAME", help="the run whose scripts are emitted, where there are several")
    compile.add_argument("--standalone", action="store_true", help="copy the run-time files in: tdsl need not be there")
    compile.add_argument("--emit", choices=("ast", "ir", "fused", "kernels"), help="print a stage instead")
    train = _command(commands, "train", _train, "compile, then run train.py", passes_on=True)
    evaluate = _command(commands, "evaluate", _evaluate, "compile, then run evaluate.py", passes_on=True)
    for each in (train, evaluate):
        each.add_argument("file", metavar="FILE")
        each.add_argument("run", nargs="?", metavar="NAME", help="the run, where the file has several")
        each.add_argument("--out", type=Path, metavar="DIR", help="default: runs/NAME beside the program")
    verify = _command(commands, "verify", _verify, "run every fused kernel against its reference")
    verify.add_argument("file", metavar="FILE")
    verify.add_argument("--ahead-of-time", action="store_true", help="compile for sm_80, sm_90, sm_100, gfx942 instead")
    inspect = _command(commands, "inspect", _inspect, "parameters by name, shape and count; memory")
    inspect.add_argument("file", metavar="FILE")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: object,
    help: str,
    passes_on: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(command=function, passes_on=passes_on)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how mistakes are printed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the run")
    parser.add_argument("--allow-outside", action="store_true", help="let data lie outside the program's folder")
    for shorthand in SHORTHANDS:
        parser.add_argument(f"--{shorthand}", metavar="N", help=f"short for --set {shorthand}=N")
    return parser


# The program ---------------------------------------------------------------------------------------------------------


def overrides(options: argparse.Namespace) -> dict[str, str]:
    """`--set KEY=VALUE` and its shorthands."""
    found: dict[str, str] = {}
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals:
            print(f"tdsl: --set takes KEY=VALUE, not {text!r}", file=sys.stderr)
            raise Stop(2)
        found[key.strip()] = value.strip()
    for name in SHORTHANDS:
        if getattr(options, name) is not None:
            found[name] = getattr(options, name)
    return found


def load(file: str, options: argparse.Namespace, told: list[Diagnostic] | None = None) -> Unit | None:
    """The program as IR; its mistakes are printed (or collected in `told`), and None returned, where it has any."""
    from tdsl.compiler.driver import read

    unit, diagnostics = read(file, allow_outside=options.allow_outside, overrides=overrides(options))
    if told is not None:
        told += diagnostics
    else:
        tell(diagnostics, options)
    return unit


def tell(diagnostics: Sequence[Diagnostic], options: argparse.Namespace) -> None:
    """Print mistakes: to standard error as text, to standard output as JSON."""
    from tdsl.dsl.render import render, to_json

    if options.format == "json":
        print(to_json(diagnostics))
    elif diagnostics:
        color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        print(render(diagnostics, color=color), file=sys.stderr)


def program(options: argparse.Namespace) -> Unit:
    """The program after its passes; the command ends where it has mistakes."""
    from tdsl.compiler import pipeline

    unit = load(options.file, options)
    if unit is None:
        raise Stop(2)
    return pipeline.run(unit)


def chosen(unit: Unit, name: str | None, needed: bool) -> str | None:
    """The run that a command is about."""
    if name is not None and name not in unit.runs:
        from tdsl.dsl.names import did_you_mean

        help = did_you_mean(name, unit.runs) or f"there are: {', '.join(unit.runs) or 'none'}"
        print(f"tdsl: no run `{name}`; {help}", file=sys.stderr)
        raise Stop(2)
    if name is None and len(unit.runs) > 1:
        print(f"tdsl: the file has several runs; name one of: {', '.join(unit.runs)}", file=sys.stderr)
        raise Stop(2)
    if name is None and needed and not unit.runs:
        print("tdsl: the file declares no run: write `train NAME { ... }`", file=sys.stderr)
        raise Stop(2)
    return name or next(iter(unit.runs), None)


# Commands ------------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    told: list[Diagnostic] = []
    found = [load(file, options, told) for file in options.files]
    tell(told, options)
    if options.format == "text" and all(found):
        print(f"{len(found)} file{'s' if len(found) != 1 else ''} checked: no errors")
    return 0 if all(found) else 2


def _compile(options: argparse.Namespace) -> int:
    if options.emit is not None:
        return _print_stage(options)
    if options.out is None:
        print("tdsl: compile needs -o DIR", file=sys.stderr)
        return 2
    unit = program(options)
    name = chosen(unit, options.run, needed=False)
    write_project(unit, name, options.out, options, options.standalone)
    return 0


def write_project(
    unit: Unit, name: str | None, folder: Path, options: argparse.Namespace, standalone: bool = False
) -> None:
    """Emit into a folder."""
    from tdsl.compiler.driver import write

    try:
        write(unit, name, folder, Path(options.file), standalone=standalone, allow_outside=options.allow_outside)
    except OSError as error:
        print(f"tdsl: can't write {error.filename}: {error.strerror}", file=sys.stderr)
        raise Stop(1) from None


def _print_stage(options: argparse.Namespace) -> int:
    if options.emit == "ast":
        return _print_ast(options)
    from tdsl.compiler import pipeline
    from tdsl.compiler.printer import dump

    unit = load(options.file, options)
    if unit is None:
        return 2
    if options.emit != "ir":
        unit = pipeline.run(unit)
    if options.emit == "kernels":
        from tdsl.compiler.emit.kernels_file import emit_kernels

        print(emit_kernels(pipeline.groups(unit), Path(options.file).name), end="")
        return 0
    for graph in unit.graphs():
        print(dump(graph))
    return 0


def _print_ast(options: argparse.Namespace) -> int:
    from tdsl.dsl.diagnostics import Reporter, Source
    from tdsl.dsl.parser import parse

    reporter = Reporter()
    try:
        text = Path(options.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return 0 if load(options.file, options) else 2
    file = parse(Source(options.file, text), reporter)
    tell(reporter.diagnostics, options)
    print("\n".join(_tree("", file)))
    return 2 if reporter.errors else 0


def _tree(name: str, value: object) -> Iterator[str]:
    """A node of the syntax tree, its plain fields beside it and its nodes below it, indented."""
    from dataclasses import fields, is_dataclass

    from tdsl.dsl.diagnostics import Span

    assert is_dataclass(value)
    found = {f.name: getattr(value, f.name) for f in fields(value) if not isinstance(getattr(value, f.name), Span)}
    below = {n: v if isinstance(v, tuple) else (v,) for n, v in found.items()}
    plain = [f"{n}={v!r}" for n, v in found.items() if not any(map(is_dataclass, below[n]))]
    yield f"{name}{type(value).__name__}({', '.join(plain)})"
    for label, values in below.items():
        for each in filter(is_dataclass, values):
            yield from (f"    {line}" for line in _tree(f"{label}: ", each))


def _folder(options: argparse.Namespace, name: str) -> Path:
    out: Path = options.out or Path(options.file).parent / "runs" / name
    return out


def _script(options: argparse.Namespace, script: str) -> int:
    """Compile into the run's folder, then run one of its scripts with the rest of the command line."""
    unit = program(options)
    name = chosen(unit, options.run, needed=True)
    assert name is not None
    out = _folder(options, name)
    write_project(unit, name, out / "emitted", options)
    command = [sys.executable, str(out / "emitted" / script), "--out", str(out), *options.rest]
    return subprocess.call(command, env={**os.environ, **_importable()})


def _importable() -> Mapping[str, str]:
    """Where the scripts find `tdsl`, if this one was not installed but is on the path."""
    here = str(Path(__file__).resolve().parent.parent / "src")
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (here, known)))} if Path(here, "tdsl").is_dir() else {}


def _train(options: argparse.Namespace) -> int:
    return _script(options, "train.py")


def _evaluate(options: argparse.Namespace) -> int:
    return _script(options, "evaluate.py")


def _verify(options: argparse.Namespace) -> int:
    """Numerics on the GPU, or in Triton's interpreter where there is none."""
    from tdsl.compiler import pipeline
    from tdsl.compiler.cases import cases
    from tdsl.compiler.emit.kernels_file import emit_kernels

    unit = program(options)
    groups = pipeline.groups(unit)
    if not groups:
        print("no fused kernels: PyTorch computes each operation of this program as well alone")
        return 0
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        Path(folder, "kernels.py").write_text(emit_kernels(groups, options.file), encoding="utf-8")
        Path(folder, "cases.json").write_text(cases(groups), encoding="utf-8")
        module = "tdsl.runtime.aot" if options.ahead_of_time else "tdsl.runtime.verify"
        return subprocess.call([sys.executable, "-W", "ignore", "-m", module, folder], env=_verifying(options))


def _verifying(options: argparse.Namespace) -> dict[str, str]:
    env = {**os.environ, **_importable()}
    if options.ahead_of_time:
        env.pop("TRITON_INTERPRET", None)
    elif not Path("/proc/driver/nvidia").exists() and not Path("/dev/kfd").exists():
        env["TRITON_INTERPRET"] = "1"
    return env


def _inspect(options: argparse.Namespace) -> int:
    from tdsl.compiler.inspection import show

    unit = load(options.file, options)
    if unit is None:
        return 2
    show(unit)
    return 0
