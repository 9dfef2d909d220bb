"""What several tests need: programs compiled from text, emitted folders, and processes that run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tdsl.compiler import pipeline
from tdsl.compiler.build.program import build
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.cases import cases
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.ir import Graph, Group
from tdsl.compiler.passes.tidy import prune, share
from tdsl.compiler.probe import probe
from tdsl.dsl.diagnostics import Diagnostic
from tdsl.dsl.facts import Prober
from tdsl.dsl.resolve import load
from tests import forked

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
PLAIN = ("contiguous", False)
UNFUSED: tuple[pipeline.Pass, ...] = (share, prune)


def elaborate(
    text: str, name: str | Path = "net.model", look: Prober | None = None
) -> tuple[Unit | None, list[Diagnostic]]:
    """The program as IR, None where it has mistakes, and what is told of it; files of data are read by `look`."""
    program, reporter = load(name, text=text, probe=look)
    unit = build(program, reporter) if program else None
    return unit, reporter.diagnostics


def built(text: str, name: str | Path = "program.model") -> Unit:
    """The program as IR, before any pass; an assertion tells its mistakes."""
    unit, told = elaborate(text, name, probe)
    assert unit is not None, "\n".join(f"{d.code} {d.message} {d.span} {d.label}" for d in told)
    return unit


def mistakes(text: str) -> list[Diagnostic]:
    """What is told of a program that is refused."""
    unit, told = elaborate(text)
    assert unit is None
    assert told
    return told


def compiled(
    text: str, passes: tuple[pipeline.Pass, ...] = pipeline.PASSES, name: str | Path = "program.model"
) -> Unit:
    """The program after `passes`, verified after each."""
    return pipeline.run(built(text, name), passes)


def graph_of(unit: Unit, module: str) -> Graph:
    """The graph of a module by its class's name."""
    return next(m.graph for m in unit.modules if m.class_name == module)


def group_of(unit: Unit, module: str) -> Group:
    """The one group that a module became."""
    (node,) = graph_of(unit, module).nodes
    assert node.group is not None, f"{module} is the single operation {node.op.name}"
    return node.group


def emitted(unit: Unit) -> dict[str, str]:
    """`model.py`, and `kernels.py` with its cases where there are groups."""
    groups = pipeline.groups(unit)
    files = {"model.py": model_text(unit)}
    if groups:
        files |= {"kernels.py": emit_kernels(groups, unit.program.source.name), "cases.json": cases(groups)}
    return files


def written(files: dict[str, str], folder: Path) -> Path:
    """The folder with these files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def environment(**more: str) -> dict[str, str]:
    """One thread, the package importable, Triton compiling (the interpreter must be asked for)."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    kept = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "TDSL_DUMP")}
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "NO_COLOR": "1", **more}


def python(
    *args: str | Path, interpret: bool = False, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own; Triton's interpreter must be chosen before Triton is imported.

    Scripts, modules of this project and what is interpreted are forked from a process that has imported torch; for
    anything else, and with options or variables of Python's own, the process is a new one.
    """
    words = [*map(str, args)]
    more = {**({"TRITON_INTERPRET": "1"} if interpret else {}), **env}
    ours = words[0].endswith(".py") or (words[0] == "-m" and words[1].startswith(("tdsl.", "tests.")))
    if (ours or interpret) and not any(name.startswith("PYTHON") for name in env):
        return forked.run(words, environment(**more), cwd)
    return _new([sys.executable, *words], environment(**more), cwd)


def _new(command: Sequence[str], env: dict[str, str], cwd: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def tdsl(*args: str | Path, cwd: Path | None = None, new: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, forked as `python` does it; in a `new` process where that is what is tested."""
    words = ["-c", "import sys; from tdsl.compiler.cli import main; sys.exit(main())", *map(str, args)]
    if new or any(name.startswith("PYTHON") for name in env):
        return _new([sys.executable, *words], environment(**env), cwd)
    return forked.run(words, environment(**env), cwd)


def disagreements(folder: Path, precisions: Sequence[str] = ("float32", "float16")) -> list[str]:
    """Each case of a folder's `cases.json` in which a kernel and its reference disagree, in the interpreter."""
    ran = python("-m", "tests.helpers", folder, *precisions, interpret=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-4000:]
    told: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return told


def _disagreements(folder: Path, precisions: Sequence[str]) -> list[str]:
    import torch

    from tdsl.runtime import verify

    torch.set_num_threads(1)
    torch.manual_seed(0)
    kernels = verify.load(folder / "kernels.py")
    found = []
    declared: dict[str, object] = {}
    for case in verify.cases(folder / "cases.json"):
        # Every memory layout at the declared sizes, one at the others.
        if case.shapes != declared.setdefault(case.group, case.shapes) and (case.layout, case.special) != PLAIN:
            continue
        for precision in precisions:
            try:
                outcome = verify.verify(kernels, case, getattr(torch, precision), "cpu")
            except Exception as error:
                found.append(f"{precision} {case}: {type(error).__name__}: {str(error)[-600:]}")
                continue
            if not outcome.passed:
                found.append(f"{precision} {case}: {outcome.problem} {outcome.forward:.2f} {outcome.backward:.2f}")
    return found


if __name__ == "__main__":
    print(json.dumps(_disagreements(Path(sys.argv[1]), sys.argv[2:])))
