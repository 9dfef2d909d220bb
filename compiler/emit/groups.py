"""Everything that `kernels.py` says of one group, as plain data for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdsl.compiler.emit.function import FunctionWriter
from tdsl.compiler.emit.group_names import once
from tdsl.compiler.emit.kernels import KernelText, Tensor_, kernel_text
from tdsl.compiler.emit.plan import plan
from tdsl.compiler.emit.reference import reference_lines
from tdsl.compiler.emit.render import layout, plain
from tdsl.compiler.ir import Group, Scalar
from tdsl.compiler.kernel import Layout, Port
from tdsl.dsl.diagnostics import Span


@dataclass(frozen=True)
class GroupText:
    """One group: `comment` lines, the public function, the reference, the kernels and the autograd function."""

    name: str
    class_name: str
    comment: tuple[str, ...]
    parameters: tuple[str, ...]
    arguments: str
    tensors: str
    returns: str
    draws: bool
    reference: tuple[str, ...]
    reference_head: str
    public_head: str
    kernels: tuple[KernelText, ...]
    forward: tuple[str, ...]
    backward: tuple[str, ...]
    backward_grads: str
    twice: bool


def group_text(group: Group) -> GroupText:
    """The text of a group."""
    return _GroupWriter(plan(group)).text()


class _GroupWriter(FunctionWriter):
    def text(self) -> GroupText:
        kernel = self.kernel
        arguments = [*self.sources.values(), *self.scalars.values(), *(["seed"] if self.draws else [])]
        parameters = [f"{n}: Tensor" for n in self.sources.values()] + [f"{n}: float" for n in self.scalars.values()]
        returns = "Tensor" if len(kernel.outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(kernel.outputs))}]"
        forward = self._forward_kernel()
        kernels = [forward]
        backward: tuple[str, ...] = ()
        if kernel.backward is not None:
            kernels += [self._backward_kernel()] if self._computed() else []
            backward = tuple(self.backward_lines())
        return GroupText(
            name=kernel.name,
            class_name="".join(w.capitalize() for w in kernel.name.split("_")),
            comment=tuple(self._comment()),
            parameters=tuple(parameters),
            arguments=", ".join(arguments),
            tensors=self._tensors(),
            returns=returns,
            draws=self.draws,
            reference=tuple(reference_lines(kernel.group.body, self.sources, self._reference_scalars())),
            reference_head=layout(
                f"def {kernel.name}_reference", parameters + (["seed: int"] if self.draws else []), f" -> {returns}:", 0
            ),
            public_head=layout(f"def {kernel.name}", parameters, f" -> {returns}:", 0),
            kernels=tuple(kernels),
            forward=tuple(self.forward_lines()),
            backward=backward,
            backward_grads=", ".join(self.handed),
            twice=kernel.group.twice,
        )

    def _tensors(self) -> str:
        """What decides whether the kernels can run: the tensors, apart those that are float32 beside lower ones."""
        full = [n for v, n in self.sources.items() if self.low is not None and v.type.dtype == "f32"]
        others = [n for n in self.sources.values() if n not in full]
        return ", ".join([*others, f"float32=({', '.join(full)},)"] if full else others)

    def _reference_scalars(self) -> dict[Scalar, str]:
        """The names of numbers, and the low precision as that of an input that has it."""
        if self.low is None:
            return self.scalars
        like = next((n for v, n in self.sources.items() if v.type.dtype == "float"), None)
        return {**self.scalars, self.low: f"{like}.dtype" if like else self.low.text}

    def _comment(self) -> list[str]:
        """Source lines and bytes moved."""
        spans = [n.span for n in self.kernel.group.body.nodes if n.span is not None]
        places = dict.fromkeys(f"{Path(s.source.name).name}:{s.line}" for s in spans)
        lines = [f"# {self.kernel.name}: {plain(', '.join(places))}"] if places else [f"# {self.kernel.name}"]
        lines += [f"#     {text}" for text in dict.fromkeys(_source_line(s) for s in spans)]
        moved = f"{self._moved(self.kernel.inputs, self.kernel.outputs)} an element forward{self._moved_backward()}"
        return [*lines, f"# Moves {moved}."]

    def _moved(self, reads: Sequence[Port], writes: Sequence[Port]) -> str:
        full = [p for p in (*reads, *writes) if p.layout in (Layout.FULL, Layout.PARTIAL)]
        return f"{4 * len(full)} bytes (f32)"

    def _moved_backward(self) -> str:
        if self.kernel.backward is None:
            return ""
        kernel = self.kernel
        full = sum(p.layout in (Layout.FULL, Layout.PARTIAL) for p in (*kernel.saved_inputs, *kernel.grads))
        full += sum(v not in self.rows for v in kernel.saved)
        full += len({g.value for g in self._computed() if g.layout is Layout.FULL})
        return f", {4 * full} backward"

    def _forward_kernel(self) -> KernelText:
        reads = [Tensor_(name, p.value, p.layout) for p, name in self.ports.items()]
        writes = [Tensor_(name, p.value, p.layout) for p, name in self.outputs.items()]
        writes += [Tensor_(name, v, Layout.ROW) for v, name in self.rows.items()]
        plan_ = self.plan.forward
        return kernel_text(self._kernel_name("forward"), self.kernel.forward, plan_, reads, once(writes), self.scalars)

    def _backward_kernel(self) -> KernelText:
        graph, plan_ = self.kernel.backward, self.plan.backward
        assert graph is not None
        assert plan_ is not None
        reads = [Tensor_(name, value, layout) for name, value, layout in self._backward_reads()]
        writes = self._backward_writes()
        return kernel_text(self._kernel_name("backward"), graph, plan_, reads, writes, self.scalars)


def _source_line(span: Span) -> str:
    return plain(span.source.line(span.line).strip())
