"""Classes that read the same are one: elaborations differ in what they are given, their texts often don't."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tdsl.compiler.build.unit import ModuleIR
from tdsl.compiler.ir import Scalar, Value


def shared(ir: ModuleIR, order: list[ModuleIR], declared: Iterable[str]) -> ModuleIR:
    """The class of `order` that reads the same; else `ir`, added to it, under a name that no other module has."""
    mine = _fingerprint(ir)
    for i, other in enumerate(order):
        if other.source is ir.source and _fingerprint(other) == mine:
            most = {s: max(n, ir.graph.known.get(s, n)) for s, n in other.graph.known.items()}
            order[i] = replace(other, graph=replace(other.graph, known=most))
            return order[i]
    taken = {m.class_name for m in order} | {*declared} - {ir.class_name}
    name, number = ir.class_name, 2
    while name in taken:
        name, number = f"{ir.class_name}{number}", number + 1
    ir = replace(ir, class_name=name)
    order.append(ir)
    return ir


def _fingerprint(ir: ModuleIR) -> object:
    """What the text of a class depends on."""
    graph = ir.graph
    numbers: dict[Value, int] = {}

    def text(operand: Value | Scalar) -> object:
        if isinstance(operand, Scalar):
            return operand.text or operand
        return numbers.setdefault(operand, len(numbers))

    nodes = tuple(
        (n.op.name, tuple(map(text, n.inputs)), tuple(n.attrs.items()), n.layer, tuple(v.type for v in n.outputs))
        for n in graph.nodes
    )
    params = tuple((p.path, p.value.type) for p in graph.params)
    return (tuple(ir.members.items()), ir.ties, params, nodes, tuple(map(text, graph.outputs)))
