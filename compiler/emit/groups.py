"""The text of one group: its frame, and the kernels within, generated or of a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdsl.compiler.emit.frame import GroupText, Named, class_name, frame
from tdsl.compiler.emit.function import FunctionWriter
from tdsl.compiler.emit.group_names import once, scalar_names
from tdsl.compiler.emit.kernel_writer import Tensor_
from tdsl.compiler.emit.kernels import KernelText, kernel_text
from tdsl.compiler.emit.plan import plan
from tdsl.compiler.emit.render import render
from tdsl.compiler.emit.triton import Names, noun
from tdsl.compiler.ir import Group, Scalar, Value
from tdsl.compiler.kernel import Layout, Port
from tdsl.compiler.precision import low_precision
from tdsl.compiler.structured.template import Naming, template_of


def group_text(group: Group) -> GroupText:
    """The text of a group."""
    return _GroupWriter(plan(group)).text() if group.structure is None else _structured(group)


# By a template -------------------------------------------------------------------------------------------------------


def _structured(group: Group) -> GroupText:
    assert group.structure is not None
    template = template_of(group)
    naming = _naming(group)
    text = render(
        f"triton/{template.name}.py.jinja",
        name=group.name,
        class_name=naming.class_name,
        twice=group.twice,
        **template.variables(group, naming),
    )
    named = Named(naming.inputs, naming.scalars, template.draws(group.structure), naming.layer)
    found = frame(group, named, text.rstrip("\n"), template.moved(group), template.everywhere)
    return replace(
        found,
        prepared=tuple(template.prepared(group, naming)),
        condition=template.condition(group, naming) if template.condition is not None else found.condition,
        applied=template.applied(group, naming) if template.applied is not None else found.applied,
        shared=render(f"triton/{template.shared}.py.jinja").rstrip("\n") if template.shared else "",
    )


def _naming(group: Group) -> Naming:
    """The names of the source, of the tensors that have none those of their roles."""
    assert group.structure is not None
    names = Names()
    names.taken.update(template_of(group).names)
    roles = {value: role for role, value in group.structure.roles.items()}
    template = template_of(group)
    told = {} if template.by_role else {v: v.name for v in (*group.body.inputs, *group.body.outputs)}
    wishes = dict(zip(group.body.inputs, group.names))
    inputs = {v: names.new(told.get(v) or roles.get(v) or wishes.get(v) or "x") for v in group.body.inputs}
    layer = names.new(template.layer) if group.structure.layer else ""
    options = {number: name for name, number in group.structure.options.items() if isinstance(number, Scalar)}
    scalars = scalar_names(group.scalars, names, options)
    outputs = {v: names.new(told.get(v) or "y") for v in group.body.outputs}
    low = low_precision(group)
    return Naming(
        group.name,
        class_name(group.name),
        inputs,
        outputs,
        scalars,
        {role: inputs[value] for role, value in group.structure.roles.items()},
        low.text if low is not None else "",
        layer,
    )


# Generated -----------------------------------------------------------------------------------------------------------


class _GroupWriter(FunctionWriter):
    def text(self) -> GroupText:
        kernel = self.kernel
        kernels = [self._forward_kernel()]
        backward: tuple[str, ...] = ()
        if kernel.backward is not None:
            kernels += [self._backward_kernel()] if self._computed() else []
            backward = tuple(self.backward_lines())
        named = Named(self.sources, self.scalars, self.draws)
        text = render(
            "triton/group.py.jinja",
            name=kernel.name,
            class_name=class_name(kernel.name),
            kernels=kernels,
            arguments=named.arguments,
            forward=self.forward_lines(),
            backward=backward,
            backward_grads=", ".join(self.handed),
            twice=kernel.group.twice,
        )
        moved = f"{self._moved(self.kernel.inputs, self.kernel.outputs)} an element forward{self._moved_backward()}"
        return frame(kernel.group, named, text.rstrip("\n"), f"Moves {moved}.")

    def _moved(self, reads: Sequence[Port], writes: Sequence[Port]) -> str:
        full = [p for p in (*reads, *writes) if p.layout is Layout.FULL]
        return f"{4 * len(full)} bytes (f32)"

    def _moved_backward(self) -> str:
        if self.kernel.backward is None:
            return ""
        kernel = self.kernel
        full = sum(p.layout is Layout.FULL for p in (*kernel.saved_inputs, *kernel.grads))
        full += sum(v not in self.rows for v in kernel.saved)
        full += len({g.value for g in self._computed() if g.layout is Layout.FULL})
        return f", {4 * full} backward"

    def _forward_kernel(self) -> KernelText:
        reads = [self._read(p) for p in self.ports]
        writes = [Tensor_(name, p.value, p.layout) for p, name in self.outputs.items()]
        writes += [Tensor_(name, v, Layout.ROW) for v, name in self.rows.items()]
        plan_ = self.plan.forward
        graph, saved = self.kernel.forward, self.kernel.saved
        return kernel_text(self._kernel_name("forward"), graph, plan_, reads, once(writes), self.scalars, saved=saved)

    def _backward_kernel(self) -> KernelText:
        graph, plan_ = self.kernel.backward, self.plan.backward
        assert graph is not None
        assert plan_ is not None
        reads, writes = self._backward_reads(), self._backward_writes()
        return kernel_text(
            self._kernel_name("backward"), graph, plan_, reads, writes, self.scalars, self._gradient_names()
        )

    def _gradient_names(self) -> dict[Value, str]:
        """Gradients of what the forward makes, called after that."""
        makers = self.kernel.forward.producers()
        told = {g: f.name or noun(makers.get(f)) for g, f in self.kernel.gradient_of.items()}
        return {g: f"d_{name}" for g, name in told.items() if name}
