"""What all forms of a kernel have: loads, statements, stores, and the names of what they bind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tdsl.compiler.emit.indexing import Index
from tdsl.compiler.emit.triton import Body, Names, needed
from tdsl.compiler.ir import Graph, Node, Scalar, Value
from tdsl.compiler.kernel import Layout, layout_of
from tdsl.compiler.passes.schedule import SUMS, Form, Schedule

# An operand of a sum that still leaves its line short enough.
SHORT = 32


@dataclass(frozen=True)
class Tensor_:
    """A tensor that a kernel reads or writes: its name, the value inside, its layout, and where its elements lie."""

    name: str
    value: Value
    layout: Layout
    index: Index | None = None


def numbers_of(tensors: Sequence[Tensor_]) -> dict[str, str]:
    """The numbers that index arithmetic needs, each once: its name, and its text where the kernel is launched."""
    found: dict[str, str] = {}
    for name, text in (number for t in tensors if t.index is not None for number in t.index.numbers):
        found.setdefault(name, text)
    return found


def draws(graph: Graph) -> bool:
    """Whether a graph draws random numbers."""
    return any(node.op.name in ("uniform", "gaussian") for node in graph.nodes)


def _may_be_rounded(tensor: Tensor_) -> bool:
    """Whether a result is stored in the precision of the run, whatever that is."""
    return tensor.layout is Layout.FULL and tensor.value.type.dtype == "float"


def _first(plan: Schedule) -> str:
    """The first offset of a block, or of each of its rows; how many follow, and how far rows are apart."""
    if plan.form is Form.FLAT:
        return f"{'first' if plan.accumulate else 'tl.program_id(0).to(tl.int64) * BLOCK'}, BLOCK"
    start = {Form.TILES: " + tl.program_id(1) * BLOCK_COLS", Form.LOOPED: " + start"}
    return f"rows * N_COLS{start.get(plan.form, '')}, BLOCK_COLS, N_COLS"


class KernelWriter(ABC):
    """Writes the body of one kernel; a subclass is a form, and says in which order what is loaded and computed."""

    def __init__(
        self,
        graph: Graph,
        plan: Schedule,
        reads: Sequence[Tensor_],
        writes: Sequence[Tensor_],
        scalars: Mapping[Scalar, str],
        wishes: Mapping[Value, str],
        saved: Collection[Value],
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.reads = {t.value: t for t in reads}
        self.writes = writes
        names = Names()
        names.taken |= {f"{t.name}_ptr" for t in (*reads, *writes)} | set(scalars.values())
        names.taken |= set(numbers_of((*reads, *writes)))
        lines = [line for t in (*reads, *writes) if t.index is not None for line in t.index.lines]
        names.taken |= {line.partition(" ")[0] for line in lines}
        self.names = names
        hints = {t.value: t.name for t in writes}
        again = {t.value: f"{t.name}_ptr" for t in writes if t.value in saved and _may_be_rounded(t)}
        flat = plan.form is Form.FLAT
        self.body = Body(graph, names, scalars, hints, wishes=wishes, flat=flat, first=_first(plan), read_again=again)
        self.sums = [n for n in graph.nodes if n.op.name in SUMS]

    @abstractmethod
    def lines(self) -> list[str]:
        """The statements of the body, indented relative to it."""

    def _sum_name(self, node: Node) -> str:
        """What a program's own sum is called."""
        name = f"{self._written(node.output).name}_sum"
        self.names.taken.add(name)
        return name

    def _plain_writes(self) -> list[Tensor_]:
        """What is written beside sums."""
        summed = {n.output for n in self.sums}
        return [w for w in self.writes if w.value not in summed]

    def _offsets(self) -> list[str]:
        """Where the elements of a block lie, in tensors of the whole space and in what pieces are cut from."""
        tensors = [t for t in (*self.reads.values(), *self.writes) if t.layout is Layout.FULL]
        plain = any(t.index is None for t in tensors) or draws(self.graph)
        lines = dict.fromkeys(line for t in tensors if t.index is not None for line in t.index.lines)
        return [*(["offsets = rows * N_COLS + cols"] if plain else []), *lines]

    def _row_loop(self) -> list[str]:
        step = "tl.num_programs(0) * BLOCK_ROWS"
        return [f"for first in range(tl.program_id(0) * BLOCK_ROWS, n_rows, {step}):"]

    def _row_total(self, node: Node, lines: list[str]) -> str:
        """The text of a sum over rows."""
        self._summand(node, lines)
        return self.body.expression(node).text

    def _summand(self, node: Node, lines: list[str]) -> str:
        """What is summed, which gets a line of its own where it is long."""
        (summed,) = node.values
        text = self.body.texts[summed].text
        if len(text) > SHORT:
            name = self.body.name(summed)
            lines.append(f"{name} = {text}")
            self.body.bind(summed, name)
        return self.body.texts[summed].text

    # Loads, statements, stores ----------------------------------------------------------------------------------------

    def _compute(self, wanted: list[Value], done: Iterable[Value] = ()) -> list[str]:
        """Loads, then statements, for `wanted`, from what is at hand."""
        stop = {*done, *self.reads}
        nodes = [n for n in needed(self.graph, wanted, stop) if n.op.name not in SUMS]
        used = {v for n in nodes for v in n.values} | set(wanted)
        loads = [self._load(t) for v, t in self.reads.items() if v in used and v not in self.body.texts]
        return loads + self.body.statements(nodes)

    def _written(self, value: Value) -> Tensor_:
        return next(w for w in self.writes if w.value is value)

    def _load(self, tensor: Tensor_) -> str:
        name = (
            self.names.new(tensor.name) if tensor.value not in self.body.texts else self.body.texts[tensor.value].text
        )
        self.body.bind(tensor.value, name)
        dtype = tensor.value.type.dtype
        upcast = ".to(tl.float32)" if tensor.value.type.is_float else ".to(tl.int1)" if dtype == "bool" else ""
        place, mask = self._place(tensor)
        if tensor.layout is Layout.SCALAR:
            one = ""
            if self._tells_truth(tensor.value):
                # Triton's interpreter makes numbers of a truth value that it broadcasts, but for a block's.
                one = f" + tl.zeros({'[1]' if self.plan.form is Form.FLAT else '[1, 1]'}, tl.int32)"
            return f"{name} = tl.load({tensor.name}_ptr{one}){upcast}"
        other = "0.0" if tensor.value.type.is_float else "0"
        return f"{name} = tl.load({place}, mask={mask}, other={other}){upcast}"

    def _tells_truth(self, value: Value) -> bool:
        """Whether a truth value is made of a single number, or of others that are made of it alone."""
        readers = [n for n in self.graph.nodes if value in n.values]
        numbers = (n.output for n in readers if layout_of(n.output.type.shape) is Layout.SCALAR)
        return any(n.output.type.dtype == "bool" for n in readers) or any(map(self._tells_truth, numbers))

    def _place(self, tensor: Tensor_) -> tuple[str, str]:
        if self.plan.form is Form.FLAT:
            usual, mask = "offsets", "mask"
        else:
            usual, mask = {Layout.FULL: ("offsets", "mask"), Layout.ROW: ("rows", "row_mask")}.get(
                tensor.layout, ("cols", "col_mask")
            )
        return f"{tensor.name}_ptr + {tensor.index.text if tensor.index else usual}", mask

    def _store(self, tensor: Tensor_) -> str:
        text = self.body.texts[tensor.value].text
        if any(n.output is tensor.value for n in self.sums):
            if tensor.layout is Layout.SCALAR:
                return f"tl.store({tensor.name}_ptr + tl.program_id(0) + tl.zeros([1, 1], tl.int32), {text})"
            place = f"{tensor.name}_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols"
            return f"tl.store({place}, {text}, mask=col_mask)"
        place, mask = self._place(tensor)
        return f"tl.store({place}, {text}, mask={mask})"
