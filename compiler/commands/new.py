"""`tdsl new`: a starter program in a folder of its own, with data to run it on."""

from __future__ import annotations

import re
import shutil
from argparse import Namespace
from pathlib import Path

from tdsl.compiler.commands.program import complain

STARTERS = Path(__file__).resolve().parents[2] / "templates" / "new"
PROGRAM = "starter.model"
# The name stands in the program's comments, and is typed in shells.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def run(options: Namespace) -> int:
    folder: Path = options.folder
    if NAME.fullmatch(folder.name) is None:
        complain(f"`{folder.name}` can't be the name of a program: use letters, digits, `_` and `-`")
        return 2
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        complain(f"{folder} is there already; nothing was written")
        return 2
    except OSError as error:
        complain(f"can't make {folder}: {error.strerror}")
        return 1
    program = folder / f"{folder.name}.model"
    try:
        _write(STARTERS / options.template, program)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        complain(f"can't write to {folder}: {error.strerror}")
        return 1
    print(f"{program} is there, with data to run it on. Next:\n")
    print(f"    cd {folder}\n    tdsl train {program.name}\n    tdsl evaluate {program.name}")
    return 0


def _write(starter: Path, program: Path) -> None:
    """The starter's files, its program under the new name."""
    shutil.copytree(starter / "data", program.parent / "data", copy_function=shutil.copyfile)
    text = (starter / PROGRAM).read_text(encoding="utf-8")
    program.write_text(text.replace(PROGRAM, program.name), encoding="utf-8", newline="\n")
