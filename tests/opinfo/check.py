"""Checking a sample's program: its mistakes, and the types that are inferred where sizes are known at run time only."""

from __future__ import annotations

import torch
from torch import Tensor

from tdsl.compiler.build.program import build
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.ir import TensorType, Value
from tdsl.compiler.size import Symbol
from tdsl.dsl import ast
from tdsl.dsl.resolve import load
from tests.opinfo.compare import tensors
from tests.opinfo.samples import Case, size_name


class Refused(Exception):
    """The compiler tells a mistake of the program."""


def mistake(text: str) -> str:
    """The first mistake that is told of a program; empty where there is none."""
    try:
        returned(text)
    except Refused as refused:
        return str(refused)
    return ""


def returned(text: str, unless: str = "") -> list[TensorType]:
    """The types of what a module returns; `Refused` with the first mistake, but for those of the code `unless`."""
    seen: dict[int, Semantic] = {}

    def observe(node: ast.Node, value: Semantic) -> None:
        seen[id(node)] = value

    try:
        program, reporter = load("program.model", text=text)
        if program is not None:
            build(program, reporter, observe)
    except Exception as error:
        raise Refused(f"traceback: {type(error).__name__}: {error}") from error
    told = next((d for d in reporter.errors if d.code != unless), None)
    if told is not None or program is None:
        raise Refused(f"{told.code} {told.message} ({told.label or told.help})" if told else "no program")
    (module,) = program.modules.values()
    assert module.forward is not None
    (*_, statement) = module.forward.body
    assert isinstance(statement, ast.Return)
    return [v.type for expr in statement.values for v in _values(seen.get(id(expr)))]


def _values(value: Semantic | None) -> list[Value]:
    if isinstance(value, tuple):
        return [v for item in value for v in _values(item)]
    return [value] if isinstance(value, Value) else []


def infer_sizes(case: Case) -> str:
    """Note what is inferred, or refused, where every size of the inputs is known at run time only; what is wrong in it."""
    case.outputs = "float[]"
    try:
        types = returned(case.text("Sizes"), unless="E207")
    except Refused as refused:
        case.refused = str(refused)
        return f"sizes: {refused}" if str(refused).startswith("traceback") else ""
    case.outputs = ", ".join(map(str, types))
    if len(types) != 1:
        case.outputs = f"({case.outputs})"
    for more in (0, 1, 3):
        told = _differs(case, types, more)
        if told:
            return told
    told = mistake(case.text("Sizes"))
    return f"sizes: declared as inferred, refused: {told}" if told else ""


def _differs(case: Case, types: list[TensorType], more: int) -> str:
    """How the inferred sizes differ from PyTorch's where each size that has a name is so much larger."""
    known = {Symbol(size_name(n)): _larger(n, more) for t in case.inputs for n in t.shape}
    found = [tuple(s.substitute(known).constant for s in t.shape) for t in types]
    try:
        results = tensors(case.reference([_resized(t, more) for t in case.inputs])) if more else case.expected
    except Exception:  # an index out of range, a kernel larger than its image: numbers, not shapes
        return ""
    wanted = [tuple(t.shape) for t in results]
    return f"sizes: {case.outputs} is {found} with sizes {more} larger, not {wanted}" if found != wanted else ""


def _larger(n: int, more: int) -> int:
    return n + more if n > 1 else n


def _resized(t: Tensor, more: int) -> Tensor:
    shape = [_larger(n, more) for n in t.shape]
    drawn = torch.rand(shape) if t.is_floating_point() else torch.randint(0, 2, shape)
    return drawn.to(t.dtype)
