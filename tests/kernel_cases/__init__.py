"""Programs of modules each of which becomes one kernel, with every operation that fuses: a batch is one program."""

from __future__ import annotations

from tests.kernel_cases import elements, places, rows
from tests.kernel_cases.module import module, modules

UNARY = """abs neg sign exp exp2 expm1 rsqrt(abs(x)+0.5) sqrt(abs(x)+0.5) square sin cos tan tanh erf sigmoid floor ceil
log(abs(x)+0.5) log2(abs(x)+0.5) log10(abs(x)+0.5) log1p(abs(x)) reciprocal(abs(x)+0.5) asin(tanh(x)) acos(tanh(x))
atan sinh cosh round trunc frac""".split()
ACTIVATIONS = """relu relu6 leaky_relu elu selu celu gelu silu mish hardsigmoid hardswish hardtanh softplus softsign
logsigmoid""".split()


def _call(text: str) -> str:
    return text if "(" in text else f"{text}(x)"


def _numbered(kind: str, texts: list[str]) -> dict[str, str]:
    """Each function between a product and a sum, so that it has neighbours and its gradient two factors."""
    return {
        f"{kind}{i}": module(f"{kind}{i}", "x: float[B, D], y: float[B, D]", f"return {_call(text)} * y + x")
        for i, text in enumerate(texts)
    }


BATCHES = {
    "unary": _numbered("Unary", UNARY),
    "activations": _numbered("Activation", ACTIVATIONS),
    "pointwise": modules(elements.POINTWISE),
    "broadcasts": modules(elements.BROADCASTS),
    "rows": modules(rows.ROWS),
    "sums": modules(rows.SUMS),
    "parts": modules(places.PARTS),
    "pieces": modules(places.PIECES),
    "picks": modules(rows.PICKS),
    "moved": modules(places.MOVED),
    "random": modules(elements.RANDOM),
}

# What is computed from a number a row alone is no part of a group without reductions; nor do two results share a kernel
# where neither is made from the other.
SPLIT = {"SumOfRowScalar", "TwoReductions"}
