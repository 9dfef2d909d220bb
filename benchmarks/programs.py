"""The rows' programs: compiled by tdsl into a folder of the run, and loaded from there."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

import tdsl
from benchmarks.bench import Bench

PROGRAMS = Path(__file__).resolve().parent / "programs"
# What emitted files call one another.
NAMES = ("kernels", "model", "data", "train")


@dataclass(frozen=True)
class Emitted:
    """A compiled program: the `.model` file, the folder that it became, and the modules in it by name."""

    source: Path
    folder: Path
    modules: dict[str, ModuleType]

    def module(self, name: str, bench: Bench, *args: Any, **kwargs: Any) -> nn.Module:
        """A module of the program as the rows use it: on the device, in the rows' precision, training."""
        made: nn.Module = getattr(self.modules["model"], name)(*args, **kwargs)
        return made.to(bench.device, bench.dtype)


def emitted(name: str, bench: Bench, **constants: int) -> Emitted:
    """Compile `programs/NAME.model`, with other values of its `const`s where they are given."""
    text = (PROGRAMS / f"{name}.model").read_text(encoding="utf-8")
    source = bench.folder / f"{name}.model"
    source.write_text(with_constants(text, constants), encoding="utf-8")
    folder = bench.folder / name
    tdsl.compile(source, folder)
    return Emitted(source, folder, loaded(folder))


def with_constants(text: str, constants: Mapping[str, int]) -> str:
    """The program with other values of its `const`s."""
    for constant, value in constants.items():
        text, replaced = re.subn(rf"(?m)^(const {constant}\s*=).*$", rf"\g<1> {value}", text)
        assert replaced == 1, constant
    return text


def loaded(folder: Path) -> dict[str, ModuleType]:
    """The modules of a folder. Other programs' have the same names, so they are forgotten under these."""
    sys.path.insert(0, str(folder))
    try:
        return {name: importlib.import_module(name) for name in NAMES if (folder / f"{name}.py").exists()}
    finally:
        sys.path.remove(str(folder))
        for name in NAMES:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()


def with_parameters(module: nn.Module, **tensors: Tensor) -> nn.Module:
    """The module with these as its parameters, by dotted name: so it shares leaves with what it is compared with."""
    for name, tensor in tensors.items():
        owner, _, last = name.replace("__", ".").rpartition(".")
        assert isinstance(tensor, nn.Parameter)
        setattr(module.get_submodule(owner), last, tensor)
    return module
