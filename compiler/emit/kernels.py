"""Fusion groups as the text of `kernels.py`: what each part says is decided here, the template only lays it out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tdsl.compiler.emit.indexing import Index
from tdsl.compiler.emit.render import layout
from tdsl.compiler.emit.triton import Body, Names, needed
from tdsl.compiler.ir import Graph, Node, Scalar, Value
from tdsl.compiler.kernel import Layout, layout_of
from tdsl.compiler.passes.schedule import SUMS, Form, Schedule

BLOCK = ("BLOCK: tl.constexpr",)
# An operand of a sum that still leaves its line short enough.
SHORT = 32
TILE = ("N_COLS: tl.constexpr", "BLOCK_ROWS: tl.constexpr", "BLOCK_COLS: tl.constexpr")


@dataclass(frozen=True)
class KernelText:
    """One `@triton.jit` function: its head, wrapped where it is long, and its body."""

    head: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Tensor_:
    """A tensor that a kernel reads or writes: its name, the value inside, its layout, and where its elements lie."""

    name: str
    value: Value
    layout: Layout
    index: Index | None = None


def kernel_text(
    name: str,
    graph: Graph,
    plan: Schedule,
    reads: Sequence[Tensor_],
    writes: Sequence[Tensor_],
    scalars: Mapping[Scalar, str],
    wishes: Mapping[Value, str] = MappingProxyType({}),
    saved: Collection[Value] = (),
) -> KernelText:
    """The Triton function that computes `graph`; `wishes` are names for values within it.

    `saved` are results that the backward reads.
    """
    writer = _Writer(graph, plan, reads, writes, scalars, wishes, saved)
    body = {
        Form.FLAT: writer.flat,
        Form.TILES: writer.tiles,
        Form.ROWS: writer.tiles,
        Form.LOOPED: writer.looped,
    }[plan.form]()
    pointers = [f"{t.name}_ptr" for t in (*reads, *writes)]
    used = {o for node in graph.nodes for o in node.inputs if isinstance(o, Scalar) and o.text}
    plain = ["n" if plan.form is Form.FLAT else "n_rows", *numbers_of((*reads, *writes))]
    plain += [scalars[s] for s in scalars if s in used]
    plain += ["seed"] if draws(graph) else []
    sizes = BLOCK if plan.form is Form.FLAT else TILE
    return KernelText(layout(f"def {name}", [*pointers, *plain, *sizes], ":", 0), tuple(body))


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


class _Writer:
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

    # One element after another ---------------------------------------------------------------------------------------

    def flat(self) -> list[str]:
        if self.plan.accumulate:
            return self._flat_sums()
        lines = ["offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)", "mask = offsets < n"]
        lines += self._compute([w.value for w in self.writes])
        return lines + [self._store(w) for w in self.writes]

    def _flat_sums(self) -> list[str]:
        """Sums over all elements: a program adds up those that it takes, block by block."""
        lines = [self._load(t) for t in self.reads.values() if t.layout is Layout.SCALAR]
        partial = {n: self._sum_name(n) for n in self.sums}
        lines += [f"{name} = tl.zeros([BLOCK], tl.float32)" for name in partial.values()]
        lines.append("for first in range(tl.program_id(0) * BLOCK, n, tl.num_programs(0) * BLOCK):")
        plain = self._plain_writes()
        inner = ["offsets = first + tl.arange(0, BLOCK).to(tl.int64)", "mask = offsets < n"]
        inner += self._compute([*(w.value for w in plain), *(n.values[0] for n in self.sums)])
        inner += [self._store(w) for w in plain]
        inner += [f"{name} += {self._row_total(node, inner)}" for node, name in partial.items()]
        lines += [f"    {line}" for line in inner]
        for node, name in partial.items():
            place = f"{self._written(node.output).name}_ptr + tl.program_id(0)"
            lines.append(f"tl.store({place}, tl.sum({name}))")
        return lines

    def _sum_name(self, node: Node) -> str:
        """What a program's own sum is called."""
        name = f"{self._written(node.output).name}_sum"
        self.names.taken.add(name)
        return name

    def _plain_writes(self) -> list[Tensor_]:
        """What is written beside sums."""
        summed = {n.output for n in self.sums}
        return [w for w in self.writes if w.value not in summed]

    # Tiles of rows by columns ----------------------------------------------------------------------------------------

    def tiles(self) -> list[str]:
        whole = self.plan.form is Form.ROWS
        cols = "tl.arange(0, BLOCK_COLS)[None, :]"
        lines = [f"cols = {cols}" if whole else f"cols = tl.program_id(1) * BLOCK_COLS + {cols}"]
        lines.append("col_mask = cols < N_COLS")
        return lines + (self._accumulating() if self.plan.accumulate else self._one_tile())

    def _one_tile(self) -> list[str]:
        lines = ["rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]"]
        lines += self._rest_of_tile()
        lines += self._compute([w.value for w in self.writes])
        return lines + [self._store(w) for w in self.writes]

    def _rest_of_tile(self) -> list[str]:
        return ["row_mask = rows < n_rows", "mask = row_mask & col_mask", *self._offsets()]

    def _offsets(self) -> list[str]:
        """Where the elements of a block lie, in tensors of the whole space and in what pieces are cut from."""
        tensors = [t for t in (*self.reads.values(), *self.writes) if t.layout is Layout.FULL]
        plain = any(t.index is None for t in tensors) or draws(self.graph)
        lines = dict.fromkeys(line for t in tensors if t.index is not None for line in t.index.lines)
        return [*(["offsets = rows * N_COLS + cols"] if plain else []), *lines]

    def _accumulating(self) -> list[str]:
        """Sums over rows: a program adds up those of its rows, `kernels.py` the programs' sums.

        Each place of the block has a sum of its own until the end: threads wait for one another only there.
        """
        vectors = [t for t in self.reads.values() if t.layout in (Layout.COL, Layout.SCALAR)]
        lines = [self._load(t) for t in vectors]
        partial = {n: self._sum_name(n) for n in self.sums}
        for node, name in partial.items():
            width = "1" if self._written(node.output).layout is Layout.SCALAR else "BLOCK_COLS"
            lines.append(f"{name} = tl.zeros([BLOCK_ROWS, {width}], tl.float32)")
        lines += self._row_loop()
        inner = ["rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)", *self._rest_of_tile()]
        plain = self._plain_writes()
        inner += self._compute([*(w.value for w in plain), *(n.values[0] for n in self.sums)])
        inner += [self._store(w) for w in plain]
        for node, name in partial.items():
            inner.append(f"{name} += {self.body.masked(node, self._summand(node, inner))}")
            self.body.bind(node.output, name)
        lines += [f"    {line}" for line in inner]
        lines += [f"{name} = {node.op.triton.format(name)}" for node, name in partial.items()]
        return lines + [self._store(self._written(n.output)) for n in self.sums]

    def _row_loop(self) -> list[str]:
        step = "tl.num_programs(0) * BLOCK_ROWS"
        return [f"for first in range(tl.program_id(0) * BLOCK_ROWS, n_rows, {step}):"]

    # Rows too long for registers -------------------------------------------------------------------------------------

    def looped(self) -> list[str]:
        """A walk over the row for each sum that depends on another, then one for the results."""
        if not self.plan.accumulate:
            rows = "rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]"
            return [rows, "row_mask = rows < n_rows", *self._walks()]
        lines = [f"{self._sum_name(n)} = tl.zeros([1, 1], tl.float32)" for n in self._scalar_sums()]
        inner = ["rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)", "row_mask = rows < n_rows"]
        inner += self._walks()
        lines += self._row_loop() + [f"    {line}" for line in inner]
        for node in self._scalar_sums():
            self.body.bind(node.output, self._sum_name(node))
            lines.append(self._store(self._written(node.output)))
        return lines

    def _scalar_sums(self) -> list[Node]:
        return [n for n in self.sums if self._written(n.output).layout is Layout.SCALAR]

    def _walks(self) -> list[str]:
        lines = [self._load(t) for t in self.reads.values() if t.layout is Layout.ROW]
        lines += [self._load(t) for t in self.reads.values() if t.layout is Layout.SCALAR]
        done: set[Value] = {t.value for t in self.reads.values() if t.layout in (Layout.ROW, Layout.SCALAR)}
        *rounds, last = self._rounds()
        for sums in rounds:
            lines += self._walk_sums(sums, done)
            done |= {n.output for n in sums}
        return lines + self._last_walk(last, done)

    def _rounds(self) -> list[list[Node]]:
        """The row sums by how many others they wait for, last those that nothing needs which is done block by block."""
        rounds = self._by_depth()
        wanted = [w.value for w in self.writes if w.layout is Layout.FULL]
        wanted += [n.values[0] for n in self._vector_sums()]
        before = set(needed(self.graph, wanted, ()))
        for sums in rounds:
            before |= set(needed(self.graph, [n.values[0] for n in sums], ()))
        late = [n for sums in rounds for n in sums if n not in before]
        early = ([n for n in sums if n not in late] for sums in rounds)
        return [*(sums for sums in early if sums), late]

    def _by_depth(self) -> list[list[Node]]:
        depth: dict[Value, int] = {}
        rounds: dict[int, list[Node]] = {}
        for node in self.graph.nodes:
            below = max((depth.get(v, 0) for v in node.values), default=0)
            is_sum = node.op.name.startswith("row_")
            depth[node.output] = below + is_sum
            if is_sum:
                rounds.setdefault(below, []).append(node)
        return [rounds[i] for i in sorted(rounds)]

    def _walk_sums(self, sums: list[Node], done: set[Value]) -> list[str]:
        lines = self._row_values([n.values[0] for n in sums], done)
        totals, starts = self._started(sums)
        inner = self._compute([n.values[0] for n in sums], done)
        lines += starts + self._chunks(inner + self._added(totals)) + self._summed(totals)
        self._forget(done | {n.output for n in sums})
        return lines

    def _started(self, sums: list[Node]) -> tuple[dict[Node, str], list[str]]:
        """What sums over a row are called, and the statements that begin them."""
        totals = {n: self.body.name(n.output) for n in sums}
        start = {"row_sum": "0.0", "row_max": 'float("-inf")', "row_min": 'float("inf")'}
        block = "[BLOCK_ROWS, BLOCK_COLS]"
        return totals, [f"{name} = tl.full({block}, {start[n.op.name]}, tl.float32)" for n, name in totals.items()]

    def _added(self, totals: Mapping[Node, str]) -> list[str]:
        """The statements that add a block of a row."""
        join = {"row_sum": "{0} + {1}", "row_max": "tm.maximum({0}, {1})", "row_min": "tm.minimum({0}, {1})"}
        masked = {n: self.body.masked(n, self.body.texts[n.values[0]].text) for n in totals}
        return [f"{name} = {join[n.op.name].format(name, masked[n])}" for n, name in totals.items()]

    def _summed(self, totals: Mapping[Node, str]) -> list[str]:
        """The statements that end sums over a row."""
        for node, name in totals.items():
            self.body.bind(node.output, name)
        return [f"{name} = {n.op.triton.format(name)}" for n, name in totals.items()]

    def _last_walk(self, sums: list[Node], done: set[Value]) -> list[str]:
        """Results of whole rows, with the sums that only results a row, or sums over rows, are made of."""
        full, vectors = [w for w in self.writes if w.layout is Layout.FULL], self._vector_sums()
        wanted = [*(w.value for w in full), *(n.values[0] for n in vectors), *(n.values[0] for n in sums)]
        lines = self._row_values(wanted, done)
        totals, starts = self._started(sums)
        if wanted:
            inner = self._compute(wanted, done) + [self._store(w) for w in full]
            for node in vectors:
                self._add_to_partial(node, inner)
            lines += starts + self._chunks(inner + self._added(totals)) + self._summed(totals)
        done |= {n.output for n in sums}
        self._forget(done)
        rows = [w for w in self.writes if w.layout is Layout.ROW]
        lines += self._row_values([*(w.value for w in rows), *(n.values[0] for n in self._scalar_sums())], done)
        lines += [self._store(w) for w in rows]
        for node in self._scalar_sums():
            lines.append(f"{self._sum_name(node)} += {self._row_total(node, lines)}")
        return lines

    def _vector_sums(self) -> list[Node]:
        return [n for n in self.sums if self._written(n.output).layout is Layout.COL]

    def _add_to_partial(self, node: Node, lines: list[str]) -> None:
        """A program's own row of partial sums, in memory: it alone reads and writes it."""
        name = self._written(node.output).name
        place, total = self.names.new(f"{name}_place"), self.names.new(f"{name}_sum")
        lines.append(f"{place} = {name}_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols")
        lines.append(f"{total} = tl.load({place}, mask=col_mask, other=0.0)")
        lines.append(f"{total} += {self._row_total(node, lines)}")
        lines.append(f"tl.store({place}, {total}, mask=col_mask)")

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

    def _row_values(self, wanted: Iterable[Value], done: set[Value]) -> list[str]:
        """Statements for the numbers a row that `wanted` needs: made once, outside the walk."""
        nodes = [
            n
            for n in needed(self.graph, wanted, done)
            if n.op.name not in SUMS
            and layout_of(n.output.type.shape) in (Layout.ROW, Layout.SCALAR)
            and all(self._at_hand(v, done) for v in n.values)
        ]
        lines: list[str] = []
        for node in nodes:
            if all(v in self.body.texts for v in node.values):
                lines += self.body.statements([node])
                done.add(node.output)
        return lines

    def _at_hand(self, value: Value, done: set[Value]) -> bool:
        return value in done or layout_of(value.type.shape) in (Layout.ROW, Layout.SCALAR)

    def _chunks(self, inner: list[str]) -> list[str]:
        head = ["cols = start + tl.arange(0, BLOCK_COLS)[None, :]", "col_mask = cols < N_COLS"]
        head += ["mask = row_mask & col_mask", *self._offsets()]
        return ["for start in range(0, N_COLS, BLOCK_COLS):", *(f"    {line}" for line in head + inner)]

    def _forget(self, kept: set[Value]) -> None:
        """After a walk only the numbers a row remain."""
        self.body.texts = {v: t for v, t in self.body.texts.items() if v in kept}

    # Loads, statements, stores ---------------------------------------------------------------------------------------

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
