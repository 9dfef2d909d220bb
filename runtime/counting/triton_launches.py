"""Launches of Triton kernels, wherever they come from: noted, and not made where tensors are fake."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from triton.runtime.jit import JITFunction

from tdsl.runtime import launch
from tdsl.runtime.counting.gpu import on_gpu
from tdsl.runtime.counting.traffic import ATTENTION, OTHER, PRODUCTS, size

_ACCESS: Mapping[str, Sequence[str]] = {"load": ("read",), "store": ("write",)}
_ATOMIC = ("read", "write")


@contextmanager
def noted(note: Callable[[str, str, int], None], real: bool = False) -> Iterator[None]:
    """Within, each launch is told to `note`, by its kernel's name, its category and its bytes; `real` ones are made.

    Its bytes are what the launcher has told `launch.note_bytes`; else those of its tensors, twice of what a kernel both
    reads and writes. Raises `ValueError` for a kernel that reaches tensors by addresses, where nothing is told.
    """
    told: list[int] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        if not warmup:
            given = dict(zip(kernel.arg_names, args)) | options
            note(str(kernel.__name__), category(kernel), told.pop() if told else _moved(kernel, given))
            told.clear()
        return original(kernel, *args, grid=grid, warmup=warmup, **options) if real else None

    original = JITFunction.run

    with mock.patch.object(JITFunction, "run", run), mock.patch.object(launch, "on_bytes", told.append):
        yield


def _moved(kernel: Any, given: Mapping[str, Any]) -> int:
    if any("pointer_type" in source for source in _sources(kernel)):
        message = "reaches tensors by their addresses: its launcher is to tell their bytes to `launch.note_bytes`"
        raise ValueError(f"the kernel `{kernel.__name__}` {message}")
    how = accesses(str(kernel.src))
    tensors = {name: value for name, value in given.items() if on_gpu(value)}
    written = {name: t for name, t in tensors.items() if "write" in how.get(name, ())}
    read = {name: t for name, t in tensors.items() if "read" in how.get(name, ()) or name not in written}
    return size(read.values()) + size(written.values())


@cache
def category(kernel: Any) -> str:
    """A kernel that multiplies tiles is a product, one of attention where its name says so."""
    if "attention" in kernel.__name__:
        return ATTENTION
    return PRODUCTS if any("tl.dot" in source for source in _sources(kernel)) else OTHER


@cache
def _sources(kernel: Any) -> frozenset[str]:
    """The source of a kernel, and of the functions of Triton that it calls by their names."""
    found: dict[Any, str] = {}
    waiting = [kernel]
    while waiting:
        each = waiting.pop()
        found[each] = str(each.src)
        names = {node.id for node in ast.walk(ast.parse(found[each])) if isinstance(node, ast.Name)}
        called = (each.fn.__globals__.get(name) for name in sorted(names))
        waiting += [c for c in called if isinstance(c, JITFunction) and c not in found]
    return frozenset(found.values())


@cache
def accesses(source: str) -> Mapping[str, frozenset[str]]:
    """How a kernel reaches memory by its arguments: `read`, `write` or both; one that it hands on is not among them."""
    (function,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    found = _Accesses([arg.arg for arg in function.args.args])
    found.visit(function)
    return {name: frozenset(how) for name, how in found.how.items()}


class _Accesses(ast.NodeVisitor):
    """A walk in the order of the source. `origin` are the arguments that a name was made of."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.origin = {name: {name} for name in arguments}
        self.how: dict[str, set[str]] = {}

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.generic_visit(node)
        self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        for name in _names(target):
            self.origin.setdefault(name, set()).update(self._origins(value))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        how = _ATOMIC if called.startswith("atomic_") else _ACCESS.get(called, ())
        for name in self._origins(node.args[0]) if how else ():
            self.how.setdefault(name, set()).update(how)

    def _origins(self, node: ast.expr) -> set[str]:
        return {origin for name in _names(node) for origin in self.origin.get(name, ())}


def _names(node: ast.AST) -> Iterator[str]:
    """The names of an expression, but for those of an address that it loads from: a value is no pointer."""
    if isinstance(node, ast.Name):
        yield node.id
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"):
        for child in ast.iter_child_nodes(node):
            yield from _names(child)
