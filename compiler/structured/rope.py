"""Rotary positions, of one tensor or of several with the same positions.

A program turns a tile of positions, head after head: angles are read once for all heads. What it reads may lie in
memory in any way but for the last dimension; what it writes lies like that. The gradient is turned back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tdsl.compiler.emit.render import layout
from tdsl.compiler.emit.triton import Names
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Value
from tdsl.compiler.ops.infer import REST
from tdsl.compiler.ops.op import OPS
from tdsl.compiler.structured.numbers import declared, given, number_text
from tdsl.compiler.structured.template import Case, Naming, Template, register

CONSTANTS = ("DIM", "DIRECTION", "BLOCK_ROWS", "BLOCK_COLS")
TILED = ("DIM=dim", "DIRECTION=direction", "BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols", "num_warps=tile.warps")
NAMES = ("batch", "length", "time", "dim", "table", "angles", "cos", "sin", "head", "heads", "direction", "second")


@dataclass(frozen=True)
class Turned:
    """A tensor `x` [batch, `heads`, length, dim] and what it becomes, `y`."""

    x: str
    y: str
    heads: str


def _variables(group: Group, naming: Naming) -> Mapping[str, object]:
    assert group.structure is not None
    options = group.structure.options
    names = Names({*naming.arguments, *naming.outputs.values(), *NAMES})
    xs = list(naming.inputs.values())
    single = len(xs) == 1
    if single:
        (y,) = naming.outputs.values()
        tensors = [Turned(xs[0], y, "heads")]
    else:
        tensors = [Turned(x, names.new(f"{x}_turned"), names.new(f"{x}_heads")) for x in xs]
    turned = f"_{group.name}_turned"
    grads = ", ".join(names.new(f"d_{name}") for name in (naming.outputs.values() if single else xs))
    back = f"{turned}({grads}, ctx.table, -1)"
    numbers = ["None"] * len(naming.scalars)
    return {
        "tensors": tensors,
        "single": single,
        "xs": ", ".join(xs),
        "arguments": ", ".join(naming.arguments),
        "grads": grads,
        "handed": ", ".join([back if single or not numbers else f"*{back}", *numbers]),
        "returned": f"{tensors[0].y}.view(shape)" if single else ", ".join(each.y for each in tensors),
        "base": number_text(options["base"], naming),
        "offset": number_text(options["offset"], naming),
        "head": _head(group.name, tensors),
        "launch": _launch(group.name, tensors),
    }


def _head(name: str, tensors: list[Turned]) -> str:
    pointers = [*(f"{t.x}_ptr" for t in tensors), "table_ptr", *(f"{t.y}_ptr" for t in tensors)]
    lie = [f"{each}_{dim}" for t in tensors for each in (t.x, t.y) for dim in ("batch", "head", "time")]
    sizes = ["n_rows", "length", *(t.heads for t in tensors)]
    return layout(f"def _{name}_kernel", [*pointers, *sizes, *lie, *(f"{c}: tl.constexpr" for c in CONSTANTS)], ":", 0)


def _launch(name: str, tensors: list[Turned]) -> str:
    given = [*(t.x for t in tensors), "table", *(t.y for t in tensors), "batch * length", "length"]
    given += [t.heads for t in tensors]
    given += [f"*{each}.stride()[:3]" for t in tensors for each in (t.x, t.y)]
    return layout(f"_{name}_kernel[tile.grid]", [*given, *TILED], "", 8)


# Sizes ---------------------------------------------------------------------------------------------------------------


def _cases(group: Group) -> Iterator[Case]:
    """At awkward lengths, widths and numbers of heads; the leading dimensions of `...` are one, then two."""
    shape = group.body.inputs[0].type.shape
    ranks = (2, 3, 4, 5) if REST in shape else (len(shape),)
    numbers = given(group, {"base": 10000.0, "offset": 3})
    several = len(group.body.inputs)
    width = declared(shape[-1], group, 64)
    for length, dim in ((5, width), (0, 2), (1, 2), (7, 6), (8, 16), (9, 34), (13, 8), (129, 2), (3, 260)):
        for rank in ranks:
            lead = (2, 1, 3, 2)[: rank - 2] if length != 8 else (1, 2, 3, 4)[: rank - 2]
            shapes = [(*lead[:-1], lead[-1] + i, length, dim) if lead else (length, dim) for i in range(several)]
            yield Case(tuple(shapes), ("float",) * several, numbers)


# What it costs -------------------------------------------------------------------------------------------------------


def _moved(group: Group) -> str:
    return "Moves 8 bytes (f32) an element forward, 8 backward."


def angles(value: Value, measure: Measure) -> int:
    """Bytes of the angles that a tensor is turned by: a cosine or a sine for each dimension of each position."""
    *_, length, dim = measure.sizes.shape(value.type.shape)
    return 4 * length * dim


def _cost(group: Group, measure: Measure) -> Cost:
    """Each tensor is read and written once in each direction, the angles once for all."""
    inputs = group.body.inputs
    tensors, table = 2 * sum(map(measure.bytes, inputs)), angles(inputs[0], measure)
    flops = int(OPS["rope"].flops * sum(map(measure.elements, inputs)))
    return Cost(tensors + table, tensors + table, flops=flops, flops_backward=flops)


register(
    Template(
        "rope", variables=_variables, moved=_moved, cases=_cases, cost=_cost, names=NAMES, keeps_dtype=True, native=True
    )
)
