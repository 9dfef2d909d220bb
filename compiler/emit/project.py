"""All the files of an emitted project, as text by name. The same source always gives the same text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tdsl import __version__
from tdsl.compiler import pipeline
from tdsl.compiler.build.unit import Unit
from tdsl.compiler.emit.data import emit_data
from tdsl.compiler.emit.evaluate import emit_evaluate
from tdsl.compiler.emit.kernels_file import emit_kernels
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.emit.predict import emit_predict
from tdsl.compiler.emit.train import emit_checkpoint, emit_train
from tdsl.compiler.inspect import parameters

RUNTIME = "tdsl.runtime"
# What a standalone project calls the run-time files that are copied into it.
STANDALONE = "tdsl_runtime"
# Modules of the run time that emitted code does not import.
TOOLS = ("aot.py", "registers.py", "verify.py", "export.py", "counting")


@dataclass(frozen=True)
class Options:
    """`run` is the one emitted; `root` leads from the emitted folder to the program's."""

    run: str | None
    root: str = "../../.."
    standalone: bool = False
    allow_outside: bool = False


def emit(unit: Unit, options: Options) -> dict[str, str]:
    """The project: modules and kernels always, data and scripts for a run."""
    source = Path(unit.program.source.name).name
    groups = pipeline.groups(unit)
    files = {"model.py": model_text(unit)}
    if groups:
        files["kernels.py"] = emit_kernels(groups, source)
    if options.run is not None:
        files |= _scripts(unit, options.run, options)
    files["program.model"] = unit.program.source.text
    files["program.json"] = _record(unit, options)
    return _standalone(files) if options.standalone else files


def _scripts(unit: Unit, name: str, options: Options) -> dict[str, str]:
    run = unit.runs[name]
    data = emit_data(
        run.spec.data,
        unit.program.consts,
        limits=run.limits,
        root=options.root,
        allow_outside=options.allow_outside,
    )
    evaluation = unit.evaluations.get(name)
    predict = emit_predict(unit, run, evaluation)
    return {
        "data.py": data,
        "train.py": emit_train(unit, run),
        "checkpoint.py": emit_checkpoint(unit, run),
        "evaluate.py": emit_evaluate(unit, run, evaluation),
        **({"predict.py": predict} if predict is not None else {}),
    }


def _record(unit: Unit, options: Options) -> str:
    """`program.json`: what made the project, and how large it is."""
    text = unit.program.source.text
    models = {}
    if options.run is not None:
        for name, member in unit.runs[options.run].models.items():
            found = parameters(unit, member)
            models[name] = {"class": member.class_name, "parameters": sum(p.count for p in found)}
    record = {
        "tdsl": __version__,
        "source": Path(unit.program.source.name).name,
        "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        "run": options.run,
        "models": models,
        "classes": [m.class_name for m in unit.modules],
        "groups": [g.name for g in pipeline.groups(unit)],
    }
    return json.dumps(record, indent=2) + "\n"


def _standalone(files: Mapping[str, str]) -> dict[str, str]:
    """The project with the run-time files beside it, importing those instead of the installed package."""
    folder = Path(__file__).resolve().parent.parent.parent / "runtime"
    found = dict(files)
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and path.suffix in (".py", ".jinja", ".html", ".css") and inner.parts[0] not in TOOLS:
            found[f"{STANDALONE}/{inner.as_posix()}"] = path.read_text(encoding="utf-8")
    return {name: text.replace(RUNTIME, STANDALONE) for name, text in found.items()}


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write the files, each whole or not at all."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(text, encoding="utf-8", newline="\n")
        aside.replace(path)
