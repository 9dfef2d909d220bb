"""Choose the form of each kernel: what a program takes, and whether a row fits in registers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tdsl.compiler.ir import Graph, Value
from tdsl.compiler.kernel import Kernel, Layout, layout_of

# A block of a row of float32 that 16 warps can hold, for each value that is live at once: 65,536 registers a
# multiprocessor, of which addresses and temporaries take their share.
REGISTERS = 32768
# What runs over more than a row: programs add up what they take.
SUMS = ("col_sum", "all_sum")


class Form(Enum):
    FLAT = "flat"  # elements, in no particular shape
    TILES = "tiles"  # rows by columns, no sums over a row: programs along both
    ROWS = "rows"  # whole rows in registers
    LOOPED = "looped"  # rows walked over in blocks, once for each dependent sum


@dataclass(frozen=True)
class Schedule:
    """`accumulate`: a program takes many rows, one block after another, and sums over them. `live`: blocks at once."""

    form: Form
    accumulate: bool
    live: int


def schedule(kernel: Kernel, graph: Graph) -> Schedule:
    """The form of the forward or backward `graph` of a kernel."""
    accumulate = any(node.op.name in SUMS for node in graph.nodes)
    live = live_blocks(graph)
    if not any(node.op.name.startswith(("row_", "scan_")) for node in graph.nodes):
        return Schedule(Form.FLAT if kernel.space.flat else Form.TILES, accumulate, live)
    columns, scans = kernel.space.columns, any(node.op.name.startswith("scan_") for node in graph.nodes)
    if columns is not None and (scans or _padded(columns) * live <= REGISTERS):
        return Schedule(Form.ROWS, accumulate, live)
    return Schedule(Form.LOOPED, accumulate, live)


def _padded(columns: int) -> int:
    return 1 << max(columns - 1, 0).bit_length()


def live_blocks(graph: Graph) -> int:
    """The most [rows, columns] values that are live at once, sums over rows included."""
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.values, i))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    sums = sum(node.op.name in SUMS for node in graph.nodes)
    live = {v for v in graph.inputs if _is_block(v) and v in last}
    most = len(live)
    for i, node in enumerate(graph.nodes):
        live |= {v for v in node.outputs if _is_block(v)}
        most = max(most, len(live))
        live = {v for v in live if last.get(v, -1) > i}
    return most + sums


def _is_block(value: Value) -> bool:
    return layout_of(value.type.shape) is Layout.FULL
