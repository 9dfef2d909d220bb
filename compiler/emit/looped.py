"""Kernels over rows too long for registers: walked block by block, once for each sum that depends on another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tdsl.compiler.emit.kernel_writer import KernelWriter
from tdsl.compiler.emit.triton import needed
from tdsl.compiler.ir import Node, Value
from tdsl.compiler.kernel import Layout, layout_of
from tdsl.compiler.passes.schedule import SUMS


class Looped(KernelWriter):
    def lines(self) -> list[str]:
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
