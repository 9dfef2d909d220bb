"""The reference interpreter: graphs of the compiler run on PyTorch tensors, node by node, in the tensors' precision.

Canonical [rows, columns] graphs are run as they are, which checks lowerings and derived backwards without any kernel;
groups are run by the PyTorch text of their operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tdsl.compiler.emit.reference import reference_lines
from tdsl.compiler.emit.text import Text, op_text
from tdsl.compiler.ir import Graph, Group, Node, Operand, Scalar, Value
from tdsl.compiler.kernel import Kernel, Layout, Port, Window
from tdsl.compiler.ops.rows import COLS, ROWS
from tdsl.compiler.size import Size

_ROWS, _COLS = (next(iter(s.symbols())) for s in (ROWS, COLS))
Compute = Callable[..., Tensor]

PRIMITIVES: Mapping[str, Compute] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg, "abs": torch.abs,
    "maximum": torch.maximum, "minimum": torch.minimum, "at_least": torch.maximum, "at_most": torch.minimum,
    "sign": torch.sign, "power": torch.pow, "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le,
    "gt": torch.gt, "ge": torch.ge, "both": torch.logical_and, "either": torch.logical_or,
    "opposite": torch.logical_not, "whole": torch.round, "whole_quotient": torch.floor_divide,
    "real": torch.Tensor.double, "integer": torch.Tensor.long, "where": torch.where, "length": torch.sqrt, "stop": lambda x: x,
    "row_sum": lambda x: x.sum(1, keepdim=True), "col_sum": lambda x: x.sum(0, keepdim=True),
    "all_sum": lambda x: x.sum().view(1, 1), "scan_sum": lambda x: x.cumsum(1),
    "scan_back": lambda x: x.flip(1).cumsum(1).flip(1),
    "row_max": lambda x: x.amax(1, keepdim=True), "row_min": lambda x: x.amin(1, keepdim=True),
}  # fmt: skip


def run(graph: Graph, given: Mapping[Value, Tensor], rows: int, cols: int) -> dict[Value, Tensor]:
    """Every value of a canonical graph, from its inputs."""
    values = dict(given)
    like = next(t for t in given.values() if t.is_floating_point())
    for node in graph.nodes:
        operands = [_operand(o, values, rows, cols, like) for o in node.inputs]
        if node.op.name == "column":
            values[node.output] = torch.arange(cols)[None, :]
        elif node.op.name == "spread":
            values[node.output] = operands[0].expand(rows, 1 if node.attrs["rows_only"] else cols)
        else:
            values[node.output] = _compute(node)(*operands)
    return values


def _compute(node: Node) -> Compute:
    known = PRIMITIVES.get(node.op.name)
    if known is not None:
        return known
    found: Compute = getattr(torch, node.op.name)
    return found


def _operand(operand: Operand, values: Mapping[Value, Tensor], rows: int, cols: int, like: Tensor) -> Tensor:
    if isinstance(operand, Value):
        return values[operand]
    value = operand.value
    if isinstance(value, Size):
        value = value.substitute({_ROWS: rows, _COLS: cols}).constant
    assert value is not None, f"{operand.text} is not known"
    return torch.tensor(value, dtype=torch.bool if isinstance(value, bool) else like.dtype)


def evaluate(
    kernel: Kernel, inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Results of a kernel, and the gradients of its floating-point inputs from those of its results."""
    by_source = dict(zip(kernel.group.body.inputs, inputs, strict=True))
    rows, cols = _space(kernel, by_source)
    full = _full(kernel, by_source)
    pieces = {p: _piece(by_source[p.argument], p) for p in kernel.inputs}
    trail = len(kernel.space.trail)
    given = {p.value: _canonical(pieces[p].detach(), p, full, trail, rows, cols) for p in kernel.inputs}
    values = run(kernel.forward, given, rows, cols)
    results = [
        _restored(_over(values[p.value], p, rows, cols), p, full, len(kernel.space.trail)) for p in kernel.outputs
    ]
    found: dict[Value, Tensor] = {}
    if kernel.backward is not None:
        kept = {v: values[v] for v in (*given, *kernel.saved)}
        handed = {p.value: _rows_cols(g, p.layout, rows, cols) for p, g in zip(kernel.grads, grads, strict=True)}
        back = run(kernel.backward, {**kept, **handed}, rows, cols)
        for g in kernel.gradients:
            grad = _brought(back[g.value], g.port, g.layout, full, trail, pieces[g.port])
            grad = _in_place(grad, g.port, by_source[g.port.argument])
            given_to = g.port.argument
            found[given_to] = found[given_to] + grad if given_to in found else grad
    return results, [found.get(v) for v, t in by_source.items() if t.requires_grad]


def _full(kernel: Kernel, by_source: Mapping[Value, Tensor]) -> tuple[int, ...]:
    shapes = [_piece(by_source[p.argument], p).shape for p in kernel.inputs]
    return tuple(max(shapes, key=len)) if _has_dropped(kernel) else tuple(torch.broadcast_shapes(*shapes))


def _has_dropped(kernel: Kernel) -> bool:
    """Whether an input is a number a row without the columns, which does not broadcast as it stands."""
    return any(p.layout is Layout.ROW and len(p.type.shape) < len(kernel.space.shape) for p in kernel.inputs)


def _space(kernel: Kernel, by_source: Mapping[Value, Tensor]) -> tuple[int, int]:
    full = _full(kernel, by_source)
    cols = math.prod(full[len(full) - len(kernel.space.trail) :])
    return math.prod(full) // cols, cols


def _canonical(tensor: Tensor, port: Port, full: tuple[int, ...], trail: int, rows: int, cols: int) -> Tensor:
    if port.runs:
        tensor = _spread(tensor, port, full, trail)
    return _rows_cols(tensor, port.layout, rows, cols)


def _spread(tensor: Tensor, port: Port, full: tuple[int, ...], trail: int) -> Tensor:
    """What lacks some of its layout's dimensions, with all of those."""
    if port.dropped:
        tensor = tensor.reshape(*tensor.shape, *(1,) * trail)
    lead = len(full) - trail
    has_rows, has_cols = port.layout in (Layout.FULL, Layout.ROW), port.layout in (Layout.FULL, Layout.COL)
    return tensor.expand([n if (has_rows if i < lead else has_cols) else 1 for i, n in enumerate(full)])


def _over(tensor: Tensor, port: Port, rows: int, cols: int) -> Tensor:
    """A sum, divided where it is a mean."""
    return tensor if port.count is None else tensor / _operand(port.count, {}, rows, cols, tensor)


def _rows_cols(tensor: Tensor, layout: Layout, rows: int, cols: int) -> Tensor:
    wide = layout is Layout.FULL
    return tensor.reshape(
        rows if wide or layout is Layout.ROW else 1,
        cols if wide or layout is Layout.COL else 1,
    )


def _restored(tensor: Tensor, port: Port, full: tuple[int, ...], trail: int) -> Tensor:
    if port.layout is Layout.FULL:
        return tensor.reshape(full)
    if port.layout is Layout.SCALAR:
        return tensor.reshape((1,) * len(port.type.shape))
    if port.layout is Layout.COL:
        return tensor.reshape((*(1,) * (len(port.type.shape) - trail), *full[len(full) - trail :]))
    lead = full[: len(full) - trail]
    return tensor.reshape((*lead, *(1,) * trail) if len(port.type.shape) == len(full) else lead)


def _brought(grad: Tensor, port: Port, layout: Layout, full: tuple[int, ...], trail: int, source: Tensor) -> Tensor:
    """The gradient in the shape of its tensor."""
    if not port.runs:
        return grad.reshape(source.shape)
    lead = len(full) - trail
    has_rows, has_cols = layout in (Layout.FULL, Layout.ROW), layout in (Layout.FULL, Layout.COL)
    grad = grad.reshape([n if (has_rows if i < lead else has_cols) else 1 for i, n in enumerate(full)])
    grad = grad.reshape(full[:lead]) if port.dropped else grad
    return grad.sum_to_size((1,) * (grad.dim() - source.dim()) + tuple(source.shape)).reshape(source.shape)


def _piece(tensor: Tensor, port: Port) -> Tensor:
    """The tensor of a port: a piece of what the kernel is given, or all of it."""
    return tensor if port.window is None else _pieces(tensor, port.window)[port.window.index]


def _pieces(tensor: Tensor, window: Window) -> Sequence[Tensor]:
    text = op_text(window.view, [Text("x")], window.view.attrs).text
    found: Any = eval(text, {"x": tensor, "torch": torch})
    return found if isinstance(found, (tuple, list)) else (found,)


def _in_place(grad: Tensor, port: Port, whole: Tensor) -> Tensor:
    """The gradient of a piece as that of what it is cut from, zero elsewhere."""
    if port.window is None:
        return grad
    found = torch.zeros_like(whole)
    _pieces(found, port.window)[port.window.index].copy_(grad)
    return found


def reference(group: Group, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Results of a group by the PyTorch text of its operations."""
    names = {v: f"x{i}" for i, v in enumerate(group.body.inputs)}
    scalars = {s: f"s{i}" for i, s in enumerate(group.scalars)}
    lines = "\n".join(f"    {line}" for line in reference_lines(group.body, names, scalars))
    space: dict[str, Any] = {"torch": torch, "F": F, "math": math}
    exec(f"def run({', '.join([*names.values(), *scalars.values()])}):\n{lines}\n", space)
    found = space["run"](*inputs, *(_number(s) for s in group.scalars))
    return list(found) if isinstance(found, tuple) else [found]


def _number(scalar: Scalar) -> float:
    assert isinstance(scalar.value, (int, float)), scalar
    return scalar.value
