"""Batch norm with what follows it: a residual that is added, an activation.

    y = activation((x - mean) / sqrt(variance + eps) * weight + bias + residual)

In training one pass over `x` yields the statistics (Welford's, joined in a fixed order), a second one `y`. The backward
has two: sums for each channel, then the gradient of `x`. What the activation's derivative needs is what means fewest
bytes. Without a residual that is its argument, computed again from `x`, which is read anyway. With one, the first pass
writes the gradient behind the activation, which is the residual's, and the second reads it; the first tells the
derivative by the result where it can, which the next layer keeps anyway, and else reads the residual again.

The function is given the layer itself: mode, momentum and statistics are the layer's own, and a layer of another kind,
such as a synchronised one, computes itself. That of `batch_norm(x, running_mean, ...)` is given these tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tdsl.compiler.emit.render import layout
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Value
from tdsl.compiler.structured.activation import Activation
from tdsl.compiler.structured.template import Case, Naming, Template, register

# They leave their own results as they are, and have the slope there that they have at the argument.
IDEMPOTENT = ("relu", "relu6", "hardtanh")
# The tensors of `F.batch_norm` beside its input.
GIVEN = ("running_mean", "running_var", "weight", "bias")
SIZES = ("n_rows", "n_cols")
TILE = tuple(f"{name}: tl.constexpr" for name in ("ROW_STRIDE", "COL_STRIDE", "BLOCK_ROWS", "BLOCK_COLS"))
LOAD = "tl.load({0}_ptr + offsets, mask=mask, other=0.0).to(tl.float32)"
# Columns before a statement of a method.
METHOD = 8


@dataclass(frozen=True)
class _Parts:
    """What the text of a group has in it.

    `scalars` are the numbers of its activation, by their names in its functions.
    """

    residual: bool
    affine: bool
    activation: Activation | None
    idempotent: bool
    scalars: tuple[str, ...] = ()

    @property
    def stores(self) -> bool:
        """Whether the first pass of the backward writes the gradient behind the activation."""
        return self.residual and self.activation is not None

    @property
    def again(self) -> bool:
        """Whether the activation's argument is computed again."""
        return self.activation is not None and not (self.residual and self.idempotent)

    @property
    def parameters(self) -> list[str]:
        return ["weight", "bias"] * self.affine

    @property
    def kept(self) -> list[str]:
        """The tensors, beside `x`, from which the activation's derivative is told."""
        if not self.stores:
            return []
        return ["residual"] if self.again else ["y"]

    @property
    def saved(self) -> list[str]:
        vectors = self.parameters if self.again else self.parameters[:1]
        return ["x", *self.kept, "mean", "variance", *vectors]

    @property
    def reaching(self) -> str:
        """What the gradient that reaches the norm is called."""
        return "d_y" if self.activation is None else "d_z"


def _parts(group: Group, scalars: tuple[str, ...] = ()) -> _Parts:
    assert group.structure is not None
    last = [n for n in group.body.nodes if n.op.name not in ("upcast", "downcast")][-1]
    node = None if last.op.name in ("batch_norm_layer", "batch_norm", "add") else last
    return _Parts(
        residual="residual" in group.structure.roles,
        affine=bool(group.structure.options["affine"]),
        activation=None if node is None else Activation(node),
        idempotent=node is not None and node.op.name in IDEMPOTENT,
        scalars=scalars,
    )


# The text ------------------------------------------------------------------------------------------------------------


def _variables(group: Group, naming: Naming) -> Mapping[str, object]:
    parts = _parts(group, tuple(naming.scalars.values()))
    return {
        "residual": parts.residual,
        "affine": parts.affine,
        "again": parts.again,
        "stores": parts.stores,
        "reaching": parts.reaching,
        "saved": parts.saved,
        "numbers": parts.scalars,
        "decorator": _decorator(parts, naming),
        **_forward(group, parts, naming),
        **_sums(parts, naming),
        **_backward(parts, naming),
    }


def _decorator(parts: _Parts, naming: Naming) -> str:
    """The reference has a layer's parameters from the layer, the autograd function is given them apart."""
    reference = f"{naming.name}_reference"
    if parts.affine or not naming.layer:
        held = GIVEN[:2] if not naming.layer else ()
        given = (f"norm.{name}" if name in held else name for name in naming.arguments)
        reference = f"lambda {', '.join(_taken(parts))}: {reference}({', '.join(given)})"
    return layout("@launch.falls_back_to", [reference], "", 0)


def _taken(parts: _Parts) -> list[str]:
    """The parameters of the autograd function."""
    return ["x", *["residual"] * parts.residual, *parts.parameters, "norm", *parts.scalars]


def _head(kernel: str, *arguments: str) -> str:
    return layout(f"def {kernel}", arguments, ":", 0)


def _pointers(*names: str) -> list[str]:
    return [f"{name}_ptr" for name in names]


def _call(kernel: str, grid: str, *arguments: str) -> str:
    return layout(f"{kernel}[at.{grid}]", [*arguments, "**at.constants"], "", METHOD)


def _forward(group: Group, parts: _Parts, naming: Naming) -> dict[str, object]:
    tensors = ["x", *["residual"] * parts.residual, "mean", "variance", *parts.parameters, "y"]
    kernel = f"_{naming.name}_forward"
    flags = ("FOLDED: tl.constexpr", "CHANNELS: tl.constexpr")
    given = [*tensors, *parts.scalars, "norm.eps", "at.rows", "at.cols", "FOLDED=mean is None"]
    activation = parts.activation
    full = naming.low and group.body.outputs[0].type.dtype == "f32"
    return {
        "forward_head": _head(kernel, *_pointers(*tensors), *parts.scalars, "eps", *SIZES, *flags, *TILE),
        "forward_call": _call(kernel, "grid", *given, "CHANNELS=x.shape[1]"),
        "forward_method": layout("def forward", ["ctx", *_taken(parts)], ":", 4),
        "activation": [] if activation is None else activation.lines(naming.scalars),
        "result": "z" if activation is None else "y",
        "result_dtype": ", dtype=torch.float32" if full else "",
    }


def _sums(parts: _Parts, naming: Naming) -> dict[str, object]:
    vectors = ["mean", "variance", *(parts.parameters if parts.again else [])]
    tensors = ["x", *parts.kept, *vectors, "d_y", *["d_residual"] * parts.stores, "sums"]
    kernel = f"_{naming.name}_sums"
    pointers = _pointers(*tensors)
    given = [*tensors, *_kept_numbers(parts), "ctx.eps", "at.rows", "at.cols", "at.part"]
    loads = [f"{name} = {LOAD.format(name)}" for name in ("d_y", *(["y"] if "y" in parts.kept else []))]
    head = [*pointers, *parts.scalars, "eps", *SIZES, "part", "CHANNELS: tl.constexpr", *TILE]
    return {
        "sums_head": _head(kernel, *head),
        "sums_call": _call(kernel, "sums", *given, "CHANNELS=x.shape[1]"),
        "gradient": [*loads, *_derivative(parts, naming)],
    }


def _kept_numbers(parts: _Parts) -> list[str]:
    return [f"ctx.{name}" for name in parts.scalars]


def _derivative(parts: _Parts, naming: Naming) -> list[str]:
    """Statements that make the gradient behind the activation."""
    if parts.activation is None:
        return []
    if not parts.again:
        return parts.activation.backward_lines(naming.scalars, "y")
    if not parts.affine and not parts.residual:
        return parts.activation.backward_lines(naming.scalars, "normalised")
    terms = ["normalised * weight + bias" if parts.affine else "normalised"]
    terms += [LOAD.format("residual")] if parts.residual else []
    return [f"z = {' + '.join(terms)}", *parts.activation.backward_lines(naming.scalars, "z")]


def _backward(parts: _Parts, naming: Naming) -> dict[str, object]:
    again = parts.again and not parts.residual
    vectors = ["mean", "variance", *(parts.parameters if again else parts.parameters[:1])]
    reaching = "d_residual" if parts.stores else "d_y"
    scalars = parts.scalars if again else ()
    kernel = f"_{naming.name}_backward"
    last = "d_z" if parts.activation is not None else "d_y"
    pointers = _pointers("x", *vectors, "d_z" if parts.stores else "d_y", "sums", "d_x")
    flags = ("OF_BATCH: tl.constexpr", "CHANNELS: tl.constexpr")
    given = ["x", *vectors, reaching, "sums", "d_x", *(_kept_numbers(parts) if again else []), "ctx.eps"]
    given += ["x.shape[1] / x.numel()", "at.rows", "at.cols", "OF_BATCH=ctx.of_batch", "CHANNELS=x.shape[1]"]
    return {
        "backward_head": _head(kernel, *pointers, *scalars, "eps", "share", *SIZES, *flags, *TILE),
        "backward_call": _call(kernel, "grid", *given),
        "last": last,
        "last_gradient": [
            f"{'d_z' if parts.stores else 'd_y'} = {LOAD.format('d_z' if parts.stores else 'd_y')}",
            *(_derivative(parts, naming) if again else []),
        ],
        "gradients": _gradients(parts),
    }


def _gradients(parts: _Parts) -> list[str]:
    """What the backward returns, a gradient for each parameter of the forward."""
    residual = ["d_residual" if parts.stores else "d_y"] * parts.residual
    return ["d_x", *residual, *["sums[1]", "sums[0]"] * parts.affine, "None", *["None"] * len(parts.scalars)]


def _prepared(group: Group, naming: Naming) -> list[str]:
    """What stands for a layer where there is none."""
    if naming.layer:
        return []
    attrs = next(node.attrs for node in group.body.nodes if node.op.name == "batch_norm")
    given = [naming.roles.get(name, "None") for name in GIVEN]
    given += [f"{name}={attrs[name]!r}" for name in ("training", "momentum", "eps")]
    return layout("norm = batch_norm.Call", given, "", 4).split("\n    ")


def _condition(group: Group, naming: Naming) -> str:
    tensors = [naming.roles[role] for role in ("x", "residual") if role in naming.roles]
    return f"batch_norm.takes({', '.join(['norm', *tensors])})"


def _applied(group: Group, naming: Naming) -> str:
    parts = _parts(group, tuple(naming.scalars.values()))
    held = ("weight", "bias") if naming.layer else ()
    return ", ".join(f"norm.{name}" if name in held else name for name in _taken(parts))


# What it moves, and where it is tried --------------------------------------------------------------------------------


def _passes(parts: _Parts) -> tuple[int, int, int]:
    """Full tensors read and written: forward in training and in evaluation, and backward."""
    backward = 5 + 2 * parts.stores
    return 3 + parts.residual, 2 + parts.residual, backward


def _moved(group: Group) -> str:
    training, evaluation, backward = (4 * n for n in _passes(_parts(group)))
    forward = f"{training} bytes (f32) an element forward in training, {evaluation} in evaluation"
    return f"Moves {forward}, {backward} backward."


def _cost(group: Group, measure: Measure) -> Cost:
    """In training. What several kernels read counts for each: statistics and results are made one after the other."""
    parts = _parts(group)
    x = group.body.inputs[0]
    each = measure.bytes(x)
    forward, _, backward = _passes(parts)
    active = parts.activation is not None
    flops = measure.elements(x)
    return Cost(
        forward=forward * each,
        backward=backward * each,
        flops=(8 + parts.residual + active) * flops,
        flops_backward=(10 + active) * flops,
        kept=8 * measure.count(x.type.shape[1:2]),  # a mean and a variance a channel
    )


def _keeps(group: Group) -> tuple[Value, ...]:
    assert group.structure is not None
    tensors = {**group.structure.roles, "y": group.body.outputs[0]}
    return tuple(tensors[name] for name in _parts(group).saved if name in tensors)


# Of a batch and of what is in a channel: none, one value a channel, around powers of two, primes, many parts.
_SHAPES = {
    2: ((5, 3), (0, 4), (1, 8), (3, 1), (7, 63), (8, 64), (9, 65), (13, 130), (2100, 3)),
    3: ((5, 3, 4), (3, 8, 1), (1, 9, 13), (2, 3, 1030)),
    4: ((5, 3, 4, 4), (0, 3, 2, 2), (1, 4, 1, 1), (2, 1, 7, 9), (13, 8, 1, 1), (2, 17, 5, 13)),
    5: ((5, 3, 2, 2, 2), (2, 7, 1, 3, 4)),
}
_LAYERS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}


def _cases(group: Group) -> Iterator[Case]:
    for shape in _SHAPES[len(group.body.inputs[0].type.shape)]:
        for mode in _modes(group):
            if mode == "eval" or shape[0] == 0 or prod(shape) > shape[1]:
                yield _case(group, [shape], mode)


def _case(group: Group, shapes: Sequence[Sequence[int]], mode: str = "train") -> Case:
    """A call with `x` of the first shape; all else goes by that."""
    given, scalars = _given(group, tuple(shapes[0]), mode), group.scalars
    tensors, kinds = zip(*given, strict=True)
    return Case(tensors, kinds, tuple(float(s.value) if isinstance(s.value, (int, float)) else 0.1 for s in scalars))


def _modes(group: Group) -> tuple[str, ...]:
    """Both of a layer; of a call the one that it has."""
    call = next((node for node in group.body.nodes if node.op.name == "batch_norm"), None)
    return ("train", "eval") if call is None else ("train" if call.attrs["training"] else "eval",)


def _given(group: Group, shape: tuple[int, ...], mode: str) -> Iterator[tuple[tuple[int, ...], str]]:
    """The shape and the kind of each argument."""
    assert group.structure is not None
    roles = {value: role for role, value in group.structure.roles.items()}
    for value in group.body.inputs:
        role = roles[value]
        kind = "state" if role in GIVEN[:2] else "f32" if role in GIVEN else "float"
        yield (shape if kind == "float" else shape[1:2]), kind
    if group.structure.layer:
        yield shape[1:2], f"{_LAYERS[len(shape)]}:{mode}{'' if _parts(group).affine else ':affine=False'}"


register(
    Template(
        "batch_norm",
        variables=_variables,
        moved=_moved,
        cases=_cases,
        case=_case,
        cost=_cost,
        keeps=_keeps,
        layer="norm",
        shared="batch_norm_shared",
        prepared=_prepared,
        condition=_condition,
        applied=_applied,
        by_role=True,
        any_rank=True,
    )
)
