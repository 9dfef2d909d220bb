"""Running what is emitted in this process: modules of a program as Python classes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers import compiled, emitted, written

# The files of a project: those of every program have the same names.
MODULES = ("checkpoint", "data", "evaluate", "kernels", "model", "predict", "train")


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Within, the modules of a folder can be imported; before and after, none of those names is known."""
    _forget()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget()


def _forget() -> None:
    for name in MODULES:
        sys.modules.pop(name, None)


def executed(text: str, folder: Path) -> Any:
    """The names of the emitted `model.py`, whose `kernels.py` lies beside it."""
    return loaded(written(emitted(compiled(text)), folder))


def loaded(folder: Path) -> Any:
    """The `model.py` of a folder, with the `kernels` beside it."""
    spec = importlib.util.spec_from_file_location(f"_model_{abs(hash(str(folder)))}", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with importable(folder):
        spec.loader.exec_module(module)
    return module


def source(text: str, name: str) -> str:
    """The emitted `forward` of a class, less its indentation."""
    model = emitted(compiled(text))["model.py"]
    body = model.partition(f"class {name}(")[2].partition("    def forward(")[2].partition("\n\n\n")[0]
    return "\n".join(line[8:] for line in body.splitlines()[1:]) + "\n"
