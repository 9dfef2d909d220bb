"""The `autograd.Function` of a group: the statements of its `forward` and its `backward`."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl.compiler.emit.buffers import METHOD, TORCH_DTYPES, BufferWriter, is_sum, wrapped
from tdsl.compiler.emit.group_names import once
from tdsl.compiler.emit.kernel_writer import Tensor_, draws
from tdsl.compiler.emit.render import WIDTH
from tdsl.compiler.emit.text import Text, op_text
from tdsl.compiler.ir import Scalar, Value
from tdsl.compiler.kernel import Gradient, Layout, Port
from tdsl.compiler.passes.schedule import Schedule
from tdsl.compiler.passes.windows import view_of


class FunctionWriter(BufferWriter):
    """Writes the two methods of one group."""

    def forward_lines(self) -> list[str]:
        plan_ = self.plan.forward
        lines = [f"inputs = {_tuple(list(self.sources.values()))}"] if self._goes_through_reference() else []
        lines += self._contiguous(self._cut()) if self._cut() else []
        lines += self._pieces(list(self.host), "")
        lines += [f"shape = {self._shape_of()}", *self._shapes()]
        lines += self._laid_out(self._whole_tensors(), plan_)
        lines += self._sizes(plan_) + self._tile(plan_)
        written = {p.value: p for p in reversed(self.outputs)}.values()
        lines += [f"{self._buffer(p)} = {self._empty(p)}" for p in self.outputs if p in written]
        for value, name in self.rows.items():
            dtype = "torch.float32" if value.type.is_float else TORCH_DTYPES[value.type.dtype]
            lines.append(f"{name} = {self._like()}.new_empty(n_rows, dtype={dtype})")
        writes = once([Tensor_(self._buffer(p), p.value, p.layout) for p in self.outputs])
        writes += [Tensor_(name, v, Layout.ROW) for v, name in self.rows.items()]
        reads = [self._read(p) for p in self.ports]
        lines += self._launch("forward", plan_, reads, writes, self.kernel.forward)
        lines += [f"{self.outputs[p]} = {self._summed(p)}" for p in self.outputs if p in written and is_sum(p)]
        constant = [name for port, name in self.outputs.items() if port.type.is_float]
        if self.kernel.backward is not None:
            lines += self._save()
        elif constant:
            lines.append(f"ctx.mark_non_differentiable({', '.join(constant)})")
        return [*lines, *_returning(self._result_names())]

    def _whole_tensors(self) -> list[str]:
        """The tensors that a kernel takes whole; a single number is where it is."""
        return [name for p, name in self.host.items() if p.window is None and p.layout is not Layout.SCALAR]

    def _cut(self) -> list[str]:
        """The tensors that the group cuts."""
        return list(dict.fromkeys(self.sources[p.argument] for p in self.host if p.window is not None))

    def _pieces(self, ports: Sequence[Port], prefix: str) -> list[str]:
        """The statements that cut tensors as the source does; with the prefix `d_`, their gradients likewise."""
        views = dict.fromkeys(p.window.view for p in ports if p.window is not None)
        lines: list[str] = []
        for view in views:
            names = {p.window.index: f"{prefix}{self.host[p]}" for p in ports if p.window and p.window.view is view}
            source = next(p.argument for p in ports if p.window and p.window.view is view)
            name = self.sources[source]
            targets = ", ".join(names.get(i, "_") for i in range(len(view.outputs)))
            lines.append(f"{targets} = {op_text(view, [Text(f'{prefix}{name}')], view.attrs).text}")
        return lines

    def _result_names(self) -> list[str]:
        """Outputs by name; one value may be several, with and without the dimensions that were reduced."""
        first: dict[Value, tuple[Port, str]] = {}
        found = []
        for port, name in self.outputs.items():
            before, written = first.setdefault(port.value, (port, name))
            same = len(before.type.shape) == len(port.type.shape)
            shape = self._vector_shape(port.type.shape, port.layout) if is_sum(port) else self._row_shape(port)
            found.append(written if same else f"{written}.view({shape})")
        return found

    def _saved_names(self) -> list[str]:
        inputs = dict.fromkeys(self.sources[p.argument] for p in self.kernel.saved_inputs)
        return [*inputs, *(self.outputs[p] for p in self._saved_outputs()), *self.rows.values()]

    def _save(self) -> list[str]:
        names = ["*inputs"] * self._goes_through_reference() + self._saved_names()
        lines = [f"ctx.save_for_backward({', '.join(names)})"] if names else []
        discrete = [name for p, name in self.outputs.items() if not p.type.is_float]
        lines += [f"ctx.mark_non_differentiable({', '.join(discrete)})"] if discrete else []
        kept = self._numbers() if self._goes_through_reference() else []
        kept = kept or [*self._backward_scalars(), *(["seed"] if self._backward_draws() else [])]
        return lines + [f"ctx.{name} = {name}" for name in ("shape", *kept)]

    def _shapes(self) -> list[str]:
        """The shapes that gradients are brought to, kept before the inputs are laid out anew."""
        kernel = self.kernel
        if kernel.backward is None:
            return []
        sources = dict.fromkeys(
            [
                *(g.port.argument for g in kernel.gradients if g.port.window or not self._is_whole(g.port)),
                *(p.argument for p in kernel.zeros),
            ]
        )
        return [f"ctx.{self.sources[v]}_shape = {self.sources[v]}.shape" for v in sources]

    def _backward_scalars(self) -> list[str]:
        graph = self.kernel.backward
        assert graph is not None
        used = {o for n in graph.nodes for o in n.inputs if isinstance(o, Scalar) and o.text}
        return [name for s, name in self.scalars.items() if s in used]

    def _backward_draws(self) -> bool:
        return self.kernel.backward is not None and draws(self.kernel.backward)

    def backward_lines(self) -> list[str]:
        graph, plan_ = self.kernel.backward, self.plan.backward
        assert graph is not None
        assert plan_ is not None
        if not self._computed():
            return _returning(self._returned())
        saved = ["*inputs"] * self._goes_through_reference() + self._saved_names()
        lines = [f"{_targets(saved)} = ctx.saved_tensors"] if saved else []
        lines += self._through_reference() if self._goes_through_reference() else []
        lines += [f"{n} = ctx.{n}" for n in self._backward_scalars()]
        lines += ["seed = ctx.seed"] if self._backward_draws() else []
        lines.append("shape = ctx.shape")
        used = {p: n for p, n in self.grads.items() if self._used(p.value)}
        whole = [n for p, n in used.items() if p.layout is not Layout.SCALAR]
        saved_whole = [self.host[p] for p in self.kernel.saved_inputs if self._is_whole(p)]
        saved_whole += [self.outputs[p] for p in self._saved_outputs() if p.layout is Layout.FULL]
        lines += self._laid_out(whole, plan_, saved_whole)
        lines += self._pieces(self.kernel.saved_inputs, "")
        lines += self._sizes(plan_) + self._tile(plan_)
        lines += self._gradient_buffers(plan_, next(iter(used.values())))
        lines += self._launch("backward", plan_, self._backward_reads(), self._backward_writes(), graph)
        return [*lines, *_returning(self._returned())]

    def _goes_through_reference(self) -> bool:
        """Whether the backward, where it is differentiated in turn, is computed by the reference's own."""
        return self.kernel.group.twice and self.kernel.backward is not None and bool(self._computed())

    def _numbers(self) -> list[str]:
        return [*self.scalars.values(), *(["seed"] if self.draws else [])]

    def _through_reference(self) -> list[str]:
        numbers = [f"ctx.{n}" for n in self._numbers()]
        arguments = [f"{self.kernel.name}_reference", "inputs", _tuple(numbers), _tuple(self.handed)]
        return [
            "if torch.is_grad_enabled():  # the gradient is to be differentiated in turn",
            *wrapped("return launch.reference_backward", arguments),
        ]

    def _gradient_buffers(self, plan_: Schedule, like: str) -> list[str]:
        lines = self._cut_buffers(like)
        done: set[Value] = set()
        for g in self._computed():
            if g.value in done or g.port.window is not None:
                continue
            done.add(g.value)
            lines.append(f"d_{self.ports[g.port]} = {self._gradient_buffer(g, like)}")
        return lines

    def _gradient_buffer(self, g: Gradient, like: str) -> str:
        like_type = next(p.type for p, n in self._gradients_of().items() if n == like)
        dtype = self._dtype_beside(g.port.type, like_type)
        if g.layout is Layout.FULL:
            return self._gradient_alike(g.port) or f"{like}.new_empty(shape{dtype})"
        if g.layout is Layout.ROW:  # rows' shares of a sum are kept in float32
            return f"{like}.new_empty(n_rows{', dtype=torch.float32' if g.port.runs else dtype})"
        assert self.plan.backward is not None
        return self._sums(like, g.layout, self.plan.backward)

    def _gradient_alike(self, port: Port) -> str:
        """A tensor like one of the whole space, as the kernel takes it; empty where any contiguous one will do."""
        saved = {self.host[p]: p.type for p in self.kernel.saved_inputs if self._is_whole(p) and p.window is None}
        grads = {
            n: p.type for p, n in self._gradients_of().items() if p.layout is Layout.FULL and n in self._read_grads()
        }
        types = {**saved, **grads}
        same = next((name for name, type in types.items() if type.dtype == port.type.dtype), "")
        if same:
            return f"torch.empty_like({same})"
        # What a kernel takes in whatever order it lies in memory, its gradients must lie in, too.
        assert self.plan.backward is not None
        if not types or not self._is_dense(self.plan.backward):
            return ""
        name, type = next(iter(types.items()))
        return f"torch.empty_like({name}{self._dtype_beside(port.type, type)})"

    def _read_grads(self) -> list[str]:
        return [n for p, n in self.grads.items() if self._used(p.value)]

    def _cut_buffers(self, like: str) -> list[str]:
        """The gradients of tensors that the group cuts: zero where no piece has one."""
        ports = [g.port for g in self.kernel.gradients if g.port.window is not None]
        lines: list[str] = []
        for value in dict.fromkeys(p.argument for p in ports):
            own = [p for p in ports if p.argument is value]
            made = "new_empty" if self._covers(own) else "new_zeros"
            like_type = next(p.type for p, n in self._gradients_of().items() if n == like)
            dtype = self._dtype_beside(own[0].type, like_type)
            lines.append(f"d_{self.sources[value]} = {like}.{made}(ctx.{self.sources[value]}_shape{dtype})")
        return lines + self._pieces(ports, "d_")

    def _covers(self, ports: Sequence[Port]) -> bool:
        """Whether these views are of all of their tensor."""
        window = ports[0].window
        assert window is not None
        view = view_of(window.view)
        assert view is not None
        return (view.pays or not view.fixed) and len(ports) == len(window.view.outputs)

    def _returned(self) -> list[str]:
        """A gradient for each argument of `forward`; a tensor used at two layouts gets the sum."""
        first = self._handed_on()
        by_source: dict[Value, list[str]] = {}
        for g in self.kernel.gradients:
            if g.port.window is not None:
                by_source[g.port.argument] = [f"d_{self.sources[g.port.argument]}"]
                continue
            name = first.setdefault(g.value, f"d_{self.ports[g.port]}")
            by_source.setdefault(g.port.argument, []).append(self._finished(g.port, g.layout, name))
        by_source |= {p.argument: [self._zeros(p)] for p in self.kernel.zeros}
        found = [" + ".join(by_source[v]) if v in by_source else "None" for v in self.sources]
        return [*found, *("None" for _ in self.scalars), *(["None"] if self.draws else [])]

    def _zeros(self, port: Port) -> str:
        result, name = next(iter(self._gradients_of().items()))
        dtype = self._dtype_beside(port.type, result.type)
        return f"{name}.new_zeros(ctx.{self.sources[port.argument]}_shape{dtype})"

    def _finished(self, port: Port, layout: Layout, name: str) -> str:
        shape = f"ctx.{self.sources[port.argument]}_shape"
        if layout in (Layout.COL, Layout.SCALAR):
            summed = f"{name}.sum(0)"
            if port.runs:
                summed += f".view({self._vector_shape(port.type.shape, layout)}).sum_to_size({shape})"
            return f"{summed if port.runs else f'{summed}.view({shape})'}{self._rounded(port)}"
        if port.runs:
            if layout is Layout.ROW:
                rows = f"shape[:-{self.cols}]" if port.dropped else f"(*shape[:-{self.cols}]{', 1' * self.cols})"
                return f"{name}.view({rows}).sum_to_size({shape}){self._rounded(port)}"
            return f"{name}.sum_to_size({shape})"
        if layout is Layout.FULL:  # which may be a result's own gradient, in any memory layout
            widened = ".float()" if self._is_full(port) and name in self.grads.values() else ""
            return (name if self._is_whole(port) else f"{name}.reshape({shape})") + widened
        return f"{name}.view({shape})"

    def _rounded(self, port: Port) -> str:
        """Sums are in float32; the gradient has the dtype of what it belongs to."""
        if self._is_full(port):
            return ""
        used = [(o, self.grads[p]) for o, p in zip(self._float_outputs(), self.grads) if self._used(p.value)]
        output, name = used[0]
        return f".to({self.low.text})" if self.low and output.type.dtype == "f32" else f".to({name}.dtype)"


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def _targets(names: Sequence[str]) -> str:
    """What a tuple is taken apart into; all of it is one name."""
    if len(names) == 1:
        return names[0][1:] if names[0].startswith("*") else f"({names[0]},)"
    return ", ".join(names)


def _returning(results: Sequence[str]) -> list[str]:
    """A `return` of a method, a result a line where it would be too long."""
    together = f"return {', '.join(results)}"
    return [together] if METHOD + len(together) <= WIDTH else ["return (", *(f"    {r}," for r in results), ")"]
