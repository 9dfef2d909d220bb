"""Recognise what has a better form than the operations that it is written in.

Before: `%e = erf(%x * 0.7071067811865476); %y = 0.5 * %x * (1 + %e)`.
After:  `%y = gelu(%x)`.
"""

from __future__ import annotations

from collections.abc import Callable

from tdsl.compiler.ir import Graph
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.passes.patterns.attention import attention
from tdsl.compiler.passes.patterns.attention_kernel import attention_kernel
from tdsl.compiler.passes.patterns.batch_norm import batch_norm
from tdsl.compiler.passes.patterns.cross_entropy import cross_entropy
from tdsl.compiler.passes.patterns.gelu import gelu
from tdsl.compiler.passes.patterns.linear_cross_entropy import linear_cross_entropy
from tdsl.compiler.passes.patterns.linears import linears
from tdsl.compiler.passes.patterns.ropes import ropes
from tdsl.compiler.passes.patterns.split_rope import split_rope

Pattern = Callable[[Graph], Graph]

# In this order: what one leaves, the next ones see.
PATTERNS: tuple[Pattern, ...] = (
    gelu,
    attention,
    attention_kernel,
    cross_entropy,
    linear_cross_entropy,
    linears,
    split_rope,
    ropes,
    batch_norm,
)


def recognise(graph: Graph) -> Graph:
    """The graph with each pattern that is found in it replaced."""
    with knowing(graph.known, graph.assumed):
        for pattern in PATTERNS:
            graph = pattern(graph)
    return graph
