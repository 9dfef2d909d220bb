"""`tdsl verify`: fused kernels against their references, on the GPU or, without one, in Triton's interpreter."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from tdsl.compiler.commands import process
from tdsl.compiler.commands.program import program
from tdsl.compiler.commands.scripts import importable

# Where one of these is, there is a GPU: asking torch would import it. Not every sandbox shows all of them.
GPUS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd")


def run(options: Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="tdsl-") as root:
        made = [_emitted(file, options, Path(root, str(number))) for number, file in enumerate(options.files)]
        folders = [str(folder) for folder in made if folder is not None]
        if not folders:
            print("no fused kernels: PyTorch computes each operation of this program as well alone")
            return 0
        if options.ahead_of_time:
            return max(_run("tdsl.runtime.aot", [folder], options) for folder in folders)
        return _run("tdsl.runtime.verify_folders", folders, options)


def _run(module: str, folders: list[str], options: Namespace) -> int:
    return process.call([sys.executable, "-W", "ignore", "-m", module, *folders], env=_environment(options))


def _emitted(file: str, options: Namespace, root: Path) -> Path | None:
    """A folder with the kernels of a program and the cases to run them at; None where it has no kernels."""
    from tdsl.compiler import pipeline
    from tdsl.compiler.cases import cases
    from tdsl.compiler.emit.kernels_file import emit_kernels

    options.file = file
    groups = pipeline.groups(pipeline.run(program(options)))
    if not groups:
        return None
    folder = root / Path(file).stem
    folder.mkdir(parents=True)
    (folder / "kernels.py").write_text(emit_kernels(groups, file), encoding="utf-8")
    (folder / "cases.json").write_text(cases(groups), encoding="utf-8")
    return folder


def _environment(options: Namespace) -> dict[str, str]:
    env = {**os.environ, **importable()}
    if options.ahead_of_time:
        env.pop("TRITON_INTERPRET", None)
    elif not any(map(os.path.exists, GPUS)):
        env["TRITON_INTERPRET"] = "1"
    return env
