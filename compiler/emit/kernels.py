"""Fusion groups as the text of `kernels.py`: what each part says is decided here, the template only lays it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tdsl.compiler.emit.render import layout
from tdsl.compiler.emit.triton import Body, Names, needed
from tdsl.compiler.ir import Graph, Node, Scalar, Value
from tdsl.compiler.kernel import Layout, layout_of
from tdsl.compiler.passes.schedule import Form, Schedule

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
    """A tensor that a kernel reads or writes: its name, the value inside, and its layout."""

    name: str
    value: Value
    layout: Layout


def kernel_text(
    name: str,
    graph: Graph,
    plan: Schedule,
    reads: Sequence[Tensor_],
    writes: Sequence[Tensor_],
    scalars: Mapping[Scalar, str],
) -> KernelText:
    """The Triton function that computes `graph`."""
    writer = _Writer(graph, plan, reads, writes, scalars)
    body = {
        Form.FLAT: writer.flat,
        Form.TILES: writer.tiles,
        Form.ROWS: writer.tiles,
        Form.LOOPED: writer.looped,
    }[plan.form]()
    pointers = [f"{t.name}_ptr" for t in (*reads, *writes)]
    used = {o for node in graph.nodes for o in node.inputs if isinstance(o, Scalar) and o.text}
    plain = ["n" if plan.form is Form.FLAT else "n_rows", *(scalars[s] for s in scalars if s in used)]
    plain += ["seed"] if draws(graph) else []
    sizes = BLOCK if plan.form is Form.FLAT else TILE
    return KernelText(layout(f"def {name}", [*pointers, *plain, *sizes], ":", 0), tuple(body))


def draws(graph: Graph) -> bool:
    """Whether a graph draws random numbers."""
    return any(node.op.name in ("uniform", "gaussian") for node in graph.nodes)


class _Writer:
    def __init__(
        self,
        graph: Graph,
        plan: Schedule,
        reads: Sequence[Tensor_],
        writes: Sequence[Tensor_],
        scalars: Mapping[Scalar, str],
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.reads = {t.value: t for t in reads}
        self.writes = writes
        names = Names()
        names.taken |= {f"{t.name}_ptr" for t in (*reads, *writes)} | set(scalars.values())
        self.names = names
        self.body = Body(graph, names, scalars, {t.value: t.name for t in writes})
        self.sums = [n for n in graph.nodes if n.op.name == "col_sum"]

    # One element after another ---------------------------------------------------------------------------------------

    def flat(self) -> list[str]:
        lines = ["offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)", "mask = offsets < n"]
        lines += self._compute([w.value for w in self.writes])
        return lines + [self._store(w) for w in self.writes]

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
        return ["row_mask = rows < n_rows", "mask = row_mask & col_mask", "offsets = rows * N_COLS + cols"]

    def _accumulating(self) -> list[str]:
        """Sums over rows: a program adds up those of its rows, `kernels.py` the programs' sums."""
        vectors = [t for t in self.reads.values() if t.layout in (Layout.COL, Layout.SCALAR)]
        lines = [self._load(t) for t in vectors]
        partial = {n: f"{self._written(n.output).name}_sum" for n in self.sums}
        for node, name in partial.items():
            self.names.taken.add(name)
            width = "1" if self._written(node.output).layout is Layout.SCALAR else "BLOCK_COLS"
            lines.append(f"{name} = tl.zeros([1, {width}], tl.float32)")
        lines += self._row_loop()
        inner = ["rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)", *self._rest_of_tile()]
        plain = [w for w in self.writes if w.value not in {n.output for n in self.sums}]
        inner += self._compute([*(w.value for w in plain), *(n.values[0] for n in self.sums)])
        inner += [self._store(w) for w in plain]
        for node, name in partial.items():
            inner.append(f"{name} += {self._row_total(node, inner)}")
            self.body.bind(node.output, name)
        lines += [f"    {line}" for line in inner]
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
        lines = [f"{self._scalar_sum(n)} = tl.zeros([1, 1], tl.float32)" for n in self._scalar_sums()]
        inner = ["rows = first + tl.arange(0, BLOCK_ROWS)[:, None].to(tl.int64)", "row_mask = rows < n_rows"]
        inner += self._walks()
        lines += self._row_loop() + [f"    {line}" for line in inner]
        for node in self._scalar_sums():
            self.body.bind(node.output, self._scalar_sum(node))
            lines.append(self._store(self._written(node.output)))
        return lines

    def _scalar_sums(self) -> list[Node]:
        return [n for n in self.sums if self._written(n.output).layout is Layout.SCALAR]

    def _scalar_sum(self, node: Node) -> str:
        name = f"{self._written(node.output).name}_sum"
        self.names.taken.add(name)
        return name

    def _walks(self) -> list[str]:
        lines = [self._load(t) for t in self.reads.values() if t.layout is Layout.ROW]
        lines += [self._load(t) for t in self.reads.values() if t.layout is Layout.SCALAR]
        done: set[Value] = {t.value for t in self.reads.values() if t.layout in (Layout.ROW, Layout.SCALAR)}
        for sums in self._rounds():
            lines += self._walk_sums(sums, done)
            done |= {n.output for n in sums}
        return lines + self._last_walk(done)

    def _rounds(self) -> list[list[Node]]:
        """The row sums by how many other row sums they wait for."""
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
        totals = {n: self.body.name(n.output) for n in sums}
        start = {"row_sum": "0.0", "row_max": 'float("-inf")', "row_min": 'float("inf")'}
        join = {"row_sum": "{0} + {1}", "row_max": "tm.maximum({0}, {1})", "row_min": "tm.minimum({0}, {1})"}
        for node, name in totals.items():
            lines.append(f"{name} = tl.full([BLOCK_ROWS, BLOCK_COLS], {start[node.op.name]}, tl.float32)")
        inner = self._compute([n.values[0] for n in sums], done)
        for node, name in totals.items():
            masked = self.body.masked(node, self.body.texts[node.values[0]].text)
            inner.append(f"{name} = {join[node.op.name].format(name, masked)}")
        lines += self._chunks(inner)
        for node, name in totals.items():
            lines.append(f"{name} = {node.op.triton.format(name)}")
            self.body.bind(node.output, name)
        self._forget(done | {n.output for n in sums})
        return lines

    def _last_walk(self, done: set[Value]) -> list[str]:
        row_writes = [w for w in self.writes if w.layout is Layout.ROW]
        lines = self._row_values([w.value for w in self.writes] + [n.values[0] for n in self.sums], done)
        lines += [self._store(w) for w in row_writes]
        for node in self._scalar_sums():
            lines.append(f"{self._scalar_sum(node)} += {self._row_total(node, lines)}")
        full = [w for w in self.writes if w.layout is Layout.FULL]
        vectors = [n for n in self.sums if self._written(n.output).layout is Layout.COL]
        if not full and not vectors:
            return lines
        inner = self._compute([*(w.value for w in full), *(n.values[0] for n in vectors)], done)
        inner += [self._store(w) for w in full]
        for node in vectors:
            self._add_to_partial(node, inner)
        return lines + self._chunks(inner)

    def _add_to_partial(self, node: Node, lines: list[str]) -> None:
        """A program's own row of partial sums, in memory: it alone reads and writes it."""
        name = self._written(node.output).name
        place, total = self.names.new(f"{name}_place"), self.names.new(f"{name}_sum")
        lines.append(f"{place} = {name}_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols")
        lines.append(f"{total} = tl.load({place}, mask=col_mask, other=0.0)")
        lines.append(f"{total} += {self._row_total(node, lines)}")
        lines.append(f"tl.store({place}, {total}, mask=col_mask)")

    def _row_total(self, node: Node, lines: list[str]) -> str:
        """The text of a sum over rows; what is summed gets a line of its own where it is long."""
        (summed,) = node.values
        text = self.body.texts[summed].text
        if len(text) > SHORT:
            name = self.body.name(summed)
            lines.append(f"{name} = {text}")
            self.body.bind(summed, name)
        return self.body.expression(node).text

    def _row_values(self, wanted: Iterable[Value], done: set[Value]) -> list[str]:
        """Statements for the numbers a row that `wanted` needs: made once, outside the walk."""
        nodes = [
            n
            for n in needed(self.graph, wanted, done)
            if layout_of(n.output.type.shape) in (Layout.ROW, Layout.SCALAR)
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
        head += ["mask = row_mask & col_mask", "offsets = rows * N_COLS + cols"]
        return ["for start in range(0, N_COLS, BLOCK_COLS):", *(f"    {line}" for line in head + inner)]

    def _forget(self, kept: set[Value]) -> None:
        """After a walk only the numbers a row remain."""
        self.body.texts = {v: t for v, t in self.body.texts.items() if v in kept}

    # Loads, statements, stores ---------------------------------------------------------------------------------------

    def _compute(self, wanted: list[Value], done: Iterable[Value] = ()) -> list[str]:
        """Loads, then statements, for `wanted`, from what is at hand."""
        stop = {*done, *self.reads}
        nodes = [n for n in needed(self.graph, wanted, stop) if n.op.name != "col_sum"]
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
            return f"{name} = tl.load({tensor.name}_ptr){upcast}"
        other = "0.0" if tensor.value.type.is_float else "0"
        return f"{name} = tl.load({place}, mask={mask}, other={other}){upcast}"

    def _place(self, tensor: Tensor_) -> tuple[str, str]:
        if self.plan.form is Form.FLAT or tensor.layout in (Layout.FULL, Layout.PARTIAL):
            return f"{tensor.name}_ptr + offsets", "mask"
        if tensor.layout is Layout.ROW:
            return f"{tensor.name}_ptr + rows", "row_mask"
        return f"{tensor.name}_ptr + cols", "col_mask"

    def _store(self, tensor: Tensor_) -> str:
        text = self.body.texts[tensor.value].text
        if any(n.output is tensor.value for n in self.sums):
            if tensor.layout is Layout.SCALAR:
                return f"tl.store({tensor.name}_ptr + tl.program_id(0) + tl.zeros([1, 1], tl.int32), {text})"
            place = f"{tensor.name}_ptr + tl.program_id(0).to(tl.int64) * N_COLS + cols"
            return f"tl.store({place}, {text}, mask=col_mask)"
        place, mask = self._place(tensor)
        return f"tl.store({place}, {text}, mask={mask})"
