"""How a group is to be computed: its kernel in both directions, and their schedules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from tdsl.compiler.ir import Attr, Graph, Group, Node, Operand, Scalar, Structure, Value
from tdsl.compiler.kernel import Kernel, Layout, Port
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.passes.differentiate import differentiate
from tdsl.compiler.passes.lower import lower
from tdsl.compiler.passes.schedule import Schedule, schedule
from tdsl.compiler.size import Size
from tdsl.compiler.structured.template import template_of


@dataclass(frozen=True, eq=False)
class Plan:
    """A group with its kernel and the schedules of its two directions."""

    kernel: Kernel
    forward: Schedule
    backward: Schedule | None


def plan(group: Group) -> Plan:
    """Lower, differentiate and schedule a group."""
    found = _plan(group.body, group.scalars, group.columns, group.still)
    return replace(found, kernel=replace(found.kernel, group=group))


@cache
def _plan(body: Graph, scalars: tuple[Scalar, ...], columns: int | None, still: tuple[int, ...]) -> Plan:
    """Once for each body, whatever name its group comes to have."""
    with knowing(body.known, body.assumed):
        kernel = differentiate(lower(Group(body.name, body, scalars, columns, still)))
        backward = schedule(kernel, kernel.backward) if kernel.backward is not None else None
        return Plan(kernel, schedule(kernel, kernel.forward), backward)


def same_kernel(group: Group) -> object:
    """What tells whether one kernel can serve two groups: operations, layouts, forms; neither names nor sizes."""
    if group.structure is not None:
        return _same_structure(group, group.structure)
    planned = plan(group)
    kernel = planned.kernel
    rank = len(kernel.space.shape)
    numbers: dict[object, int] = {p.value: i for i, p in enumerate(kernel.inputs)}
    numbers |= {s: -1 - i for i, s in enumerate(group.scalars)}

    def number(operand: Operand) -> object:
        return (
            operand if isinstance(operand, Scalar) and not operand.text else numbers.setdefault(operand, len(numbers))
        )

    nodes = tuple((n.op.name, tuple(map(number, n.inputs)), tuple(n.attrs.items())) for n in kernel.forward.nodes)
    ports = tuple(_told(p, rank) for p in (*kernel.inputs, *kernel.outputs))
    outputs = tuple(map(number, kernel.forward.outputs))
    sources = tuple(group.body.inputs.index(p.argument) for p in kernel.inputs)
    # The reference beside the kernel has what lowering does away with: sizes, and dimensions counted from the left.
    reference = tuple((n.op.name, tuple(n.attrs.items())) for n in group.body.nodes)
    sizes = (len(kernel.space.trail), rank if any(p.runs for p in kernel.inputs) else None)
    return (nodes, ports, sources, outputs, sizes, group.still, planned.forward, planned.backward, reference)


def _same_structure(group: Group, structure: Structure) -> object:
    """Of a template: what varies in it, its tensors, and all that its reference says."""
    numbers: dict[object, int] = {v: i for i, v in enumerate(group.body.inputs)}
    numbers |= {s: -1 - i for i, s in enumerate(group.scalars)}
    numbers |= {s.value: -1 - i for i, s in enumerate(group.scalars) if isinstance(s.value, Size)}

    def number(operand: Operand) -> object:
        return numbers.setdefault(operand, len(numbers)) if isinstance(operand, Value) or operand.text else operand

    def option(attr: Attr) -> object:
        """An attribute or option, where an argument tells it that argument."""
        if isinstance(attr, tuple):
            return tuple(map(option, attr))
        return numbers.get(attr, attr) if isinstance(attr, (Scalar, Size)) else attr

    def told(node: Node) -> object:
        operands = [number(each) for each in (*node.inputs, *node.outputs)]
        return (node.op.name, tuple(operands), tuple((name, option(attr)) for name, attr in node.attrs.items()))

    nodes = tuple(map(told, group.body.nodes))
    roles = tuple((role, numbers[value]) for role, value in structure.roles.items())
    any_rank = template_of(group).any_rank
    types = tuple((v.type.dtype, 0 if any_rank else len(v.type.shape)) for v in group.body.inputs)
    options = tuple((name, option(attr)) for name, attr in structure.options.items())
    return (structure.template, roles, options, types, nodes)


def _told(port: Port, rank: int) -> object:
    window = port.window
    cut = (window.view.op.name, tuple(window.view.attrs.items()), window.index) if window is not None else None
    return (port.layout, port.runs, port.count, port.type.dtype, _rank_matters(port, rank), cut)


def _rank_matters(port: Port, rank: int) -> int:
    """Whether the tensor has all dimensions of the space, or how many it has, as the code depends on that."""
    return len(port.type.shape) == rank if port.layout in (Layout.FULL, Layout.ROW) else len(port.type.shape)
