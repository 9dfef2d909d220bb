"""Cross-entropy of class scores with class labels, the classes being the last dimension.

Where there are many classes, the forward writes the gradient as it reads the scores, which are so read from memory
once: the sum or mean that follows divides by what is counted beforehand, and the backward multiplies by the gradient of
the loss only where that is not 1. The gradient has memory of its own: the scores may be read again, by whatever else
the program does with them. Elsewhere, where losses are not added up, and in float16, whose gradients need the scale
that the loss is given later, the backward computes the gradient from the scores and two numbers a row.

A label that is no class gives the loss NaN. An ignored row reads its scores all the same: where PyTorch's gradient is
NaN, because a score is, so is this one.
"""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Value
from tdsl.compiler.precision import low_precision
from tdsl.compiler.structured.class_cases import cases
from tdsl.compiler.structured.class_scores import ScoreKernels, score_kernels
from tdsl.compiler.structured.template import Naming, Template, register

FLOAT16 = "torch.float16"


def at_once(group: Group) -> bool:
    """Whether the forward makes the gradient."""
    assert group.structure is not None
    low = low_precision(group)
    return bool(group.structure.options["at_once"]) and (low is None or low.text != FLOAT16)


def variables(group: Group, naming: Naming) -> Mapping[str, object]:
    """What the text shows; its functions call the tensors by their roles."""
    assert group.structure is not None
    k = score_kernels(group.name, group.structure, at_once(group))
    roles = {value: role for role, value in group.structure.roles.items()}
    arguments = [roles[v] for v in group.body.inputs]
    (output,) = group.body.outputs
    trailing = len(output.type.shape) > len(group.structure.roles["target"].type.shape)
    return {
        "k": k,
        "arguments": arguments,
        "place": arguments.index("scores"),
        "count_arguments": count_arguments(k, "labels", "counts"),
        "forward_arguments": _forward_arguments(k),
        "backward_arguments": _backward_arguments(k),
        "saved": ", ".join(["rows", "labels", "tops", "logs", *_optional(k)]),
        "shape": "(*target.shape, 1)" if trailing else "target.shape",
        "as_input": "" if naming.low and output.type.dtype == "f32" else ".to(scores.dtype)",
        "gradients": ", ".join("d_scores.view(ctx.shape)" if a == "scores" else "None" for a in arguments),
    }


def _optional(k: ScoreKernels) -> list[str]:
    """The tensors beside scores and labels that kernels read."""
    found = {"class_weight": k.weighted, "total_weight": k.totals, "counts": k.counts}
    return [name for name, used in found.items() if used]


def count_arguments(k: ScoreKernels, labels: str, counts: str) -> list[str]:
    """What the kernel that counts is launched with."""
    weights = ["class_weight"] if k.weighted else []
    return [labels, *weights, counts, "n_rows", *(["N_COLS=n_cols"] if k.weighted else []), "BLOCK=1024"]


def _forward_arguments(k: ScoreKernels) -> list[str]:
    results = ["losses", *(["d_scores"] if k.at_once else ["tops", "logs"])]
    flags = [*(["ALONE=alone"] if k.alone else []), *(["WITH_GRADIENT=trains"] if k.at_once else [])]
    return ["rows", "labels", *_optional(k), *results, "n_rows", *_constants(k), *flags, "num_warps=tile.warps"]


def _backward_arguments(k: ScoreKernels) -> list[str]:
    results = ["tops", "logs", "d_loss", "d_scores", "n_rows"]
    return ["rows", "labels", *_optional(k), *results, *_constants(k), "num_warps=tile.warps"]


def _constants(k: ScoreKernels) -> list[str]:
    counts = ["N_COUNTS=launch.COUNTS"] if k.counts else []
    strides = ["ROW_STRIDE=rows.stride(0)", *(["D_ROW_STRIDE=d_scores.stride(0)"] if k.at_once else [])]
    return ["N_COLS=n_cols", *strides, *counts, "BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols"]


# What it moves -------------------------------------------------------------------------------------------------------


def _moved(group: Group) -> str:
    if at_once(group):
        return "Moves 8 bytes (f32) a score: the forward writes the gradient, the backward scales it where it must."
    return "Moves 4 bytes (f32) a score forward, 8 backward."


def _cost(group: Group, measure: Measure) -> Cost:
    """Scores are read once a direction, or once in all; the gradient is written once."""
    assert group.structure is not None
    roles = group.structure.roles
    scores, labels = measure.bytes(roles["scores"]), measure.bytes(roles["target"])
    numbers = 8 * measure.elements(roles["target"])
    count = measure.elements(roles["scores"])
    early = at_once(group)
    forward = scores + labels + numbers + (scores if early else 0)
    backward = 0 if early else 2 * scores + labels + numbers
    kept = scores if early else numbers
    return Cost(forward, backward, flops=5 * count, flops_backward=3 * count, kept=kept)


def _keeps(group: Group) -> tuple[Value, ...]:
    """The forward that makes the gradient needs its scores no more."""
    assert group.structure is not None
    roles = group.structure.roles
    return (roles["target"],) if at_once(group) else (roles["scores"], roles["target"])


register(Template("cross_entropy", variables, _moved, cases, _cost, _keeps))
