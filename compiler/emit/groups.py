"""Everything that `kernels.py` says of one group, as plain data for the template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tdsl.compiler.emit.kernels import KernelText, Tensor_, draws, kernel_text
from tdsl.compiler.emit.reference import reference_lines
from tdsl.compiler.emit.render import WIDTH, layout, plain
from tdsl.compiler.emit.triton import NOUNS, Names
from tdsl.compiler.ir import Graph, Group, Operand, Scalar, Value
from tdsl.compiler.kernel import Gradient, Kernel, Layout, Port
from tdsl.compiler.ops.infer import knowing
from tdsl.compiler.passes.differentiate import differentiate
from tdsl.compiler.passes.lower import lower
from tdsl.compiler.passes.schedule import Form, Schedule, schedule
from tdsl.dsl.diagnostics import Span

# Columns before the statements of a method.
METHOD = 8


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


@dataclass(frozen=True, eq=False)
class Plan:
    """A group with its kernel and the schedules of its two directions."""

    kernel: Kernel
    forward: Schedule
    backward: Schedule | None


def plan(group: Group) -> Plan:
    """Lower, differentiate and schedule a group."""
    found = _plan(group.body, group.scalars)
    return replace(found, kernel=replace(found.kernel, group=group))


@cache
def _plan(body: Graph, scalars: tuple[Scalar, ...]) -> Plan:
    """Once for each body, whatever name its group comes to have."""
    with knowing(body.known):
        kernel = differentiate(lower(Group(body.name, body, scalars)))
        backward = schedule(kernel, kernel.backward) if kernel.backward is not None else None
        return Plan(kernel, schedule(kernel, kernel.forward), backward)


def same_kernel(group: Group) -> object:
    """What tells whether one kernel can serve two groups: operations, layouts, forms; neither names nor sizes."""
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
    ports = tuple((p.layout, p.type.dtype, _rank_matters(p, rank)) for p in (*kernel.inputs, *kernel.outputs))
    outputs = tuple(map(number, kernel.forward.outputs))
    sources = tuple(group.body.inputs.index(p.source) for p in kernel.inputs)
    return (nodes, ports, sources, outputs, len(kernel.space.trail), planned.forward, planned.backward)


def _rank_matters(port: Port, rank: int) -> bool | None:
    """Whether the tensor has all dimensions of the space, where the code depends on that."""
    return len(port.type.shape) == rank if port.layout in (Layout.FULL, Layout.ROW) else None


def group_text(group: Group) -> GroupText:
    """The text of a group."""
    return _GroupWriter(plan(group)).text()


def scalar_names(scalars: Sequence[Scalar], names: Names) -> dict[Scalar, str]:
    """A parameter's name for each number: the last name of its text, `p` for a rate that training decides."""
    found: dict[Scalar, str] = {}
    for scalar in scalars:
        words = [w for w in re.findall(r"[A-Za-z_]\w*", scalar.text) if w not in ("if", "else", "self", "not", "and")]
        wish = "p" if " if " in scalar.text else words[-1] if words else "value"
        found[scalar] = names.new(wish)
    return found


class _GroupWriter:
    def __init__(self, planned: Plan) -> None:
        self.plan = planned
        self.kernel = kernel = planned.kernel
        self.names = Names()
        self.ports = {p: self.names.new(p.name or "x") for p in kernel.inputs}
        self.sources: dict[Value, str] = {}
        for port, name in self.ports.items():
            self.sources.setdefault(port.source, name)
        self.scalars = scalar_names(kernel.scalars, self.names)
        self.outputs = {p: self.names.new(p.name or "y") for p in kernel.outputs}
        self.grads = {p: self.names.new(f"d_{self.outputs[o]}") for p, o in zip(kernel.grads, self._float_outputs())}
        self.rows = {v: self.names.new(v.name or self._row_name(v)) for v in kernel.saved_rows}
        self.cols = len(kernel.space.trail)
        self.draws = kernel.draws > 0

    def _float_outputs(self) -> list[Port]:
        return [p for p in self.kernel.outputs if p.type.is_float]

    def _backward_parameters(self) -> list[str]:
        """A gradient for each output, in order; what autograd hands in for truth values and integers is ignored."""
        grads = iter(self.grads.values())
        return [next(grads) if p.type.is_float else self.names.new(f"d_{n}") for p, n in self.outputs.items()]

    def _row_name(self, value: Value) -> str:
        op = self.kernel.forward.producers()[value].op.name
        return NOUNS.get(op, op)

    # Text ------------------------------------------------------------------------------------------------------------

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
            backward = tuple(self._backward_lines())
        return GroupText(
            name=kernel.name,
            class_name="".join(w.capitalize() for w in kernel.name.split("_")),
            comment=tuple(self._comment()),
            parameters=tuple(parameters),
            arguments=", ".join(arguments),
            tensors=", ".join(self.sources.values()),
            returns=returns,
            draws=self.draws,
            reference=tuple(reference_lines(kernel.group.body, self.sources, self.scalars)),
            reference_head=layout(
                f"def {kernel.name}_reference", parameters + (["seed: int"] if self.draws else []), f" -> {returns}:", 0
            ),
            public_head=layout(f"def {kernel.name}", parameters, f" -> {returns}:", 0),
            kernels=tuple(kernels),
            forward=tuple(self._forward_lines()),
            backward=backward,
            backward_grads=", ".join(self._backward_parameters()),
        )

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

    # The kernels -----------------------------------------------------------------------------------------------------

    def _kernel_name(self, direction: str) -> str:
        return f"_{self.kernel.name}_{direction}"

    def _forward_kernel(self) -> KernelText:
        reads = [Tensor_(name, p.value, p.layout) for p, name in self.ports.items()]
        writes = [Tensor_(name, p.value, p.layout) for p, name in self.outputs.items()]
        writes += [Tensor_(name, v, Layout.ROW) for v, name in self.rows.items()]
        plan_ = self.plan.forward
        return kernel_text(self._kernel_name("forward"), self.kernel.forward, plan_, reads, _once(writes), self.scalars)

    def _backward_kernel(self) -> KernelText:
        graph, plan_ = self.kernel.backward, self.plan.backward
        assert graph is not None
        assert plan_ is not None
        reads = [Tensor_(name, value, layout) for name, value, layout in self._backward_reads()]
        writes = self._backward_writes()
        return kernel_text(self._kernel_name("backward"), graph, plan_, reads, writes, self.scalars)

    def _backward_writes(self) -> list[Tensor_]:
        return _once([Tensor_(f"d_{self.ports[g.port]}", g.value, g.layout) for g in self._computed()])

    def _computed(self) -> list[Gradient]:
        """The gradients that the kernel writes. One that is a result's own gradient is handed on as it is."""
        return [g for g in self.kernel.gradients if g.value not in self._handed_on()]

    def _handed_on(self) -> dict[Value, str]:
        return {p.value: name for p, name in self.grads.items() if p.layout is Layout.FULL}

    def _backward_reads(self) -> list[tuple[str, Value, Layout]]:
        found = [(self.ports[p], p.value, p.layout) for p in self.kernel.saved_inputs]
        found += [(self.outputs[p], p.value, p.layout) for p in self._saved_outputs()]
        found += [(name, v, Layout.ROW) for v, name in self.rows.items()]
        return found + [(name, p.value, p.layout) for p, name in self.grads.items() if self._used(p.value)]

    def _used(self, value: Value) -> bool:
        """Whether the backward kernel reads a gradient."""
        graph = self.kernel.backward
        assert graph is not None
        return any(value in n.values for n in graph.nodes)

    def _saved_outputs(self) -> list[Port]:
        return [p for p in self.kernel.outputs if p.value in self.kernel.saved]

    # The autograd function -------------------------------------------------------------------------------------------

    def _shape_of(self) -> str:
        """The text of the full shape, from an input that has it."""
        for port, name in self.ports.items():
            if self._is_whole(port):
                return f"{name}.shape"
        return f"torch.broadcast_shapes({', '.join(f'{n}.shape' for n in self.sources.values())})"

    def _like(self) -> str:
        full = [n for p, n in self.ports.items() if p.layout is Layout.FULL and p.type.is_float]
        return full[0] if full else next(n for p, n in self.ports.items() if p.type.is_float)

    def _empty(self, port: Port) -> str:
        like = self._like()
        dtype = "" if port.type.is_float else f", dtype={_TORCH_DTYPES[port.type.dtype]}"
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

    def _forward_lines(self) -> list[str]:
        plan_ = self.plan.forward
        lines = [f"shape = {self._shape_of()}", *self._shapes()]
        lines += [f"{self.ports[p]} = {self.ports[p]}.expand(shape)" for p in self.ports if p.layout is Layout.PARTIAL]
        lines += self._contiguous(list(self.ports.values()))
        lines += self._sizes(plan_)
        written = {p.value: p for p in reversed(self.outputs)}.values()
        lines += [f"{name} = {self._empty(p)}" for p, name in self.outputs.items() if p in written]
        for value, name in self.rows.items():
            dtype = "torch.float32" if value.type.is_float else _TORCH_DTYPES[value.type.dtype]
            lines.append(f"{name} = {self._like()}.new_empty(n_rows, dtype={dtype})")
        lines += self._tile(plan_)
        writes = _once([Tensor_(n, p.value, p.layout) for p, n in self.outputs.items()])
        tensors = [*self.ports.values(), *(w.name for w in writes), *self.rows.values()]
        lines += self._launch("forward", plan_, tensors, self.kernel.forward)
        if self.kernel.backward is not None:
            lines += self._save()
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
        lines = [f"ctx.save_for_backward({', '.join(self._saved_names())})"] if self._saved_names() else []
        discrete = [name for p, name in self.outputs.items() if not p.type.is_float]
        lines += [f"ctx.mark_non_differentiable({', '.join(discrete)})"] if discrete else []
        kept = [*self._backward_scalars(), *(["seed"] if self._backward_draws() else [])]
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

    def _backward_lines(self) -> list[str]:
        graph, plan_ = self.kernel.backward, self.plan.backward
        assert graph is not None
        assert plan_ is not None
        if not self._computed():
            return _returning(self._returned())
        saved = self._saved_names()
        targets = f"({saved[0]},)" if len(saved) == 1 else ", ".join(saved)
        lines = [f"{targets} = ctx.saved_tensors"] if saved else []
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

    def _gradient_buffers(self, plan_: Schedule, like: str) -> list[str]:
        lines: list[str] = []
        done: set[Value] = set()
        for g in self._computed():
            name = f"d_{self.ports[g.port]}"
            if g.value in done:
                continue
            done.add(g.value)
            if g.layout is Layout.FULL:
                lines.append(f"{name} = {like}.new_empty(shape)")
            elif g.layout is Layout.ROW:
                lines.append(f"{name} = {like}.new_empty(n_rows)")
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
            return f"{name}.sum(0).view({shape}).to({self._dtype()})"
        if port.layout is Layout.PARTIAL:
            return f"{name}.sum_to_size({shape})"
        if layout is Layout.FULL:  # which may be a result's own gradient, in any memory layout
            return name if self._is_whole(port) else f"{name}.reshape({shape})"
        return f"{name}.view({shape})"

    def _dtype(self) -> str:
        used = [n for p, n in self.grads.items() if self._used(p.value)]
        return f"{used[0]}.dtype"


_TORCH_DTYPES: Mapping[str, str] = {
    "bool": "torch.bool",
    "i64": "torch.int64",
    "i32": "torch.int32",
    "i16": "torch.int16",
    "i8": "torch.int8",
    "u8": "torch.uint8",
}


def _once(tensors: Sequence[Tensor_]) -> list[Tensor_]:
    """Each value written once, under its first name."""
    found: dict[Value, Tensor_] = {}
    for tensor in tensors:
        found.setdefault(tensor.value, tensor)
    return list(found.values())


def _returning(results: Sequence[str]) -> list[str]:
    """A `return` of a method, a result a line where it would be too long."""
    together = f"return {', '.join(results)}"
    return [together] if METHOD + len(together) <= WIDTH else ["return (", *(f"    {r}," for r in results), ")"]


def _wrapped(head: str, arguments: Sequence[str]) -> list[str]:
    """A launch, within the `if` of an autograd function's method."""
    first, *rest = layout(head, arguments, "", 12).split("\n")
    return [f"    {first}", *(f"    {line[12:]}" for line in rest)]


def _source_line(span: Span) -> str:
    return plain(span.source.line(span.line).strip())
