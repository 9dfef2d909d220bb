"""The form of an op that a call means: `x.max()`, `x.max(dim=1)` and `x.max(y)` are three, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tdsl.compiler.build.bind import Given, accepts
from tdsl.compiler.build.values import Semantic
from tdsl.compiler.ir import Value
from tdsl.compiler.ops.op import Bound, Kind, Op
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import fail

Evaluate = Callable[[ast.Expr], Semantic]


def once(evaluate: Evaluate) -> Evaluate:
    """`evaluate`, which a call of several forms asks again for the same arguments."""
    found: dict[int, Semantic] = {}

    def remembered(expr: ast.Expr) -> Semantic:
        if id(expr) not in found:
            found[id(expr)] = evaluate(expr)
        return found[id(expr)]

    return remembered


def form(op: Op, args: Sequence[ast.Argument], evaluate: Evaluate, first: Given | None) -> Op:
    """The first form of `op` that the arguments fit; where none does, the one that the most of them fit."""
    if not op.overloads:
        return op
    named = {a.name: evaluate(a.value) for a in args if a.name is not None}
    positional = [*([first[0]] if first is not None else []), *(evaluate(a.value) for a in args if a.name is None)]
    forms = (op, *op.overloads)
    return max(forms, key=lambda each: _fitness(each, positional, named))


def _fitness(op: Op, positional: Sequence[Semantic], named: dict[str, Semantic]) -> tuple[bool, int, int]:
    """Whether the arguments make a call; else how many of them fit, and of how many."""
    places = [arg for arg in op.signature if not arg.keyword_only]
    by_name = {arg.name: arg for arg in op.signature}
    given = list(zip(places, positional)) + [(by_name[n], v) for n, v in named.items() if n in by_name]
    fitting = sum(accepts(arg, value) for arg, value in given)
    there = {arg.name for arg, _ in given}
    whole = all(arg.name in there for arg in op.signature if arg.required and not arg.is_built)
    if whole and fitting == len(positional) + len(named) == len(there):
        return True, 0, 0
    return False, fitting, len(op.signature)


def need_a_tensor(bound: Bound) -> None:
    """Refuse a pointwise op of numbers alone: it would be a number, not a tensor."""
    if bound.op.kind is Kind.POINTWISE and not any(isinstance(v, Value) for v in bound.inputs):
        fail("E201", f"`{bound.op.name}` computes with tensors", bound.span, "these are only numbers")
