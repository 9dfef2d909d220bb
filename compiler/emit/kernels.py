"""Fusion groups as the text of `kernels.py`: what each part says is decided here, the template only lays it out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tdsl.compiler.emit.kernel_writer import KernelWriter, Tensor_, draws, numbers_of
from tdsl.compiler.emit.looped import Looped
from tdsl.compiler.emit.render import layout
from tdsl.compiler.ir import Graph, Scalar, Value
from tdsl.compiler.kernel import Layout
from tdsl.compiler.passes.schedule import Form, Schedule

BLOCK = ("BLOCK: tl.constexpr",)
TILE = ("N_COLS: tl.constexpr", "BLOCK_ROWS: tl.constexpr", "BLOCK_COLS: tl.constexpr")


@dataclass(frozen=True)
class KernelText:
    """One `@triton.jit` function: its head, wrapped where it is long, and its body."""

    head: str
    lines: tuple[str, ...]


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
    body = FORMS[plan.form](graph, plan, reads, writes, scalars, wishes, saved).lines()
    pointers = [f"{t.name}_ptr" for t in (*reads, *writes)]
    used = {o for node in graph.nodes for o in node.inputs if isinstance(o, Scalar) and o.text}
    plain = ["n" if plan.form is Form.FLAT else "n_rows", *numbers_of((*reads, *writes))]
    plain += [scalars[s] for s in scalars if s in used]
    plain += ["seed"] if draws(graph) else []
    sizes = BLOCK if plan.form is Form.FLAT else TILE
    return KernelText(layout(f"def {name}", [*pointers, *plain, *sizes], ":", 0), tuple(body))


class _Flat(KernelWriter):
    """One element after another."""

    def lines(self) -> list[str]:
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


class _Tiles(KernelWriter):
    """Tiles of rows by columns; of whole rows where sums run over them."""

    def lines(self) -> list[str]:
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


FORMS: Mapping[Form, type[KernelWriter]] = {
    Form.FLAT: _Flat,
    Form.TILES: _Tiles,
    Form.ROWS: _Tiles,
    Form.LOOPED: Looped,
}
