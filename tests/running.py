"""Running what is emitted in this process: modules of a program as Python classes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.helpers import compiled, emitted, written


def executed(text: str, folder: Path) -> Any:
    """The names of the emitted `model.py`, whose `kernels.py` lies beside it."""
    return loaded(written(emitted(compiled(text)), folder))


def loaded(folder: Path) -> Any:
    """The names of a `model.py`."""
    space: dict[str, Any] = {"__name__": "model"}
    sys.path.insert(0, str(folder))
    sys.modules.pop("kernels", None)
    try:
        exec(compile((folder / "model.py").read_text(encoding="utf-8"), folder / "model.py", "exec"), space)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("kernels", None)
    return SimpleNamespace(**space)


def source(text: str, name: str) -> str:
    """The emitted `forward` of a class, less its indentation."""
    model = emitted(compiled(text))["model.py"]
    body = model.partition(f"class {name}(")[2].partition("    def forward(")[2].partition("\n\n\n")[0]
    return "\n".join(line[8:] for line in body.splitlines()[1:]) + "\n"
