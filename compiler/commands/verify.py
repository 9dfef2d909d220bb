"""`tdsl verify`: every fused kernel against its reference, on the GPU or, without one, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from tdsl.compiler.commands.program import program
from tdsl.compiler.commands.scripts import importable


def run(options: Namespace) -> int:
    from tdsl.compiler import pipeline
    from tdsl.compiler.cases import cases
    from tdsl.compiler.emit.kernels_file import emit_kernels

    groups = pipeline.groups(pipeline.run(program(options)))
    if not groups:
        print("no fused kernels: PyTorch computes each operation of this program as well alone")
        return 0
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        Path(folder, "kernels.py").write_text(emit_kernels(groups, options.file), encoding="utf-8")
        Path(folder, "cases.json").write_text(cases(groups), encoding="utf-8")
        module = "tdsl.runtime.aot" if options.ahead_of_time else "tdsl.runtime.verify"
        return subprocess.call([sys.executable, "-W", "ignore", "-m", module, folder], env=_environment(options))


def _environment(options: Namespace) -> dict[str, str]:
    env = {**os.environ, **importable()}
    if options.ahead_of_time:
        env.pop("TRITON_INTERPRET", None)
    elif not Path("/proc/driver/nvidia").exists() and not Path("/dev/kfd").exists():
        env["TRITON_INTERPRET"] = "1"
    return env
