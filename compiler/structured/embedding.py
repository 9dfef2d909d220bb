"""Look-ups in a table, and the table's gradient.

The look-up reads rows in float32 and writes them in the precision of the run; a number that is no row yields NaN. For
the gradient the numbers are sorted: equal ones are then runs. Each program sums what lies in a fixed stretch, one after
another, so that a number that is frequent is shared among programs; the parts of runs that cross from stretch to
stretch are added up by a second kernel. Both in an order that only the numbers decide: sums come out bit-equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tdsl.compiler.emit.render import layout
from tdsl.compiler.emit.triton import Names
from tdsl.compiler.explain.model import Cost
from tdsl.compiler.explain.sizes import Measure
from tdsl.compiler.ir import Group, Scalar
from tdsl.compiler.structured.numbers import declared, given, number_text
from tdsl.compiler.structured.template import Case, Naming, Template, register

NAMES = (
    *("entry", "entries", "place", "places", "known", "following", "leads", "total", "done", "leading", "trailing"),
    *("runs", "same", "parts", "goes_on", "begins", "n_entries", "n_programs", "i"),
)
TILE = ("N_COLS", "BLOCK_ROWS", "BLOCK_COLS")


def _variables(group: Group, naming: Naming) -> Mapping[str, object]:
    return _Text(group, naming).variables()


class _Text:
    def __init__(self, group: Group, naming: Naming) -> None:
        assert group.structure is not None
        self.name, self.naming = group.name, naming
        self.tokens, self.weight = naming.roles["tokens"], naming.roles["weight"]
        self.table = group.structure.roles["weight"]
        ((self.result, self.y),) = naming.outputs.items()
        names = Names({*naming.arguments, self.y, *NAMES})
        self.d_y, self.d_weight = names.new(f"d_{self.y}"), names.new(f"d_{self.weight}")
        self.padding = group.structure.options["padding_idx"]
        self.padded = self.padding is not None

    def variables(self) -> Mapping[str, object]:
        return {
            "tokens": self.tokens,
            "weight": self.weight,
            "y": self.y,
            "d_y": self.d_y,
            "d_weight": self.d_weight,
            "dtype": f", dtype={self._dtype()}" if self._casts() else "",
            "keeps_dtype": self._casts() and self.table.type.dtype != "f32",
            "kept": number_text(self.padding, self.naming) if isinstance(self.padding, Scalar) else "",
            "known": f"(entry >= 0) & (entry < n_entries){' & (entry != padding_idx)' if self.padded else ''}",
            "arguments": ", ".join(self.naming.arguments),
            "handed": ", ".join(self._handed()),
            **self._forward(),
            **self._runs(),
            **self._joined(),
        }

    def _casts(self) -> bool:
        """Whether what it yields is of another precision than the table."""
        return self.table.type.dtype != self.result.type.dtype

    def _dtype(self) -> str:
        return "torch.float32" if self.result.type.dtype == "f32" else self.naming.low

    def _handed(self) -> Iterator[str]:
        cast = "" if self.table.type.dtype == "f32" else ".to(ctx.dtype)" if self._casts() else f".to({self.d_y}.dtype)"
        yield from (f"{self.d_weight}{cast}" if v is self.table else "None" for v in self.naming.inputs)
        yield from ("None" for _ in self.naming.scalars)

    def _padding(self) -> list[str]:
        """The row without a gradient, counted from the front."""
        if self.padding is None:
            return []
        if isinstance(self.padding, int):
            return [str(self.padding) if self.padding >= 0 else f"n_entries - {-self.padding}"]
        return [f"ctx.{number_text(self.padding, self.naming)} % n_entries"]

    def _forward(self) -> Mapping[str, object]:
        pointers = [f"{each}_ptr" for each in (self.tokens, self.weight, self.y)]
        kernel = f"_{self.name}_forward"
        grid = "(triton.cdiv(n_rows, tile.rows), triton.cdiv(n_cols, tile.cols))"
        tiled = ["N_COLS=n_cols", "BLOCK_ROWS=tile.rows", "BLOCK_COLS=tile.cols", "num_warps=tile.warps"]
        given = [self.tokens, self.weight, self.y, "n_rows", "n_entries", *tiled]
        return {
            "forward_head": _head(kernel, [*pointers, "n_rows", "n_entries"], TILE),
            "forward_launch": layout(f"{kernel}[{grid}]", given, "", 12),
        }

    def _runs(self) -> Mapping[str, object]:
        kernel = f"_{self.name}_runs"
        tensors = ["entries", "places", self.d_y, self.d_weight, "leading", "trailing"]
        sizes = ["n_rows", "n_entries", *(["padding_idx"] if self.padded else [])]
        head = _head(kernel, [*(f"{t}_ptr" for t in tensors), *sizes], ("N_COLS", "LENGTH", "BLOCK_COLS"))
        tiled = ["N_COLS=n_cols", "LENGTH=runs.length", "BLOCK_COLS=runs.cols", "num_warps=runs.warps"]
        given = [*tensors, "n_rows", "n_entries", *self._padding(), *tiled]
        grid = "(runs.programs, triton.cdiv(n_cols, runs.cols))"
        return {"runs_head": head, "runs_launch": layout(f"{kernel}[{grid}]", given, "", 12)}

    def _joined(self) -> Mapping[str, object]:
        kernel = f"_{self.name}_joined"
        tensors = ["entries", "leading", "trailing", self.d_weight]
        sizes = ["n_rows", "n_entries", *(["padding_idx"] if self.padded else [])]
        constants = ("N_COLS", "LENGTH", "BLOCK_ROWS", "BLOCK_COLS")
        head = _head(kernel, [*(f"{t}_ptr" for t in tensors), *sizes], constants)
        tiled = ["N_COLS=n_cols", "LENGTH=runs.length", "BLOCK_ROWS=32", "BLOCK_COLS=128"]
        given = [*tensors, "n_rows", "n_entries", *self._padding(), *tiled]
        grid = "(runs.programs - 1, triton.cdiv(n_cols, 128))"
        return {"joined_head": head, "joined_launch": layout(f"{kernel}[{grid}]", given, "", 16)}


def _head(kernel: str, arguments: Sequence[str], constants: Sequence[str]) -> str:
    return layout(f"def {kernel}", [*arguments, *(f"{each}: tl.constexpr" for each in constants)], ":", 0)


# Sizes ---------------------------------------------------------------------------------------------------------------


# Places, entries, and the width of an entry.
SIZES = ((0, 5, 8), (1, 1, 1), (16, 1, 9), (33, 2, 33), (257, 3, 8), (130, 65, 24), (40, 900, 13), (9, 4, 1030))
# A table as it is declared is verified with no more than this.
MOST_ENTRIES, MOST_WIDTH = 64, 1024


def _cases(group: Group) -> Iterator[Case]:
    """As wide as declared; all numbers alike, few that are frequent, more numbers than places; empty and awkward."""
    assert group.structure is not None
    tokens, weight = (group.structure.roles[role].type for role in ("tokens", "weight"))
    padding = group.structure.options["padding_idx"]
    least = 1 if not isinstance(padding, int) else padding + 1 if padding >= 0 else -padding
    table = (
        min(declared(weight.shape[0], group, 7), MOST_ENTRIES),
        min(declared(weight.shape[1], group, 16), MOST_WIDTH),
    )
    for places, entries, width in ((40, *table), *SIZES):
        shape = (*(1 for _ in tokens.shape[1:]), places) if tokens.shape else ()
        number = max(entries, least)
        dtypes = (f"below:{number}", "f32" if weight.dtype == "f32" else "float")
        yield Case((shape, (number, width)), dtypes, given(group, {"padding_idx": 0}))


# What it costs -------------------------------------------------------------------------------------------------------


def _moved(group: Group) -> str:
    return "Moves 8 bytes (f32) an element forward, 4 and the table's gradient backward."


def _cost(group: Group, measure: Measure) -> Cost:
    """Rows are read and written; backward the numbers and the gradient are read, that of the table is written."""
    assert group.structure is not None
    tokens, weight = (group.structure.roles[role] for role in ("tokens", "weight"))
    (y,) = group.body.outputs
    looked_up = measure.elements(y) * (measure.bytes(weight) // max(measure.elements(weight), 1))
    return Cost(
        forward=measure.bytes(tokens) + looked_up + measure.bytes(y),
        backward=measure.bytes(tokens) + measure.bytes(y) + measure.bytes(weight),
    )


register(
    Template(
        "embedding",
        variables=_variables,
        moved=_moved,
        cases=_cases,
        cost=_cost,
        keeps=("tokens",),
        names=NAMES,
    )
)
