"""Expressions of the language run as programs: compiled, emitted, executed, beside the same in PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler import pipeline
from tdsl.compiler.build.program import build
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.emit.model import model_text
from tdsl.compiler.ir import TensorType, Value
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Diagnostic, Reporter
from tdsl.dsl.resolve import load
from tests.helpers import UNFUSED

DTYPES = {
    "float": torch.float32, "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16,
    "i64": torch.int64, "int": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8,
    "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
INPUTS = (
    "x: float[B, 8], y: float[B, 1], v: float[8], s: float[], t: float[B, T, 8], q: float[B, 4 * T], n: int[B], "
    "k: int[B, T], m: bool[B, 8], image: float[B, 6, 2 * H, 9], c: float[5, 7], j: int[3], one: float[1, 8], z: int[], "
    "grid: float[4, 5, 6], w: i32[3], d: f64[5, 7], h: float[H]"
)
SIZES = ({"B": 3, "T": 5, "H": 4}, {"B": 1, "T": 2, "H": 1})


@dataclass(frozen=True)
class Expression:
    """An expression as a function of the inputs, with the types that the compiler finds for its results."""

    run: Any
    types: tuple[TensorType, ...]
    text: str


def source(body: str, results: str) -> str:
    return f"module M() {{\n    forward({INPUTS}) -> {results} {{\n        {body}\n    }}\n}}\n"


def checked(text: str, assumed: str = "") -> tuple[Semantic | None, list[Diagnostic]]:
    """What an expression is, and the mistakes in it."""
    found: list[Semantic] = []

    def observe(node: ast.Node, value: Semantic) -> None:
        if getattr(node, "id", "") == "result":
            found.append(value)

    program, reporter = load(
        "net.model", text=source(f"{assumed}\n        result = {text}\n        return s", "float[]")
    )
    if program is not None:
        build(program, reporter, observe)
    return (found[-1] if found else None), reporter.diagnostics


def compiled(text: str, tmp_path: Path, assumed: str = "") -> Expression:
    """The expression as an emitted module that is imported."""
    value, diagnostics = checked(text, assumed)
    assert not diagnostics, [f"{d.code} {d.message} {d.label} {d.help}" for d in diagnostics]
    values = value if isinstance(value, tuple) else (value,)
    types = tuple(v.type for v in values if isinstance(v, Value))
    assert len(types) == len(values), f"{text} is no tensor"
    program, _ = load("net.model", text=source(f"{assumed}\n        return {text}", f"({', '.join(map(str, types))})"))
    assert program is not None
    reporter = Reporter()
    unit = build(program, reporter)
    assert unit is not None, [f"{d.code} {d.message} {d.label}" for d in reporter.diagnostics]
    emitted = model_text(pipeline.run(unit, UNFUSED))
    space: dict[str, Any] = {}
    exec(compile(emitted, str(tmp_path / "model.py"), "exec"), space)
    return Expression(space["M"](), types, emitted)


def inputs(sizes: dict[str, int]) -> dict[str, Tensor]:
    """The inputs for these sizes; integers are small enough to be indices anywhere."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for declared in INPUTS.split("], "):
        name, _, type = declared.rstrip("]").partition(": ")
        dtype, _, dims = type.partition("[")
        shape = [eval(dim, dict(sizes)) for dim in dims.split(", ") if dim]
        if dtype == "bool":
            found[name] = torch.rand(shape, generator=generator) < 0.5
        elif dtype in ("int", "i32"):
            found[name] = torch.randint(0, 2, shape, generator=generator, dtype=DTYPES[dtype])
        else:
            found[name] = torch.randn(shape, generator=generator, dtype=DTYPES[dtype])
    return found


def number(size: Size, sizes: dict[str, int]) -> int:
    found = size.substitute({Symbol(name): value for name, value in sizes.items()}).constant
    assert found is not None, str(size)
    return found


def agree(text: str, oracle: str, tmp_path: Path, assumed: str = "", sizes: Sequence[dict[str, int]] = SIZES) -> str:
    """Hold an expression's values, shapes and dtypes against PyTorch's; the emitted module."""
    expression = compiled(text, tmp_path, assumed)
    for at in sizes:
        given = inputs(at)
        torch.manual_seed(0)
        found = expression.run(*given.values())
        torch.manual_seed(0)
        expected = eval(oracle, {"torch": torch, "F": F, **given, **at})
        pairs = itertools.zip_longest(_several(found), _several(expected), expression.types)
        for result, wanted, type in pairs:
            assert (tuple(result.shape), result.dtype) == (tuple(wanted.shape), wanted.dtype), oracle
            assert tuple(number(size, at) for size in type.shape) == tuple(wanted.shape), type
            assert DTYPES[type.dtype] == wanted.dtype
            torch.testing.assert_close(result, wanted, equal_nan=True)
    return expression.text


def _several(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def refused(text: str, assumed: str = "") -> Diagnostic:
    """The one mistake that an expression is."""
    _, diagnostics = checked(text, assumed)
    assert diagnostics, f"{text} is accepted"
    assert len(diagnostics) == 1
    assert diagnostics[0].span is not None
    return diagnostics[0]


def pairs(table: str) -> list[tuple[str, str]]:
    """Lines of `expression`, or `expression === PyTorch's` where that is written otherwise."""
    found = []
    for line in filter(None, (line.strip() for line in table.strip().splitlines())):
        left, _, right = line.partition(" === ")
        found.append((left.strip(), right.strip() or left.strip().replace("true", "True").replace("false", "False")))
    return found
