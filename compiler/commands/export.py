"""`tdsl export`: a checkpoint in another format, compared with the model before it is there."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from tdsl.compiler.commands import process
from tdsl.compiler.commands.program import Stop, chosen, complain, program
from tdsl.compiler.commands.scripts import importable

# What a file is called where no name is given.
ENDINGS = {"state_dict": ".pt", "module": ".module.pt", "safetensors": ".safetensors", "pt2": ".pt2", "onnx": ".onnx"}


def run(options: Namespace) -> int:
    from tdsl.compiler.explain.compare import write

    unit = program(options)
    name = chosen(unit, options.run, needed=True)
    assert name is not None
    run = unit.runs[name]
    if options.model not in run.models:
        complain(f"`{name}` has no model `{options.model}`; there are: {', '.join(run.models)}")
        raise Stop(2)
    here = Path(options.file).parent
    out: Path = options.out or here / "runs" / name
    file: Path = options.output or Path(f"{name}{ENDINGS[options.target]}")
    if options.target == "pt2" and file.suffix != ".pt2":
        complain(f"PyTorch wants a program's file to end in .pt2, and this is `{file.name}`")
        raise Stop(2)
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        projects = write(unit, name, Path(options.file), Path(folder), options.allow_outside)
        given = {
            **projects,
            "output": file,
            "out": out,
            "checkpoint": options.checkpoint,
            "format": options.target,
            "precision": run.spec.settings.get("precision") or "f32",
            "device": options.device,
            "model": options.model,
        }
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-W", "ignore", "-m", "tdsl.runtime.export", *words]
        return process.call(command, env={**os.environ, **importable(here)})
