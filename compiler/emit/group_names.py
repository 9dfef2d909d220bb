"""What the text of one group calls everything: its arguments, results, gradients and saved numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tdsl.compiler.emit.indexing import Index, index, moved, stepped
from tdsl.compiler.emit.kernel_writer import Tensor_
from tdsl.compiler.emit.plan import Plan
from tdsl.compiler.emit.triton import NOUNS, Names
from tdsl.compiler.ir import Scalar, Value
from tdsl.compiler.kernel import Gradient, Layout, Port
from tdsl.compiler.passes.windows import view_of
from tdsl.compiler.precision import low_precision


def scalar_names(
    scalars: Sequence[Scalar], names: Names, called: Mapping[Scalar, str] | None = None
) -> dict[Scalar, str]:
    """A parameter's name for each number: what it is `called`, else the last name of its text.

    A rate that training decides is `p`.
    """
    found: dict[Scalar, str] = {}
    for scalar in scalars:
        words = [w for w in re.findall(r"[A-Za-z_]\w*", scalar.text) if w not in ("if", "else", "self", "not", "and")]
        wish = "p" if " if " in scalar.text else words[-1] if words else "value"
        found[scalar] = names.new((called or {}).get(scalar, wish))
    return found


class GroupNames:
    """The names of one group's tensors and numbers, and what its backward reads and writes."""

    def __init__(self, planned: Plan) -> None:
        self.plan = planned
        self.kernel = kernel = planned.kernel
        self.names = Names()
        self.sources: dict[Value, str] = {}
        self.ports: dict[Port, str] = {}
        # What the tensor of a port is called where the kernel is launched.
        self.host: dict[Port, str] = {}
        self.wishes = dict(zip(kernel.group.body.inputs, kernel.group.names))
        for value in kernel.group.body.inputs:
            self._name_input(value, [p for p in kernel.inputs if p.argument is value])
        self.ports = {p: self.ports[p] for p in kernel.inputs}
        self.scalars = scalar_names(kernel.scalars, self.names)
        self.outputs = {p: self.names.new(p.name or "y") for p in kernel.outputs}
        self.grads = {p: self.names.new(f"d_{self.outputs[o]}") for p, o in zip(kernel.grads, self._float_outputs())}
        self.rows = {v: self.names.new(v.name or self._row_name(v)) for v in kernel.saved_rows}
        self.cols = len(kernel.space.trail)
        self.indices = {p: index(name, p.runs, kernel.space) for p, name in self.ports.items() if p.runs}
        self.indices |= {p: self._viewed(p) for p in self.ports if p.window is not None}
        self.draws = kernel.draws > 0
        self.handed = self._backward_parameters()
        self.low = low_precision(kernel.group)

    def _name_input(self, value: Value, ports: Sequence[Port]) -> None:
        """One argument, and what the kernel calls the tensors that it reads of it."""
        cut = any(p.window is not None for p in ports)
        wish = value.name or self.wishes.get(value) or "x"
        self.sources[value] = self.names.new(wish)
        for i, port in enumerate(ports):
            self.ports[port] = self.names.new(port.name or wish) if cut or i else self.sources[value]
            self.host[port] = self.ports[port] if cut else self.sources[value]

    def _viewed(self, port: Port, prefix: str = "") -> Index:
        """Where a tensor that the group views itself lies."""
        assert port.window is not None
        view = view_of(port.window.view)
        assert view is not None
        made = stepped if view.fixed else moved
        return made(self.sources[port.argument], f"{prefix}{self.host[port]}", self.kernel.space)

    def _float_outputs(self) -> list[Port]:
        return [p for p in self.kernel.outputs if p.type.is_float]

    def _backward_parameters(self) -> list[str]:
        """A gradient for each output, in order; what autograd hands in for truth values and integers is ignored."""
        if self.kernel.backward is None:
            return []
        grads = iter(self.grads.values())
        return [next(grads) if p.type.is_float else self.names.new(f"d_{n}") for p, n in self.outputs.items()]

    def _row_name(self, value: Value) -> str:
        op = self.kernel.forward.producers()[value].op.name
        return NOUNS.get(op, op)

    def _kernel_name(self, direction: str) -> str:
        return f"_{self.kernel.name}_{direction}"

    def _backward_writes(self) -> list[Tensor_]:
        plain = [g for g in self._computed() if g.port.window is None]
        pieces = [g for g in self._computed() if g.port.window is not None]
        found = once([Tensor_(f"d_{self.ports[g.port]}", g.value, g.layout) for g in plain])
        return found + [
            Tensor_(f"d_{self.ports[g.port]}", g.value, g.layout, self._viewed(g.port, "d_")) for g in pieces
        ]

    def _computed(self) -> list[Gradient]:
        """The gradients that the kernel writes. One that is a result's own gradient is handed on as it is."""
        return [g for g in self.kernel.gradients if g.value not in self._handed_on() or g.port.window is not None]

    def _handed_on(self) -> dict[Value, str]:
        return {p.value: name for p, name in self.grads.items() if p.layout is Layout.FULL}

    def _read(self, port: Port) -> Tensor_:
        return Tensor_(self.ports[port], port.value, port.layout, self.indices.get(port))

    def _backward_reads(self) -> list[Tensor_]:
        found = [self._read(p) for p in self.kernel.saved_inputs]
        found += [Tensor_(self.outputs[p], p.value, p.layout) for p in self._saved_outputs()]
        found += [Tensor_(name, v, Layout.ROW) for v, name in self.rows.items()]
        return found + [Tensor_(name, p.value, p.layout) for p, name in self.grads.items() if self._used(p.value)]

    def _used(self, value: Value) -> bool:
        """Whether the backward kernel reads a gradient."""
        graph = self.kernel.backward
        assert graph is not None
        return any(value in n.values for n in graph.nodes) or any(value is g.value for g in self._computed())

    def _saved_outputs(self) -> list[Port]:
        """One value may be several outputs, with and without the dimensions that were reduced: the first is saved."""
        first = {p.value: p for p in reversed(self.kernel.outputs)}
        return [p for p in self.kernel.outputs if p.value in self.kernel.saved and first[p.value] is p]

    def _gradients_of(self) -> dict[Port, str]:
        """The outputs by the names of their gradients."""
        return dict(zip(self._float_outputs(), self.grads.values()))

    def _is_full(self, port: Port) -> bool:
        """Whether it is float32 beside tensors of a lower precision."""
        return self.low is not None and port.type.dtype == "f32"


def once(tensors: Sequence[Tensor_]) -> list[Tensor_]:
    """Each value written once, under its first name."""
    found: dict[Value, Tensor_] = {}
    for tensor in tensors:
        found.setdefault(tensor.value, tensor)
    return list(found.values())
