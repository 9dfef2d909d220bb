"""`assume COND`: what the writer knows of sizes. Proofs use it, and the emitted code checks it."""

from __future__ import annotations

from tdsl.compiler.build import arithmetic
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame
from tdsl.compiler.build.values import Semantic, describe
from tdsl.compiler.ir import Assumption, Scalar
from tdsl.compiler.ops.infer import ASSUMED, known
from tdsl.compiler.size import Size
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import Span, fail

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def assume(condition: ast.Expr, frame: Frame) -> None:
    """Know from here on that `condition` holds, and have the emitted code check it."""
    for fact in _facts(condition, frame):
        left, right = known(fact.left), known(fact.right)
        if left is not None and right is not None and not arithmetic.holds(fact.op, left, right):
            fail("E208", f"`{condition.span.text}` does not hold", condition.span, f"{left} {fact.op} {right}")
        if fact.left.constant is not None and fact.right.constant is not None:
            continue
        if fact not in frame.builder.assumed:
            frame.builder.assumed.append(fact)
        ASSUMED.state(fact)


def _facts(condition: ast.Expr, frame: Frame) -> list[Assumption]:
    if isinstance(condition, ast.Binary) and condition.op == "and":
        return [*_facts(condition.left, frame), *_facts(condition.right, frame)]
    if not isinstance(condition, ast.Binary) or condition.op not in COMPARISONS:
        help = "such as `assume T % 8 == 0`, `assume H == W` or `assume T <= 2048`"
        fail("E201", "`assume` takes a comparison of sizes", condition.span, help=help)
    left, right = (_size(evaluate(e, frame), e.span) for e in (condition.left, condition.right))
    return [Assumption(left, condition.op, right, condition.span)]


def _size(value: Semantic, span: Span) -> Size:
    if not isinstance(value, Scalar) or not arithmetic.is_integer(value):
        fail("E201", "`assume` compares sizes", span, f"this is {describe(value)}")
    assert isinstance(value.value, (int, Size))
    return Size.of(value.value)
