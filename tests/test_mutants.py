"""Faults planted in the compiler: each must be caught by a check of the project, or the checks are worth little.

A mutant changes one thing, compiles a small program, and is run through `tdsl verify`'s own comparison with float64; what
the interpreter can't show (an unmasked load, which it fills with zeros) is caught in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tdsl.compiler.emit.kernels import _Writer
from tdsl.compiler.emit.triton import Body
from tdsl.compiler.kernel import Layout
from tdsl.compiler.ops import OPS
from tdsl.compiler.passes import differentiate
from tests.helpers import compiled, disagreements, emitted, written

PROGRAM = """module M(D: int = 13) {
    param weight: [D] = ones()
    param scale: [] = ones()
    forward(x: float[B, D], y: float[B, D], s: float[B, 1]) -> (float[B, D], float[B, D]) {
        h = x * tanh(y) - x / (abs(y) + 1)
        p = softmax(h * scale, dim=-1)
        z = maximum(p, x) * weight + s
        z = z + maximum(y, y)
        return p, z - mean(z * z, dim=-1, keepdim=true) - amax(z, dim=-1, keepdim=true)
    }
}
module Drop(D: int = 13) {
    forward(x: float[B, D]) -> float[B, D] { return dropout(x * x, 0.4) }
}
"""

Planted = Iterator[None]


@contextmanager
def _op(name: str, **changes: Any) -> Planted:
    kept = OPS[name]
    OPS[name] = replace(kept, **changes)
    try:
        yield
    finally:
        OPS[name] = kept


@contextmanager
def _method(owner: Any, name: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Planted:
    kept = getattr(owner, name)
    setattr(owner, name, made(kept))
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _without_other(load: Callable[..., str]) -> Callable[..., str]:
    return lambda self, tensor: re.sub(r", other=\S+?\)", ")", load(self, tensor))


def _misplaced(place: Callable[..., Any]) -> Callable[..., Any]:
    """A number a row read as a number a column."""
    return lambda self, t: (f"{t.name}_ptr + cols", "col_mask") if t.layout is Layout.ROW else place(self, t)


MUTANTS: dict[str, Callable[[], Any]] = {
    "the gradient of a product forgets a factor": lambda: _op("mul", vjp=lambda t, g, y, a, b: (g, g * a)),
    "the gradient of a difference has the wrong sign": lambda: _op("sub", vjp=lambda t, g, y, a, b: (g, g)),
    "the gradient of tanh is that of its argument": lambda: _op("tanh", vjp=lambda t, g, y, x: (g * (1.0 - x * x),)),
    "the gradient of a quotient lacks the second part": lambda: _op("div", vjp=lambda t, g, y, a, b: (g / b, None)),
    "ties of a maximum go to both": lambda: _op(
        "maximum", vjp=lambda t, g, y, a, b: (t.where(a >= b, g, 0.0), t.where(b >= a, g, 0.0))
    ),
    "a sum over a row counts what lies outside": lambda: _method(
        Body, "masked", lambda kept: lambda self, node, text: text
    ),
    "a mean is taken of one column fewer": lambda: _op("row_sum", triton="tl.sum({0} * 0.99, axis=1, keep_dims=True)"),
    "a result is stored unmasked": lambda: _method(
        _Writer, "_store", lambda kept: lambda self, t: re.sub(r", mask=\S+\)", ")", kept(self, t))
    ),
    "masked loads have no other": lambda: _method(_Writer, "_load", _without_other),
    "a number a row is read along the columns": lambda: _method(_Writer, "_place", _misplaced),
    "contributions to a gradient replace one another": lambda: _method(
        differentiate._Reverse, "_add", lambda kept: lambda self, value, grad: self.found.update({value: grad})
    ),
    "a gradient is not summed over what was broadcast": lambda: _method(
        differentiate._Reverse, "_reduced", lambda kept: lambda self, grad, result, operand: grad
    ),
    "random numbers are drawn from another seed in the backward": lambda: _method(
        _Writer, "flat", lambda kept: lambda self: [_reseeded(self, line) for line in kept(self)]
    ),
}


def _reseeded(writer: _Writer, line: str) -> str:
    backward = any(t.name.startswith("d_") for t in writer.writes)
    return line.replace("uniform(seed", "uniform(seed + 1") if backward else line


def _caught(folder: Path) -> list[str]:
    """What is told of the planted program: by the compiler itself, by the text's rules, or by the numbers."""
    try:
        files = emitted(compiled(PROGRAM))
    except (AssertionError, KeyError, ValueError) as error:
        return [repr(error)]
    lax = [line for line in files["kernels.py"].splitlines() if _is_lax(line)]
    try:
        return lax or disagreements(written(files, folder), ["float32"])
    except AssertionError as error:
        return [f"the process that runs the kernels died: {error}"]


def _is_lax(line: str) -> bool:
    """Whether a line touches elements unmasked, or reads under a mask without saying what stands for the rest."""
    if "tl.load(" in line and "mask=" in line and "other=" not in line:
        return True
    return bool(re.search(r"tl\.(load|store)\(\w+ \+ (offsets|rows|cols)", line)) and "mask=" not in line


def test_the_program_as_it_is_agrees(tmp_path: Path) -> None:
    assert _caught(tmp_path) == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_fault_is_caught(mutant: str, tmp_path: Path) -> None:
    with MUTANTS[mutant]():
        assert _caught(tmp_path), "not caught"
    assert emitted(compiled(PROGRAM)) == emitted(compiled(PROGRAM))
