"""What stands between a value and its gradient."""

from __future__ import annotations

from tdsl.compiler.ops.op import Bound, Types, internal, library
from tdsl.dsl.diagnostics import fail


def _detach(b: Bound) -> Types:
    return (b.type(0),)


library("detach", "input: tensor", _detach, ".detach", same_memory=True)


def _grad(b: Bound) -> Types:
    y, x = b.type(0), b.type(1)
    if y.shape or not y.is_float:
        fail("E203", "`grad` differentiates a single number", b.span, f"`y` is {y}", help="sum it: `grad(y.sum(), x)`")
    if not x.is_float:
        fail("E205", "`grad` is by floating-point values", b.span, f"`x` is {x}", help="convert it with `.float()`")
    return (x,)


# The builder sees to it that `x` carries a gradient from where it is made: `requires_grad`.
library("grad", "y: tensor, x: tensor", _grad, "nn_functions.grad")
library("requires_grad", "x: tensor", lambda b: (b.type(0),), "nn_functions.requires_grad", same_memory=True)

internal("requires_grad")

# Statements that run others: the bodies are the node's regions, and whoever records them types them.
library("no_grad", "", lambda b: (), "torch.no_grad")
library("branch", "condition: any", lambda b: (), "if")

internal("no_grad", "branch")
