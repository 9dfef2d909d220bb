"""Whether a loss is a mean over the rows of a batch, so that the mean over its parts, by rows, is the whole's."""

from __future__ import annotations

from tdsl.dsl import ast

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
SUMS = ("+", "-")
SCALES = ("*", "/")


def is_row_mean(loss: ast.Block) -> bool:
    """Whether every term of what `loss` returns is a mean over rows, times a constant at most.

    It errs on the side of no: a loss that is not recognised is none.
    """
    names: dict[str, ast.Expr] = {}
    for statement in loss.body:
        match statement:
            case ast.Assign(targets=(ast.Name(id=name),), values=(value,)):
                names[name] = value
            case ast.Return(values=(value,)):
                return _is_mean(value, names)
            case ast.Track():
                continue
            case ast.Assign():
                continue
            case _:
                return False
    return False


def _is_mean(value: ast.Expr, names: dict[str, ast.Expr]) -> bool:
    match value:
        case ast.Name(id=name) if name in names:
            return _is_mean(names[name], {key: each for key, each in names.items() if key != name})
        case ast.Binary(op=op, left=left, right=right) if op in SUMS:
            return _is_mean(left, names) and _is_mean(right, names)
        case ast.Binary(op=op, left=left, right=ast.Literal()) if op in SCALES:
            return _is_mean(left, names)
        case ast.Binary(op="*", left=ast.Literal(), right=right):
            return _is_mean(right, names)
        case ast.Call(function=ast.Name(id=name), args=args) if name in MEANS:
            given = {arg.name for arg in args if arg.name is not None}
            return given <= MEANS[name] and sum(arg.name is None for arg in args) <= 3
        case ast.Call(function=ast.Name(id="mean"), args=args):
            return len(args) == 1
        case ast.Call(function=ast.Attribute(name="mean"), args=()):
            return True
    return False
