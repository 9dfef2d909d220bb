"""What a group's `autograd.Function` makes beside the launch: sizes, tiles, results, their shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tdsl.compiler.emit.group_names import GroupNames
from tdsl.compiler.emit.kernel_writer import Tensor_, draws, numbers_of
from tdsl.compiler.emit.render import WIDTH, layout
from tdsl.compiler.ir import Graph, Scalar, Shape, TensorType
from tdsl.compiler.kernel import Layout, Port
from tdsl.compiler.ops.rows import N_ROWS
from tdsl.compiler.passes.schedule import Form, Schedule

# Columns before the statements of a method.
METHOD = 8


class BufferWriter(GroupNames):
    """Writes statements of one group's two methods."""

    def _shape_of(self) -> str:
        """The text of the full shape, from an input that has it."""
        like = self._like_port()
        for port in (like, *self.host):
            if self._is_whole(port):
                return f"{self.host[port]}.shape"
        names = dict.fromkeys(self.host[p] for p in self.ports)
        return f"torch.broadcast_shapes({', '.join(f'{n}.shape' for n in names)})"

    def _like(self) -> str:
        return self.host[self._like_port()]

    def _like_port(self) -> Port:
        floats = sorted((p for p in self.ports if p.type.is_float), key=lambda p: p.type.dtype != "float")
        whole = sorted((p for p in floats if p.layout is Layout.FULL), key=lambda p: p.window is not None)
        return next(iter(whole), floats[0])

    def _dtype_beside(self, type: TensorType, like: TensorType) -> str:
        """`, dtype=...` where a new tensor of this type does not have the dtype of what it is made like."""
        if not type.is_float:
            return f", dtype={TORCH_DTYPES[type.dtype]}"
        if self.low is None or type.dtype == like.dtype:
            return ""
        return f", dtype={self.low.text if type.dtype == 'float' else 'torch.float32'}"

    def _empty(self, port: Port) -> str:
        like = self._like()
        if is_sum(port):
            return self._sums(like, port.layout, self.plan.forward)
        dtype = self._dtype_beside(port.type, self._like_port().type)
        if port.layout is Layout.FULL:
            if self._shape_of() == f"{like}.shape" and self._like_port().window is None:
                return f"torch.empty_like({like}{dtype})"
            # What a kernel takes in whatever order it lies in memory, its results must lie in, too.
            whole = next((name for p, name in self.host.items() if self._is_whole(p)), "")
            if whole and self._is_dense(self.plan.forward):
                return f"torch.empty_like({whole}, dtype={self._dtype_of(port.type)})"
            return f"{like}.new_empty(shape{dtype})"
        return f"{like}.new_empty({self._row_shape(port)}{dtype})"

    def _sums(self, like: str, layout: Layout, plan_: Schedule) -> str:
        """What programs leave of a sum: they write all of it, but to walk over long rows they add to what is there."""
        width = "n_cols" if layout is Layout.COL else "1"
        made = "new_zeros" if plan_.form is Form.LOOPED and layout is Layout.COL else "new_empty"
        return f"{like}.{made}(programs, {width}, dtype=torch.float32)"

    def _row_shape(self, port: Port) -> str:
        """The shape of a number a row, which keeps its columns as ones or has dropped them."""
        kept = len(port.type.shape) == len(self.kernel.space.shape)
        ones = "".join(", 1" for _ in range(self.cols))
        return f"(*shape[:-{self.cols}]{ones})" if kept else f"shape[:-{self.cols}]"

    def _sizes(self, plan_: Schedule) -> list[str]:
        if plan_.form is Form.FLAT:
            return ["n = shape.numel()"]
        cols = "shape[-1]" if self.cols == 1 else f"math.prod(shape[-{self.cols}:])"
        return [f"n_cols = {cols}", "n_rows = shape.numel() // max(n_cols, 1)"]

    def _laid_out(self, names: Sequence[str], plan_: Schedule, beside: Sequence[str] = ()) -> list[str]:
        """Statements that lay tensors out as a kernel reads them, with those that are laid out already."""
        names = list(dict.fromkeys(names))
        if not names or not self._is_dense(plan_):
            return self._contiguous(names) if names else []
        every = list(dict.fromkeys([*beside, *names]))
        return [f"{', '.join(every)} = launch.{'alike' if len(every) > 1 else 'dense'}({', '.join(every)})"]

    def _is_dense(self, plan_: Schedule) -> bool:
        """Whether a kernel may take elements in whatever order they lie in memory: it tells no places apart."""
        ports = (*self.kernel.inputs, *self.kernel.outputs)
        plain = all(self._is_whole(p) or p.layout is Layout.SCALAR for p in ports)
        return plan_.form is Form.FLAT and plain and not self.draws

    def _contiguous(self, names: Sequence[str]) -> list[str]:
        calls = [f"{n}.contiguous()" for n in names]
        together = f"{', '.join(names)} = {', '.join(calls)}"
        return [together] if METHOD + len(together) <= WIDTH else [f"{n} = {c}" for n, c in zip(names, calls)]

    def _launch(
        self, direction: str, plan_: Schedule, reads: Sequence[Tensor_], writes: Sequence[Tensor_], graph: Graph
    ) -> list[str]:
        hosts = {self.ports[p]: name for p, name in self.host.items()}
        tensors = [hosts.get(t.name, t.name) for t in (*reads, *writes)]
        numbers = numbers_of((*reads, *writes)).values()
        used = {o for n in graph.nodes for o in n.inputs if isinstance(o, Scalar) and o.text}
        scalars = [name for s, name in self.scalars.items() if s in used]
        seed = ["seed"] if draws(graph) else []
        kernel = self._kernel_name(direction)
        if plan_.form is Form.FLAT:
            call = [*tensors, "n", *numbers, *scalars, *seed, "BLOCK=tile.cols", "num_warps=tile.warps"]
            head = f"{kernel}[{'(programs,)' if plan_.accumulate else '(triton.cdiv(n, tile.cols),)'}]"
            return ["if n:", *wrapped(head, call)]
        sizes = ["N_COLS=n_cols", "BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols", "num_warps=tile.warps"]
        call = [*tensors, "n_rows", *numbers, *scalars, *seed, *sizes]
        grid = self._grid(plan_)
        if 12 + len(f"{kernel}[{grid}](") > WIDTH:
            return ["if shape.numel():", f"    grid = {grid}", *wrapped(f"{kernel}[grid]", call)]
        return ["if shape.numel():", *wrapped(f"{kernel}[{grid}]", call)]

    def _grid(self, plan_: Schedule) -> str:
        rows = "programs" if plan_.accumulate else "triton.cdiv(n_rows, tile.rows)"
        return f"({rows}, triton.cdiv(n_cols, tile.cols))" if plan_.form is Form.TILES else f"({rows},)"

    def _tile(self, plan_: Schedule) -> list[str]:
        longest = ", longest=launch.CHUNK" if plan_.form is Form.LOOPED else ""
        made = {Form.FLAT: "flat_tile()", Form.TILES: "column_tile(n_cols)"}.get(
            plan_.form, f"row_tile(n_cols, live={plan_.live}{longest})"
        )
        counted = "n, tile.cols" if plan_.form is Form.FLAT else "n_rows, tile.rows"
        programs = [f"programs = launch.programs({counted})"] if plan_.accumulate else []
        return [f"tile = launch.{made}", *programs]

    def _buffer(self, port: Port) -> str:
        """What the kernel writes a result to: the programs' sums, where those are to be added up."""
        return f"{self.outputs[port]}_sums" if is_sum(port) else self.outputs[port]

    def _summed(self, port: Port) -> str:
        """A result that is a sum of the programs' sums."""
        dtype = self._dtype_of(port.type)
        shape = self._vector_shape(port.type.shape, port.layout)
        cast = f".to({dtype})" if dtype != "torch.float32" else ""
        return f"{over(f'{self._buffer(port)}.sum(0)', port)}.view({shape}){cast}"

    def _vector_shape(self, shape: Shape, layout: Layout) -> str:
        """The shape of a number a column, or of a single number, which keeps dimensions of 1 or has none."""
        if layout is Layout.SCALAR:
            return ", ".join("1" for _ in shape) or "()"
        ones = max(len(shape) - self.cols, 0)
        cols = f"shape[-{self.cols}:]"
        return f"{', '.join(['1'] * ones)}, *{cols}" if ones else cols

    def _dtype_of(self, type: TensorType) -> str:
        """The dtype of a result, as text."""
        if not type.is_float:
            return TORCH_DTYPES[type.dtype]
        if self.low is not None:
            return self.low.text if type.dtype == "float" else "torch.float32"
        return f"{self._like()}.dtype"

    def _is_whole(self, port: Port) -> bool:
        whole = len(port.type.shape) == len(self.kernel.space.shape)
        return port.layout is Layout.FULL and whole and not port.runs


TORCH_DTYPES: Mapping[str, str] = {
    "bool": "torch.bool",
    "i64": "torch.int64",
    "i32": "torch.int32",
    "i16": "torch.int16",
    "i8": "torch.int8",
    "u8": "torch.uint8",
}


def is_sum(port: Port) -> bool:
    """Whether a result is added up from what programs leave."""
    return port.layout in (Layout.COL, Layout.SCALAR)


def over(summed: str, port: Port) -> str:
    """A sum, divided where it is a mean."""
    if port.count is None:
        return summed
    return f"({summed} / {'n_rows' if port.count == N_ROWS else 'shape.numel()'})"


def wrapped(head: str, arguments: Sequence[str]) -> list[str]:
    """A launch, within the `if` of an autograd function's method."""
    first, *rest = layout(head, arguments, "", 12).split("\n")
    return [f"    {first}", *(f"    {line[12:]}" for line in rest)]
