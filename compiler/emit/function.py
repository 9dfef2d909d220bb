"""The `autograd.Function` of a group: the statements of its `forward` and its `backward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tdsl.compiler.emit.group_names import GroupNames, once
from tdsl.compiler.emit.kernels import Tensor_, draws
from tdsl.compiler.emit.render import WIDTH, layout
from tdsl.compiler.ir import Graph, Scalar, TensorType, Value
from tdsl.compiler.kernel import Layout, Port
from tdsl.compiler.passes.schedule import Form, Schedule

# Columns before the statements of a method.
METHOD = 8


class FunctionWriter(GroupNames):
    """Writes the two methods of one group."""

    def _shape_of(self) -> str:
        """The text of the full shape, from an input that has it."""
        for port, name in self.ports.items():
            if self._is_whole(port):
                return f"{name}.shape"
        return f"torch.broadcast_shapes({', '.join(f'{n}.shape' for n in self.sources.values())})"

    def _like(self) -> str:
        return self.ports[self._like_port()]

    def _like_port(self) -> Port:
        floats = sorted((p for p in self.ports if p.type.is_float), key=lambda p: p.type.dtype != "float")
        return next((p for p in floats if p.layout is Layout.FULL), floats[0])

    def _dtype_beside(self, type: TensorType, like: TensorType) -> str:
        """`, dtype=...` where a new tensor of this type does not have the dtype of what it is made like."""
        if not type.is_float:
            return f", dtype={_TORCH_DTYPES[type.dtype]}"
        if self.low is None or type.dtype == like.dtype:
            return ""
        return f", dtype={self.low.text if type.dtype == 'float' else 'torch.float32'}"

    def _empty(self, port: Port) -> str:
        like = self._like()
        dtype = self._dtype_beside(port.type, self._like_port().type)
        if port.layout is Layout.FULL:
            if self._shape_of() == f"{like}.shape":
                return f"torch.empty_like({like}{dtype})"
            return f"{like}.new_empty(shape{dtype})"
        return f"{like}.new_empty({self._row_shape(port)}{dtype})"

    def _row_shape(self, port: Port) -> str:
        """The shape of a number a row, which keeps its columns as ones or has dropped them."""
        kept = len(port.type.shape) == len(self.kernel.space.shape)
        ones = "".join(", 1" for _ in range(self.cols))
        return f"(*shape[:-{self.cols}]{ones})" if kept else f"shape[:-{self.cols}]"

    def _sizes(self, plan_: Schedule) -> list[str]:
        if plan_.form is Form.FLAT:
            return []
        cols = "shape[-1]" if self.cols == 1 else f"math.prod(shape[-{self.cols}:])"
        return [f"n_cols = {cols}", "n_rows = shape.numel() // max(n_cols, 1)"]

    def _contiguous(self, names: Sequence[str]) -> list[str]:
        calls = [f"{n}.contiguous()" for n in names]
        together = f"{', '.join(names)} = {', '.join(calls)}"
        return [together] if METHOD + len(together) <= WIDTH else [f"{n} = {c}" for n, c in zip(names, calls)]

    def _launch(self, direction: str, plan_: Schedule, tensors: Sequence[str], graph: Graph) -> list[str]:
        used = {o for n in graph.nodes for o in n.inputs if isinstance(o, Scalar) and o.text}
        scalars = [name for s, name in self.scalars.items() if s in used]
        seed = ["seed"] if draws(graph) else []
        kernel = self._kernel_name(direction)
        if plan_.form is Form.FLAT:
            call = [*tensors, "n", *scalars, *seed, "BLOCK=tile.cols", "num_warps=tile.warps"]
            head = f"{kernel}[(triton.cdiv(n, tile.cols),)]"
            return ["n = shape.numel()", "if n:", "    tile = launch.flat_tile()", *_wrapped(head, call)]
        sizes = ["N_COLS=n_cols", "BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols", "num_warps=tile.warps"]
        call = [*tensors, "n_rows", *scalars, *seed, *sizes]
        grid = self._grid(plan_)
        if 12 + len(f"{kernel}[{grid}](") > WIDTH:
            return ["if shape.numel():", f"    grid = {grid}", *_wrapped(f"{kernel}[grid]", call)]
        return ["if shape.numel():", *_wrapped(f"{kernel}[{grid}]", call)]

    def _grid(self, plan_: Schedule) -> str:
        rows = "programs" if plan_.accumulate else "triton.cdiv(n_rows, tile.rows)"
        return f"({rows}, triton.cdiv(n_cols, tile.cols))" if plan_.form is Form.TILES else f"({rows},)"

    def _tile(self, plan_: Schedule) -> list[str]:
        if plan_.form is Form.FLAT:
            return []
        if plan_.form is Form.TILES:
            return ["tile = launch.column_tile(n_cols)"]
        longest = ", longest=launch.CHUNK" if plan_.form is Form.LOOPED else ""
        return [f"tile = launch.row_tile(n_cols, live={plan_.live}{longest})"]

    def forward_lines(self) -> list[str]:
        plan_ = self.plan.forward
        lines = [f"inputs = {_tuple(list(self.sources.values()))}"] if self._goes_through_reference() else []
        lines += [f"shape = {self._shape_of()}", *self._shapes()]
        lines += [f"{self.ports[p]} = {self.ports[p]}.expand(shape)" for p in self.ports if p.layout is Layout.PARTIAL]
        lines += self._contiguous(list(self.ports.values()))
        lines += self._sizes(plan_)
        written = {p.value: p for p in reversed(self.outputs)}.values()
        lines += [f"{name} = {self._empty(p)}" for p, name in self.outputs.items() if p in written]
        for value, name in self.rows.items():
            dtype = "torch.float32" if value.type.is_float else _TORCH_DTYPES[value.type.dtype]
            lines.append(f"{name} = {self._like()}.new_empty(n_rows, dtype={dtype})")
        lines += self._tile(plan_)
        writes = once([Tensor_(n, p.value, p.layout) for p, n in self.outputs.items()])
        tensors = [*self.ports.values(), *(w.name for w in writes), *self.rows.values()]
        lines += self._launch("forward", plan_, tensors, self.kernel.forward)
        constant = [name for port, name in self.outputs.items() if port.type.is_float]
        if self.kernel.backward is not None:
            lines += self._save()
        elif constant:
            lines.append(f"ctx.mark_non_differentiable({', '.join(constant)})")
        return [*lines, *_returning(self._result_names())]

    def _result_names(self) -> list[str]:
        """Outputs by name; one value may be several, with and without the dimensions that were reduced."""
        first: dict[Value, tuple[Port, str]] = {}
        found = []
        for port, name in self.outputs.items():
            before, written = first.setdefault(port.value, (port, name))
            same = len(before.type.shape) == len(port.type.shape)
            found.append(written if same else f"{written}.view({self._row_shape(port)})")
        return found

    def _saved_names(self) -> list[str]:
        inputs = [self.ports[p] for p in self.kernel.saved_inputs]
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
        sources = dict.fromkeys(g.port.source for g in kernel.gradients if not self._is_whole(g.port))
        return [f"ctx.{self.sources[v]}_shape = {self.sources[v]}.shape" for v in sources]

    def _is_whole(self, port: Port) -> bool:
        return port.layout is Layout.FULL and len(port.type.shape) == len(self.kernel.space.shape)

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
        used = [n for p, n in self.grads.items() if self._used(p.value)]
        lines += self._contiguous(used)
        lines += self._sizes(plan_) + self._tile(plan_)
        if plan_.accumulate:
            lines.append("programs = launch.programs(n_rows, tile.rows)")
        lines += self._gradient_buffers(plan_, used[0])
        reads = [name for name, _, _ in self._backward_reads()]
        writes = [w.name for w in self._backward_writes()]
        lines += self._launch("backward", plan_, [*reads, *writes], graph)
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
            *_wrapped("return launch.reference_backward", arguments),
        ]

    def _gradient_buffers(self, plan_: Schedule, like: str) -> list[str]:
        lines: list[str] = []
        done: set[Value] = set()
        like_type = next(p.type for p, n in self._gradients_of().items() if n == like)
        for g in self._computed():
            name = f"d_{self.ports[g.port]}"
            if g.value in done:
                continue
            done.add(g.value)
            if g.layout is Layout.FULL:
                lines.append(f"{name} = {like}.new_empty(shape{self._dtype_beside(g.port.type, like_type)})")
            elif g.layout is Layout.ROW:
                lines.append(f"{name} = {like}.new_empty(n_rows{self._dtype_beside(g.port.type, like_type)})")
            else:
                width = "n_cols" if g.layout is Layout.COL else "1"
                lines.append(f"{name} = {like}.new_zeros(programs, {width}, dtype=torch.float32)")
        return lines

    def _returned(self) -> list[str]:
        """A gradient for each argument of `forward`; a tensor used at two layouts gets the sum."""
        first = self._handed_on()
        by_source: dict[Value, list[str]] = {}
        for g in self.kernel.gradients:
            name = first.setdefault(g.value, f"d_{self.ports[g.port]}")
            by_source.setdefault(g.port.source, []).append(self._finished(g.port, g.layout, name))
        found = [" + ".join(by_source[v]) if v in by_source else "None" for v in self.sources]
        return [*found, *("None" for _ in self.scalars), *(["None"] if self.draws else [])]

    def _finished(self, port: Port, layout: Layout, name: str) -> str:
        shape = f"ctx.{self.sources[port.source]}_shape"
        if layout in (Layout.COL, Layout.SCALAR):
            return f"{name}.sum(0).view({shape}){self._rounded(port)}"
        if port.layout is Layout.PARTIAL:
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


_TORCH_DTYPES: Mapping[str, str] = {
    "bool": "torch.bool",
    "i64": "torch.int64",
    "i32": "torch.int32",
    "i16": "torch.int16",
    "i8": "torch.int8",
    "u8": "torch.uint8",
}


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


def _wrapped(head: str, arguments: Sequence[str]) -> list[str]:
    """A launch, within the `if` of an autograd function's method."""
    first, *rest = layout(head, arguments, "", 12).split("\n")
    return [f"    {first}", *(f"    {line[12:]}" for line in rest)]
