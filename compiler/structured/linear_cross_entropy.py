"""A linear layer and the cross-entropy of its scores, of which never more than a chunk of rows is in memory.

A chunk's scores are a product of cuBLAS's; one kernel finds their losses and writes their gradient over them; two more
products make of that the gradient of the chunk's rows and what it adds to the gradient of the weights, in float32. So
the forward makes all gradients, and the backward multiplies them by that of the loss, where it is not 1. Without
gradients only losses are computed. Where no kernel runs, plain PyTorch does the same chunk by chunk.

In float16 what is written over the scores is the gradient of the losses' sum, magnified: a mean's, before it is scaled
as the loss is, would vanish there.
"""

from __future__ import annotations

from collections.abc import Mapping

from tdsl.compiler.emit.render import layout
from tdsl.compiler.emit.text import literal
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group
from tdsl.compiler.structured.class_cases import cases
from tdsl.compiler.structured.class_scores import ScoreKernels, score_kernels
from tdsl.compiler.structured.cross_entropy import FLOAT16
from tdsl.compiler.structured.template import Naming, Template, register

# What gradients in float16 are magnified by: far from overflowing, and near 1e-6 still normal numbers.
MAGNIFIED = 64
# What the function that finds the losses of a chunk takes last, and is given.
_RESULTS = ("losses", "trains", "fused")
_PARTS = ("losses[part]", "any(learns)", "fused")


def variables(group: Group, naming: Naming) -> Mapping[str, object]:
    """What the text shows; its functions call the tensors by their roles."""
    structure = group.structure
    assert structure is not None
    magnified = MAGNIFIED if naming.low == FLOAT16 else 0
    k = score_kernels(group.name, structure, at_once=True, chunked=True, magnified=magnified)
    roles = {value: role for role, value in structure.roles.items()}
    arguments = [roles[v] for v in group.body.inputs]
    learned = [role for role in ("x", "weight", "bias") if role in arguments]
    mean = k.reduction == "mean"
    return {
        "k": k,
        "bias": "bias" in arguments,
        "counts": mean,
        "shaped": len(structure.roles["x"].type.shape) != 2,
        "arguments": arguments,
        "places": {role: i for i, role in enumerate(arguments)},
        "losses_head": layout(f"def _{k.name}_losses", ["scores", "labels", *_beside(k), *_RESULTS], ":", 0),
        "losses_call": layout(f"_{k.name}_losses", ["scores", "labels[part]", *_beside(k), *_PARTS], "", 12),
        "in_pytorch": _in_pytorch(k),
        "forward_arguments": _forward_arguments(k),
        "count_arguments": ["labels", "n_cols", str(k.ignored), *(["class_weight"] if k.weighted else [])],
        "summed": [f"d_{role}" for role in learned],
        "saved": [*(f"d_{role}" for role in learned), *(["count"] if mean and magnified else [])],
        "returned": [f"d_{role}" if role in learned else "None" for role in arguments],
        "by": _by(mean, magnified) if magnified else "",
        "result": _result(k, group, naming),
    }


def _by(mean: bool, magnified: int) -> str:
    """The gradient of the loss for gradients that are magnified. Where nothing counts these are 0, and stay so."""
    return f"d_loss / ({magnified} * count.masked_fill(count == 0, 1.0))" if mean else f"d_loss / {magnified}"


def _beside(k: ScoreKernels) -> list[str]:
    """The tensors beside scores and labels that the losses of a chunk need."""
    found = {"class_weight": k.weighted, "total_weight": k.totals, "count": k.divides}
    return [name for name, used in found.items() if used]


def _in_pytorch(k: ScoreKernels) -> str:
    """The losses of a chunk without kernels."""
    by = "1 / count" if k.divides else literal(float(k.magnified or 1))
    options = {
        "ignore_index": "" if k.ignored == -100 else str(k.ignored),
        "weight": "class_weight" if k.weighted else "",
        "label_smoothing": literal(k.smoothing) if k.smoothed else "",
        "infinite": "True" if k.infinite else "",
    }
    given = [f"{name}={text}" for name, text in options.items() if text]
    return layout("chunks.cross_entropy_", ["scores", "labels", "losses", f"{by} if trains else None", *given], "", 8)


def _forward_arguments(k: ScoreKernels) -> list[str]:
    sizes = ["n_rows", "N_COLS=n_cols", "ROW_STRIDE=scores.stride(0)"]
    tile = ["BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols", "WITH_GRADIENT=trains", "num_warps=tile.warps"]
    return ["scores", "labels", *_beside(k), "losses", *sizes, *tile]


def _result(k: ScoreKernels, group: Group, naming: Naming) -> str:
    total = "losses.sum() / count" if k.reduction == "mean" else "losses.sum()"
    if naming.low and group.body.outputs[0].type.dtype == "f32":
        return total
    return f"({total}).to(x.dtype)" if k.reduction == "mean" else f"{total}.to(x.dtype)"


# What it moves -------------------------------------------------------------------------------------------------------


def _moved(group: Group) -> str:
    return (
        "Scores are in memory a chunk at a time (tdsl.runtime.chunks): the forward makes all gradients, the backward "
        "scales them."
    )


def _cost(group: Group, measure: Measure) -> Cost:
    """Scores move as they would in operations of their own; but they are never kept, nor is their gradient."""
    structure = group.structure
    assert structure is not None
    x, weight = structure.roles["x"], structure.roles["weight"]
    rows, classes = measure.elements(structure.roles["target"]), measure.sizes.number(weight.type.shape[0])
    scores = rows * classes * measure.of(x.type.dtype)
    product = 2 * classes * measure.elements(x)
    read = measure.bytes(x) + measure.bytes(weight)
    forward, backward = read + 3 * scores, 2 * (read + scores)
    return Cost(forward, backward, flops=product + 5 * rows * classes, flops_backward=2 * product, kept=read)


register(Template("linear_cross_entropy", variables, _moved, cases, _cost, native=True, everywhere=True))
