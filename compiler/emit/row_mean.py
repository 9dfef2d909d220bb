"""Whether a loss is a mean over the rows of a batch, so that the mean over its parts, by rows, is the whole's."""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.dsl import ast
from tdsl.dsl.program import TrainSpec

# Losses that average over rows by default, each with the arguments that leave them so.
MEANS = {
    "mse_loss": set[str](),
    "l1_loss": set[str](),
    "smooth_l1_loss": {"beta"},
    "huber_loss": {"delta"},
    "cross_entropy": {"label_smoothing"},
    "nll_loss": set[str](),
    "binary_cross_entropy": set[str](),
    "binary_cross_entropy_with_logits": {"pos_weight"},
    "triplet_margin_loss": {"margin", "p", "eps", "swap"},
    "margin_ranking_loss": {"margin"},
    "cosine_embedding_loss": {"margin"},
    "hinge_embedding_loss": {"margin"},
    "gaussian_nll_loss": {"full", "eps"},
    "poisson_nll_loss": {"log_input", "full", "eps"},
}
# Functions of each element alone, under which a row stays a row.
POINTWISE = frozenset({
    "abs", "square", "sqrt", "exp", "log", "log1p", "expm1", "sin", "cos", "tanh", "sigmoid", "relu", "softplus",
    "clamp", "minimum", "maximum", "where", "float",
})  # fmt: skip
SUMS = ("+", "-")
SCALES = ("*", "/")

Names = Mapping[str, ast.Expr]


def is_row_mean(run: TrainSpec) -> bool:
    """Whether every term of what the loss returns is a mean over rows, times a constant at most.

    It errs on the side of no: a loss that is not recognised is none.
    """
    names: dict[str, ast.Expr] = {}
    for statement in run.loss.body:
        match statement:
            case ast.Assign() if names.keys() & {target.id for target in statement.names}:
                return False
            case ast.Assign(values=(value,)):
                names |= {target.id: value for target in statement.names}
            case ast.Return(values=(value,)):
                return _is_mean(value, names, frozenset(run.models))
            case ast.Track():
                continue
            case _:
                return False
    return False


def _without(names: Names, name: str) -> Names:
    return {key: each for key, each in names.items() if key != name}


def _is_mean(value: ast.Expr, names: Names, models: frozenset[str]) -> bool:
    match value:
        case ast.Name(id=name) if name in names:
            return _is_mean(names[name], _without(names, name), models)
        case ast.Binary(op=op, left=left, right=right) if op in SUMS:
            return _is_mean(left, names, models) and _is_mean(right, names, models)
        case ast.Binary(op=op, left=left, right=ast.Literal()) if op in SCALES:
            return _is_mean(left, names, models)
        case ast.Binary(op="*", left=ast.Literal(), right=right):
            return _is_mean(right, names, models)
        case ast.Call(function=ast.Name(id=name), args=args) if name in MEANS:
            given = {arg.name for arg in args if arg.name is not None}
            rows = [arg.value for arg in args if arg.name is None]
            return given <= MEANS[name] and len(rows) <= 3 and all(_is_rows(row, names, models) for row in rows)
        case ast.Call(function=ast.Name(id="mean"), args=(ast.Argument(name=None, value=inner),)):
            return _is_rows(inner, names, models)
        case ast.Call(function=ast.Attribute(value=inner, name="mean"), args=()):
            return _is_rows(inner, names, models)
    return False


def _is_rows(value: ast.Expr, names: Names, models: frozenset[str]) -> bool:
    """Whether a value has a row for each of the batch, made from that row alone."""
    match value:
        case ast.Literal() | ast.Attribute(value=ast.Name()):
            return True
        case ast.Name(id=name):
            return name not in names or _is_rows(names[name], _without(names, name), models)
        case ast.Unary(operand=operand):
            return _is_rows(operand, names, models)
        case ast.Binary(left=left, right=right):
            return _is_rows(left, names, models) and _is_rows(right, names, models)
        case ast.Call(function=ast.Name(id=name), args=args) if name in POINTWISE or name in models:
            return all(_is_rows(arg.value, names, models) for arg in args)
        case ast.Call(function=ast.Attribute(value=owner, name="flatten")):
            return _is_rows(owner, names, models)
        case ast.Call(function=ast.Attribute(value=owner, name=name), args=args) if name in POINTWISE:
            return _is_rows(owner, names, models) and all(_is_rows(arg.value, names, models) for arg in args)
    return False
