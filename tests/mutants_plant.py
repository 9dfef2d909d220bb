"""How faults are planted: each is a context within which one thing is wrong."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from tdsl.compiler.ops import OPS
from tests import helpers

Changed = Callable[[Callable[..., Any]], Callable[..., Any]]
Plant = Callable[[], AbstractContextManager[Any]]
Check = Callable[[Path], str]


@contextmanager
def op(name: str, **changes: Any) -> Iterator[None]:
    """An operation whose record says something else."""
    with mock.patch.dict(OPS, {name: replace(OPS[name], **changes)}):
        yield


@contextmanager
def changed(owner: Any, name: str, change: Changed) -> Iterator[None]:
    """A function of a module or a class, which `change` makes from the right one."""
    with mock.patch.object(owner, name, change(getattr(owner, name))):
        yield


def text(pattern: str, instead: str) -> Plant:
    """A fault in the text of `kernels.py`."""
    return lambda: changed(
        helpers, "emit_kernels", lambda kept: lambda *args: re.sub(pattern, instead, kept(*args), flags=re.MULTILINE)
    )


def source(module: ModuleType, right: str, wrong: str) -> Plant:
    """A fault in the text of a module whose kernels are compiled from it, everywhere that it says what is right."""

    @contextmanager
    def planted() -> Iterator[None]:
        assert module.__file__ is not None
        written = "".join(linecache.getlines(module.__file__))
        assert right in written, f"{module.__name__} does not say {right!r}"
        name, faulty = f"{module.__file__} with {wrong!r}", written.replace(right, wrong)
        # Triton reads the source of functions by the name of their file.
        linecache.cache[name] = (len(faulty), None, faulty.splitlines(keepends=True), name)
        kept = dict(vars(module))
        try:
            exec(compile(faulty, name, "exec"), vars(module))
            yield
        finally:
            vars(module).clear()
            vars(module).update(kept)
            del linecache.cache[name]

    return planted
